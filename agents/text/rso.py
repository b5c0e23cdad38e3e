"""RSO: direct alignment on pairs from near the optimal policy, which rejection sampling takes from the reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prefenvs.agents.text.direct import DirectAlignment, DirectConfig
from prefenvs.agents.text.options import above, at_least
from prefenvs.agents.text.preference_pairs import PreferencePairs, ask_pairs
from prefenvs.agents.text.rewards import learn_reward, need_score, score, untrained_reward_model
from prefenvs.agents.text.sample_weights import rejection_sample


@dataclass(frozen=True, kw_only=True)
class RSOConfig(DirectConfig):
    """Statistical rejection sampling, Liu et al. 2023, arXiv:2309.06657."""

    pairs: int = 2000
    """Pairs of accepted completions to learn from."""
    candidates: int = 64
    """Completions of the reference that the two of a pair are accepted from (the paper: 64)."""
    beta: float = 0.5
    """Of acceptance, exp((r - r_max) / beta), in units of reward a nat (the paper: 0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, pairs=1, candidates=2)
        above(self, beta=0)


class RSO(DirectAlignment):
    """Statistical rejection sampling optimisation. Liu et al. 2023, arXiv:2309.06657.

    The reward is `reward`, or else learned from the teacher's answers. Accepted pairs are labelled by it both ways
    round, by its Bradley-Terry probabilities; the paper ranks them. The optimum is ref exp(r / beta) / Z of the
    *loss's* beta, wherever the pairs come from; acceptance puts them where that optimum is.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> config = RSOConfig(pairs=100, candidates=16)
        >>> RSO("decoder", envs, config=config, policy_kwargs=small, seed=0).learn(200).num_timesteps >= 200
        True
    """

    config_class = RSOConfig
    config: RSOConfig

    def __init__(self, policy: Any, env: Any, **arguments: Any) -> None:
        """Make a learner; arguments are those of DirectAlignment.

        Raises:
            ValueError: as DirectAlignment, and if the reward that would be learned scores no completion by itself.
        """
        super().__init__(policy, env, **arguments)
        if self.reward is None and self.pairs is None:
            need_score(untrained_reward_model(self.trunk, self.preferences))

    def collect_pairs(self, rng: torch.Generator) -> PreferencePairs:
        """Accepted completions of the reference, labelled by the reward; that is learned first where none was given."""
        if self.reward is None:
            answered = ask_pairs(self, self.preferences.queries, rng)
            self.reward, self.report = learn_reward(self.trunk, *answered, self.preferences, rng)
            self.reward_is_learned = True
        known = torch.as_tensor(self.language.prompts("train"))
        parts = []
        for part in torch.randint(len(known), (self.config.pairs,), generator=rng).split(256):
            prompts = torch.as_tensor(self.language.prompt_tokens[known[part].numpy()], device=self.device)
            parts.append(self._accepted_pairs(prompts, rng))
        return PreferencePairs.concatenate(parts)

    def _accepted_pairs(self, prompts: Tensor, rng: torch.Generator) -> PreferencePairs:
        """At most one pair of accepted completions for each of the prompts (n, P)."""
        count = self.config.candidates
        repeated = prompts.repeat_interleave(count, 0)
        tokens = self.sample(self.reference, repeated, rng)
        rewards = self.in_parts(partial(score, self.reward), repeated, tokens).reshape(-1, count)
        kept = rejection_sample(rewards.cpu(), beta=self.config.beta, rng=rng)
        keys = torch.where(kept, torch.rand(kept.shape, generator=rng), -1.0)
        found, two = keys.topk(2, -1)  # two of the accepted at random
        rows = torch.nonzero(found[:, 1] >= 0)[:, 0].to(self.device)  # where there are two
        two = two.to(self.device)[rows]
        first, second = tokens.reshape(len(prompts), count, -1)[rows[:, None], two].unbind(1)
        chance = rewards[rows].gather(1, two).softmax(-1)
        differ = (first != second).any(-1)
        return PreferencePairs.weighted(prompts[rows], first, second, chance * differ[:, None])
