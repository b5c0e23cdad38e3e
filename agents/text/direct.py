"""Direct alignment: a policy from pairs of completions by any pair loss, without a reward model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.checkpoint import Arrays, module_state, under
from prefenvs.agents.text.learner import TextConfig, TextLearner
from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.agents.text.losses.margins import updated_reward_margin
from prefenvs.agents.text.losses.unpaired import kto_reference_kl, updated_shift
from prefenvs.agents.text.options import at_least, check_options
from prefenvs.agents.text.pair_logps import READS, mismatched_ratios, pair_logps, with_reference
from prefenvs.agents.text.preference_pairs import PreferencePairs, ask_pairs
from prefenvs.agents.text.rewards import Reward, need_score, restored_reward_model, score
from prefenvs.error import unknown_name

KEPT = {"bco": "shift", "beta_dpo": "usual_reward_margin"}
"""Losses with an argument that is a running mean, which the learner keeps from batch to batch."""
GIVEN = {"scores": "reward", "guide": "guide"}
"""Which argument gives what a loss of READS reads, where the learner cannot make it itself."""
QUANTILES = ("aot", "aot_unpaired")
"""Losses whose rows are quantiles of the batch and not pairs, so that pairs cannot be weighed."""


@dataclass(frozen=True, kw_only=True)
class DirectConfig(TextConfig):
    """Direct alignment from pairs of completions."""

    batch_size: int = 64
    """Pairs a step."""
    options: Mapping[str, float] = field(default_factory=dict)
    """Options of the loss, beta for one; by default its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch_size=1)


class DirectAlignment(TextLearner):
    """Trains a policy on preferred and rejected completions by a loss of PAIR_LOSSES. Rafailov et al. 2023 (DPO).

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> learner = DirectAlignment("decoder", envs, loss="ipo", policy_kwargs=small, seed=0).learn(640)
        >>> prefenvs.feedback(envs).asked, learner.num_timesteps >= 640
        (200, True)
    """

    unit = "pairs"
    config_class = DirectConfig
    config: DirectConfig
    default_loss: ClassVar[str] = "dpo"

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        loss: str | None = None,
        config: DirectConfig | None = None,
        pairs: PreferencePairs | None = None,
        reward: Reward | None = None,
        guide: Any = None,
        **learner: Any,
    ) -> None:
        """Make a learner.

        Args:
            policy: "decoder" or a LanguageModel.
            env: a batch of a text task; see TextLearner.
            loss: name in PAIR_LOSSES, "dpo" by default.
            config: settings.
            pairs: to learn from; None to ask the environment's teacher about what the reference writes. A file keeps
                them, unless `load` is given others.
            reward: scores both completions, for losses that read scores (odpo, infonca). It and `guide` are moved to
                the learner's device where they are modules.
            guide: a policy trained before, for the loss tgdpo.
            **learner: as TextLearner; of `preferences` only the number of queries counts.

        Raises:
            ValueError: for an unknown loss, options that do not suit it, or one that lacks `reward` or `guide`.
        """
        self.loss = loss or self.default_loss
        if self.loss not in PAIR_LOSSES:
            raise unknown_name("loss", self.loss, PAIR_LOSSES)
        self.reads = READS.get(self.loss)
        lacking = GIVEN.get(self.reads or "", "")
        if lacking and {"reward": reward, "guide": guide}[lacking] is None:
            raise ValueError(f"loss={self.loss!r} reads {self.reads} and has none. Pass {lacking}=.")
        if reward is not None:
            need_score(reward)
        self.reward, self.guide, self.pairs = reward, guide, pairs
        self._given, self._given_digest = pairs, _digest(pairs)
        self.reward_is_learned = False
        """Whether `reward` was learned from the teacher, and so is part of the state."""
        super().__init__(policy, env, config=config, **learner)
        self.move(reward, guide)
        self._kept = torch.zeros((), device=self.device)
        self._order = torch.zeros(0, dtype=torch.int64)
        self._check_loss()

    def _check_loss(self) -> None:
        """Refuse options that do not suit the loss before anything is asked: it is tried on two empty completions."""
        options, function = self.config.options, PAIR_LOSSES[self.loss]
        running = {"kto_pair": "reference_kl", **KEPT}.get(self.loss, "")
        check_options("options", options, function, f"loss={self.loss!r}", supplied=(running,))
        if self.pairs is not None:  # which may hold what a loss of the user's own reads
            return
        prompts = torch.as_tensor(self.language.prompt_tokens[:2], device=self.device)
        empty = prompts.new_full((len(prompts), self.language.max_new_tokens), self.language.eos)
        pairs = PreferencePairs(
            prompts,
            empty,
            empty,
            torch.ones(len(prompts), device=self.device),
            scores=torch.zeros(len(prompts), 2, device=self.device) if self.reads == "scores" else None,
            sampled=empty if self.reads == "sampled" else None,
        )
        with torch.no_grad():
            pairs = with_reference(self.reference, pairs)
            logps = pair_logps(self.policy, self.reference, pairs, self.reads, self.guide)
            try:
                function(logps, **options, **self._running(pairs))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"loss={self.loss!r} cannot be computed with options={dict(options)!r}: {error} Nothing was asked."
                ) from error

    def begin(self) -> None:
        """Collect the pairs, where none were given."""
        rng = torch.Generator().manual_seed(self.seed + 1)  # not the learner's own, so that a resumed run can ask again
        self.set_pairs(self.collect_pairs(rng) if self.pairs is None else self.pairs, rng)

    def set_pairs(self, pairs: PreferencePairs, rng: torch.Generator) -> None:
        """Learn from these pairs from now on, in passes that begin anew.

        Args:
            pairs: what they lack of what the loss reads is made of the reference as it is now.
            rng: of the third completion of each prompt, for a loss that reads one.

        Raises:
            ValueError: if none of them is left to learn from.
        """
        pairs = pairs.to(self.device)
        if self.reads == "sampled" and pairs.sampled is None:
            pairs = PreferencePairs(**{**vars(pairs), "sampled": self.sample(self.reference, pairs.prompts, rng)})
        if self.reads == "scores" and pairs.scores is None:
            reward, sides = partial(score, self.reward), (pairs.chosen, pairs.rejected)
            both = [self.in_parts(reward, pairs.prompts, side) for side in sides]
            pairs = PreferencePairs(**{**vars(pairs), "scores": torch.stack(both, 1)})
        if self.loss == "odpo":  # it reads how much better the chosen one is
            assert pairs.scores is not None
            pairs = pairs[pairs.scores[:, 0] > pairs.scores[:, 1]]
        if self.loss in QUANTILES:
            pairs = pairs[pairs.weight == 1]
        if not len(pairs):
            raise ValueError("there is no pair to learn from: all questions were skipped, tied or left out.")
        rows = self.config.forward_rows
        batch = {} if rows is None else {"batch": max(1, rows // 3)}  # of up to three completions each
        self.pairs = with_reference(self.reference, pairs, **batch)
        self._order = torch.zeros(0, dtype=torch.int64)

    def collect_pairs(self, rng: torch.Generator) -> PreferencePairs:
        """The pairs to learn from, where none were given."""
        return PreferencePairs.of(*ask_pairs(self, self.preferences.queries, rng), self.language)

    def proxy(self, prompts: Tensor, completions: Tensor) -> Tensor | None:
        """(n,) reward of completions, where there is one."""
        return None if self.reward is None else self.in_parts(partial(score, self.reward), prompts, completions)

    def iterate(self) -> None:
        """Take a gradient step on the next pairs."""
        pairs = self._next_batch()
        logps = pair_logps(self.policy, self.reference, pairs, self.reads, self.guide)
        losses = PAIR_LOSSES[self.loss](logps, **self.config.options, **self._running(pairs))
        loss = (pairs.weight * losses).sum() / pairs.weight.sum()
        norm = self.descend(loss)
        self._keep(logps)
        self.num_timesteps += len(pairs)
        self._record(loss, norm, logps)

    def next_size(self) -> int:
        """A batch, or what is left of the pass."""
        assert self.pairs is not None
        return min(self.config.batch_size, len(self._order) or len(self.pairs))

    def _next_batch(self) -> PreferencePairs:
        """The next pairs of a shuffled pass over all; the last of a pass may be fewer."""
        assert self.pairs is not None
        if not len(self._order):
            self._order = torch.randperm(len(self.pairs), generator=self.rng)
        index, self._order = self._order.split(
            [size := min(self.config.batch_size, len(self._order)), len(self._order) - size]
        )
        return self.pairs[index.to(self.device)]

    def _running(self, pairs: PreferencePairs) -> dict[str, Any]:
        """Arguments of the loss that depend on other batches, or on other pairs of this one."""
        if self.loss == "kto_pair":
            return {"reference_kl": kto_reference_kl(mismatched_ratios(self.policy, self.reference, pairs))}
        return {KEPT[self.loss]: self._kept} if self.loss in KEPT else {}

    def _keep(self, logps: PairLogps) -> None:
        beta = self.config.options.get("beta", 0.1)
        if self.loss == "bco":
            self._kept = updated_shift(self._kept, logps.chosen_ratio, logps.rejected_ratio, beta=beta)
        if self.loss == "beta_dpo":
            self._kept = torch.as_tensor(updated_reward_margin(self._kept, logps, beta=beta))

    @torch.no_grad()
    def _record(self, loss: Tensor, norm: Tensor, logps: PairLogps) -> None:
        self.record_step(
            loss=loss,
            grad_norm=norm,
            margin=logps.margin.mean(),
            accuracy=(logps.margin > 0).float().mean(),
            chosen_ratio=logps.chosen_ratio.mean(),
            rejected_ratio=logps.rejected_ratio.mean(),
        )

    def own_settings(self) -> dict[str, Any]:
        """The loss beside what every learner has."""
        return {**super().own_settings(), "loss": self.loss}

    def unsaved_arguments(self) -> tuple[str, ...]:
        """A reward that was given, and a guide."""
        own = {"reward": self.reward is not None and not self.reward_is_learned, "guide": self.guide is not None}
        return tuple(name for name, given in own.items() if given)

    def own_state(self) -> Arrays:
        """Pairs and how far the pass is, what the loss keeps from batch to batch, and a reward that was learned."""
        model: Any = self.reward
        pairs = {} if self.pairs is None else vars(self.pairs)
        parts = {
            "pairs": {name: tensor.cpu().numpy() for name, tensor in pairs.items() if tensor is not None},
            "reward": module_state(model) if self.reward_is_learned else {},
        }
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        facts = {"kept": self._kept.cpu().numpy(), "order": self._order.numpy(), "prepared": np.array(self._prepared)}
        return {**facts, "given": self._given_digest, **named}

    def load_own_state(self, state: Arrays) -> None:
        """Put back what `own_state` gave; other pairs than it was given take the place of the saved ones."""
        if "reward" not in self.unsaved_arguments() and (reward := under("reward", state)):
            self.reward = restored_reward_model(self.trunk, self.preferences, reward)
            self.reward_is_learned = True
        saved = under("pairs", state)
        if self._given is not None and not np.array_equal(self._given_digest, state.get("given", ())):
            self.set_pairs(self._given, torch.Generator().manual_seed(self.seed + 1))
            self._prepared = self._prepared or bool(state["prepared"])
        elif saved:  # so that nothing is asked again; in later rounds they are others than were given
            tensors = {name: torch.as_tensor(np.array(array)) for name, array in saved.items()}
            self.pairs, self._prepared = PreferencePairs(**tensors).to(self.device), bool(state["prepared"])
        self._kept = torch.as_tensor(state["kept"], device=self.device)
        same = self.pairs is not None and bool(saved) and len(saved["weight"]) == len(self.pairs)
        self._order = torch.as_tensor(np.array(state["order"])) if same else torch.zeros(0, dtype=torch.int64)


def _digest(pairs: PreferencePairs | None) -> np.ndarray:
    """(32,) uint8 that tell pairs which were given from others; (0,) for none."""
    if pairs is None:
        return np.zeros(0, np.uint8)
    named = {name: tensor.cpu().numpy() for name, tensor in vars(pairs).items() if tensor is not None}
    parts = (f"{name} {array.dtype} {array.shape}".encode() + array.tobytes() for name, array in named.items())
    return np.frombuffer(hashlib.sha256(b"".join(parts)).digest(), np.uint8)
