"""The reward that a language model is trained on: a score of whole completions, learned or given, then shaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.checkpoint import Arrays
from prefenvs.agents.reward_models import FitReport, fit
from prefenvs.agents.reward_models.text import BradleyTerryReward, TextPreferences
from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext, RunningRewards
from prefenvs.error import unknown_name
from prefenvs.segments import Label, Query

if TYPE_CHECKING:
    from prefenvs.agents.text.rollouts import Written

Reward = Callable[[Tensor, Tensor], Tensor] | Any
"""A reward model with `score(prompts, completions)`, or a function: (n, P) and (n, T) int64 to (n,)."""


@torch.no_grad()
def score(reward: Reward, prompts: Tensor, completions: Tensor, aggregate: str = "mean") -> Tensor:
    """(n,) reward of completions (n, T) of prompts (n, P), without gradient.

    Args:
        reward: a model or a function.
        prompts: (n, P) left-padded.
        completions: (n, T) right-padded.
        aggregate: how members of an ensemble become one number, a name in REWARD_TRANSFORMS.

    Raises:
        TypeError: if members are to be aggregated and the reward has none.
    """
    if aggregate == "mean":
        return getattr(reward, "score", reward)(prompts, completions).float()
    if not hasattr(reward, "members"):
        raise TypeError(
            f"aggregate={aggregate!r} needs an ensemble with members(prompts, completions), got {reward!r}."
        )
    options = {"unbiased": False} if aggregate == "uncertainty_weighted" else {}
    return REWARD_TRANSFORMS[aggregate](reward.members(prompts, completions), **options).float()


@dataclass(frozen=True)
class TextPreferenceConfig:
    """What is asked of the teacher, and how the Bradley-Terry model is fitted to the answers."""

    queries: int = 1000
    """Pairs to ask about; a smaller budget of the environment wins."""
    members: int = 1
    """Heads on the model's trunk, a copy of the reference."""
    learning_rate: float = 3e-4
    """Adam's."""
    epochs: int = 10
    """Passes over the answers at most."""
    batch_size: int = 64
    """Queries a step."""
    stop_accuracy: float = 0.97
    """Accuracy on the training queries at which fitting stops."""


def learn_reward(
    reference: Any, query: Query, label: Label, config: TextPreferenceConfig, rng: torch.Generator
) -> tuple[BradleyTerryReward, FitReport]:
    """A reward model on a copy of the reference, fitted to answered queries, and how the fit went.

    Raises:
        ValueError: if no question was answered.
    """
    model = BradleyTerryReward(reference, rng=rng, members=config.members).requires_grad_(True)
    data = TextPreferences()
    data.add(model, query, label)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    settings = {"epochs": config.epochs, "batch": config.batch_size, "stop_accuracy": config.stop_accuracy}
    report = fit(model, optimizer, data, rng=rng, **settings)
    return model.requires_grad_(False), report


class Shaping:
    """A reward transform with what it compares with: rewards of the reference's completions, and of all so far."""

    def __init__(self, transform: str, options: Mapping[str, Any], references: int) -> None:
        """Shape by `transform`, a name in REWARD_TRANSFORMS.

        Args:
            transform: name.
            options: of it.
            references: M, rewards of the reference's completions of each prompt that it is compared with.

        Raises:
            ValueError: for an unknown name.
        """
        if transform not in REWARD_TRANSFORMS:
            raise unknown_name("transform", transform, REWARD_TRANSFORMS)
        self.transform, self.options, self.count = transform, dict(options), references
        self.references: Tensor | None = None
        """(prompts, M), filled by `observe_references`."""
        self.running: RunningRewards | None = None

    def observe_references(
        self, write: Callable[[np.ndarray], Written], reward: Reward, prompts: np.ndarray, n: int
    ) -> None:
        """Score M completions of the reference for each prompt.

        Args:
            write: completes prompts (n,) in n environments with the reference.
            reward: (prompts, completions) to (n,).
            prompts: (p,) all that may come.
            n: environments.
        """
        wanted = np.repeat(prompts, self.count)
        padded = np.resize(wanted, -(-len(wanted) // n) * n)
        parts = [write(ids) for ids in padded.reshape(-1, n)]
        found = torch.cat([reward(part.prompts, part.tokens) for part in parts])[: len(wanted)]
        self.references = found.new_zeros(int(prompts.max()) + 1, self.count)
        self.references[torch.as_tensor(prompts, device=found.device)] = found.reshape(-1, self.count)

    def __call__(self, rewards: Tensor, prompt_ids: np.ndarray) -> Tensor:
        """(n,) shaped rewards of completions of prompts (n,); this batch counts among all so far."""
        self.running = RunningRewards.of(rewards) if self.running is None else self.running.updated(rewards)
        held = None if self.references is None else self.references[torch.as_tensor(prompt_ids, device=rewards.device)]
        return REWARD_TRANSFORMS[self.transform](rewards, RewardContext(held, self.running), **self.options)

    def state(self) -> Arrays:
        """The running statistics; references are scored anew from the same draws."""
        return {} if self.running is None else {name: t.cpu().numpy() for name, t in vars(self.running).items()}

    def load_state(self, state: Arrays, device: torch.device) -> None:
        """Put back what `state` gave."""
        if state:
            self.running = RunningRewards(**{k: torch.as_tensor(np.array(a), device=device) for k, a in state.items()})
