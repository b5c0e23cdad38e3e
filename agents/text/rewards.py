"""The reward that a language model is trained on: given as a model or a function, or learned from the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prefenvs.agents.checkpoint import Arrays, load_module
from prefenvs.agents.reward_models import FitReport, fit
from prefenvs.agents.reward_models.text import TEXT_REWARD_MODELS, TextModel, TextPreferences
from prefenvs.agents.reward_models.training import AnsweredQueries
from prefenvs.agents.text.options import above, at_least, check_options
from prefenvs.error import unknown_name
from prefenvs.segments import Label, Query
from prefenvs.tasks.text.language import Language, prompt_numbers

Reward = Callable[[Tensor, Tensor], Tensor] | Any
"""A reward model with `score(prompts, completions)`, or a function: (n, P) and (n, T) int64 to (n,)."""


@torch.no_grad()
def score(reward: Reward, prompts: Tensor, completions: Tensor) -> Tensor:
    """(n,) float32 reward of completions (n, T) of prompts (n, P), on their device and without gradient."""
    return getattr(reward, "score", reward)(prompts, completions).to(prompts.device, torch.float32)


def true_reward(envs: Any, language: Language) -> Reward:
    """The true reward that a batch of environments of the evaluation door pays, of any completions of its prompts."""

    def paid(prompts: Tensor, completions: Tensor) -> Tensor:
        ids = prompt_numbers(language, prompts.cpu().numpy())
        if (unknown := ids < 0).any():
            raise ValueError(
                f"{prompts[int(unknown.argmax())].tolist()} is no prompt of the task, which knows no reward of it."
            )
        rewards = envs.unwrapped.task.task.rewards(ids, completions.cpu().numpy())
        return torch.as_tensor(rewards, dtype=torch.float32, device=prompts.device)

    return paid


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
    """A name in TEXT_REWARD_MODELS; "word_pairs" takes the reference's words alone, the others start from a copy of the
    reference, and of one with LoRA the small matrices learn alone."""
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
        at_least(self, queries=1, epochs=1, batch_size=1)
        above(self, learning_rate=0)
        if self.reward_model not in TEXT_REWARD_MODELS:
            raise unknown_name("reward_model", self.reward_model, TEXT_REWARD_MODELS)
        make, reader = TEXT_REWARD_MODELS[self.reward_model], f"reward_model={self.reward_model!r}"
        check_options("reward_options", self.reward_options, make, reader, supplied=("rng",))


def new_reward_model(reference: Any, config: TextPreferenceConfig, rng: torch.Generator) -> TextModel:
    """The reward model that `config` names, on a copy of the reference, untrained."""
    return TEXT_REWARD_MODELS[config.reward_model](reference, rng=rng, **config.reward_options)


def new_answers(model: Any) -> AnsweredQueries:
    """What keeps the answers that `model` is fitted to: its `data_class`, TextPreferences where it names none."""
    make = getattr(type(model), "data_class", TextPreferences)  # off the class, which binds no function to the model
    return vars(model).get("data_class", make)()


def restored_reward_model(reference: Any, config: TextPreferenceConfig, state: Arrays) -> TextModel:
    """The reward model that was learned, from its `module_state`.

    Raises:
        RunMismatch: if the weights belong to another one.
    """
    model = new_reward_model(reference, config, torch.Generator())  # whose draws are replaced
    load_module(model, state)
    return model.requires_grad_(False)


def untrained_reward_model(reference: Any, config: TextPreferenceConfig) -> TextModel:
    """The reward model that would be learned, to see before anything is asked that it can be.

    Raises:
        ValueError: if it or what keeps its answers cannot be made, or it reads more of an answer than there is.
    """
    try:
        model = new_reward_model(reference, config, torch.Generator())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"reward_model={config.reward_model!r} cannot be made with reward_options={dict(config.reward_options)!r}: "
            f"{error} Nothing was asked."
        ) from error
    try:
        kept: Any = new_answers(model)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data_class of reward_model={config.reward_model!r} cannot be called without arguments: {error} "
            "Nothing was asked."
        ) from error
    if not isinstance(kept, AnsweredQueries):
        raise ValueError(
            f"data_class of reward_model={config.reward_model!r} makes a {type(kept).__name__}, expected "
            "AnsweredQueries. Nothing was asked."
        )
    if getattr(model, "margin", 0):
        raise ValueError(
            f"reward_options={dict(config.reward_options)!r}: a margin is for each unit of label.strength, and answers "
            "to the questions of a learner have none. Leave it out. Nothing was asked."
        )
    return model


def need_score(reward: Reward) -> None:
    """Refuse a reward that scores no completion by itself.

    Raises:
        ValueError: naming what compares.
    """
    if hasattr(reward, "compare") and not hasattr(reward, "score"):
        raise ValueError(
            f"{type(reward).__name__} compares completions and scores none by itself. Expected a reward model with "
            "score(prompts, completions), or a function. Nothing was asked."
        )


def learn_reward(
    reference: Any, query: Query, label: Label, config: TextPreferenceConfig, rng: torch.Generator
) -> tuple[TextModel, FitReport]:
    """A reward model fitted to answered queries, and how the fit went.

    Raises:
        ValueError: if no question was answered.
    """
    model = new_reward_model(reference, config, rng)
    data = new_answers(model)
    data.add(model, query, label)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    settings: dict[str, Any] = {
        "epochs": config.epochs,
        "batch": config.batch_size,
        "stop_accuracy": config.stop_accuracy,
    }
    report = fit(model, optimizer, data, rng=rng, **settings)
    return model.requires_grad_(False), report
