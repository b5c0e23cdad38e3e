"""The reward that a language model is trained on: given as a model or a function, or learned from the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prefenvs.agents.reward_models import FitReport, fit
from prefenvs.agents.reward_models.text import TEXT_REWARD_MODELS, TextModel, TextPreferences
from prefenvs.error import unknown_name
from prefenvs.segments import Label, Query

Reward = Callable[[Tensor, Tensor], Tensor] | Any
"""A reward model with `score(prompts, completions)`, or a function: (n, P) and (n, T) int64 to (n,)."""


@torch.no_grad()
def score(reward: Reward, prompts: Tensor, completions: Tensor) -> Tensor:
    """(n,) float32 reward of completions (n, T) of prompts (n, P), on their device and without gradient."""
    return getattr(reward, "score", reward)(prompts, completions).to(prompts.device, torch.float32)


class OneMember:
    """Any reward as an ensemble of one, so that it can be transformed as reward models are."""

    supports = frozenset({"members"})

    def __init__(self, reward: Reward) -> None:
        """Take a model with `score`, or a function."""
        self.reward = reward

    def members(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(1, n) its reward."""
        return score(self.reward, prompts, completions)[None]


@dataclass(frozen=True)
class TextPreferenceConfig:
    """What is asked of the teacher, and the reward model that is fitted to the answers."""

    queries: int | None = None
    """Pairs to ask about; None for the environment's whole budget, or 1000 without one. A smaller budget wins."""
    reward_model: str = "bradley_terry"
    """A name in TEXT_REWARD_MODELS; the model starts from a copy of the reference, and of one with LoRA the small
    matrices learn alone."""
    reward_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of it: members for one."""
    learning_rate: float = 3e-4
    """Adam's."""
    epochs: int = 10
    """Passes over the answers at most."""
    batch_size: int = 64
    """Queries a step."""
    stop_accuracy: float = 0.97
    """Accuracy on the training queries at which fitting stops."""

    def __post_init__(self) -> None:
        if self.reward_model not in TEXT_REWARD_MODELS:
            raise unknown_name("reward_model", self.reward_model, TEXT_REWARD_MODELS)


def new_reward_model(reference: Any, config: TextPreferenceConfig, rng: torch.Generator) -> TextModel:
    """The reward model that `config` names, on a copy of the reference, untrained."""
    return TEXT_REWARD_MODELS[config.reward_model](reference, rng=rng, **config.reward_options)


def learn_reward(
    reference: Any, query: Query, label: Label, config: TextPreferenceConfig, rng: torch.Generator
) -> tuple[TextModel, FitReport]:
    """A reward model fitted to answered queries, and how the fit went.

    Raises:
        ValueError: if no question was answered.
    """
    model = new_reward_model(reference, config, rng)
    data = TextPreferences()
    data.add(model, query, label)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    settings: dict[str, Any] = {
        "epochs": config.epochs,
        "batch": config.batch_size,
        "stop_accuracy": config.stop_accuracy,
    }
    report = fit(model, optimizer, data, rng=rng, **settings)
    return model.requires_grad_(False), report
