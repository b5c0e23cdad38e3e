"""A reward model and what is done to its reward, as one function of prompts and completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefenvs.agents.reward_models.text.pairwise import PairwisePreference
from prefenvs.agents.reward_models.text.process import ProcessReward, at_step_ends
from prefenvs.agents.reward_models.text.surface import TextRewardModel
from prefenvs.agents.reward_transforms import OF_MEMBERS, OF_STEPS, REWARD_TRANSFORMS, RewardContext, RunningRewards
from prefenvs.error import unknown_name
from prefenvs.tasks.text.lm.sampling import sample_in_parts


@dataclass(frozen=True, eq=False)
class References:
    """Stored completions of prompts that rewards are compared with."""

    prompts: Tensor
    """(Q, P) int64, left-padded, each once."""
    completions: Tensor
    """(Q, R, T) R completions of each."""
    pad: int = 0
    """The token that pads."""

    @classmethod
    def sample(
        cls,
        model: Any,
        prompts: Tensor,
        count: int,
        max_new_tokens: int,
        rng: torch.Generator,
        rows: int | None = None,
    ) -> References:
        """`count` completions of each prompt (Q, P) by a LanguageModel, best the reference policy (PAR: 10).

        `rows` are written at a time; None for all.
        """
        repeated = prompts.repeat_interleave(count, 0)
        written = sample_in_parts(model, repeated, max_new_tokens, rng, rows=rows).tokens
        return cls(prompts, written.unflatten(0, (len(prompts), count)), model.pad)

    def rows(self, prompts: Tensor) -> Tensor:
        """(n,) which of the stored prompts each prompt (n, P') is, however much they are padded.

        Raises:
            ValueError: for a prompt that is not stored.
        """
        width = max(prompts.shape[1], self.prompts.shape[1])
        asked, stored = (
            pad(tokens, (width - tokens.shape[1], 0), value=self.pad) for tokens in (prompts, self.prompts)
        )
        same = (asked[:, None] == stored).all(-1)
        missing = ~same.any(1)
        if missing.any():
            raise ValueError(
                f"no reference completions of the prompt {prompts[missing][0].tolist()}; there are some of "
                f"{len(stored)} prompts. Sample them of every prompt that is trained on."
            )
        return same.int().argmax(1)


class TransformedReward:
    """The reward that a policy is trained on: members aggregated, then shaped. Called as (prompts, completions).

    References and batch are seen through the same aggregate. Moments and range of all rewards so far, for the
    transforms that read them, include the present batch; `running` is that state.

    Example:
        >>> references = References.sample(policy, prompts, count=10, max_new_tokens=24, rng=rng)     # doctest: +SKIP
        >>> reward = TransformedReward(model, "par", aggregate="worst_case", references=references)   # doctest: +SKIP
        >>> reward(prompts, completions)                                              # (n,)          # doctest: +SKIP
    """

    def __init__(
        self,
        model: TextRewardModel,
        transform: str = "identity",
        *,
        aggregate: str = "mean",
        references: References | None = None,
        options: Mapping[str, Any] | None = None,
        aggregate_options: Mapping[str, Any] | None = None,
        batch: int = 1024,
    ) -> None:
        """Transform the reward of `model`, which must not change any more: references are scored once, here.

        Args:
            model: with `members`.
            transform: a name in REWARD_TRANSFORMS that shapes (n,) rewards.
            aggregate: a name in OF_MEMBERS.
            references: completions of every prompt; for the transforms that read them.
            options: of the transform.
            aggregate_options: of the aggregate.
            batch: completions that are scored at a time.

        Raises:
            ValueError: for unknown names, or a model without members.
        """
        shaping = set(REWARD_TRANSFORMS) - OF_MEMBERS - OF_STEPS
        for argument, name, known in (("transform", transform, shaping), ("aggregate", aggregate, OF_MEMBERS)):
            if name not in known:
                raise unknown_name(argument, name, known)
        if "members" not in model.supports:
            raise ValueError(f"{type(model).__name__} scores no completion by itself. Use WinRate(model, references).")
        self.model, self.transform, self.aggregate = model, transform, aggregate
        self.options, self.aggregate_options = dict(options or {}), dict(aggregate_options or {})
        self.batch, self.references = batch, references
        self.running: RunningRewards | None = None
        self._reference_rewards: Tensor | None = None
        if references is not None:
            count = references.completions.shape[1]
            shown = references.prompts.repeat_interleave(count, 0)
            self._reference_rewards = self.aggregated(shown, references.completions.flatten(0, 1)).view(-1, count)

    @torch.no_grad()
    def __call__(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) transformed reward of completions (n, T) of prompts (n, P): `shaped` of what is `aggregated`."""
        return self.shaped(self.aggregated(prompts, completions), prompts)

    def shaped(self, rewards: Tensor, prompts: Tensor) -> Tensor:
        """(n,) shaped form of aggregated rewards (n,) of completions of prompts (n, P), which then count as seen.

        Raises:
            ValueError: if the transform reads references and there are none, of any prompt or of one of these.
        """
        compared = None
        if self.references is not None and self._reference_rewards is not None:
            compared = self._reference_rewards[self.references.rows(prompts)]
        self.running = RunningRewards.of(rewards) if self.running is None else self.running.updated(rewards)
        return REWARD_TRANSFORMS[self.transform](rewards, RewardContext(compared, self.running), **self.options)

    @torch.no_grad()
    def aggregated(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) rewards over members, before shaping."""
        parts = zip(prompts.split(self.batch), completions.split(self.batch), strict=True)
        members = torch.cat([self.model.members(*part) for part in parts], 1)
        return REWARD_TRANSFORMS[self.aggregate](members, **self.aggregate_options)


class TransformedSteps:
    """Rewards of the steps of a process reward, transformed and put at the steps' last tokens."""

    def __init__(self, model: ProcessReward, transform: str, **options: Any) -> None:
        """Transform the step qualities of `model` by a name in OF_STEPS with its options.

        Raises:
            ValueError: for an unknown name.
        """
        if transform not in OF_STEPS:
            raise unknown_name("transform", transform, OF_STEPS)
        self.model, self.transform, self.options = model, transform, options

    @torch.no_grad()
    def __call__(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T) rewards of completions (n, T) of prompts (n, P) a token; 0 within steps."""
        quality, ends = self.model.steps(prompts, completions)
        rewards = REWARD_TRANSFORMS[self.transform](quality, mask=ends >= 0, **self.options)
        return at_step_ends(rewards, ends, completions.shape[1])


class WinRate:
    """The chance that a completion is preferred to the prompt's references, mean_m P(y > ref_m): a reward from pairs.

    PAR's reward where the preference model is one of rewards; needs none of each completion.
    """

    def __init__(self, model: PairwisePreference, references: References) -> None:
        """Compare by `model` with `references`."""
        self.model, self.references = model, references

    @torch.no_grad()
    def __call__(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) in (0, 1), of completions (n, T) of prompts (n, P)."""
        others = self.references.completions[self.references.rows(prompts)]
        count = others.shape[1]
        shown, written = prompts.repeat_interleave(count, 0), completions.repeat_interleave(count, 0)
        return self.model.compare(shown, written, others.flatten(0, 1)).sigmoid().view(-1, count).mean(1)
