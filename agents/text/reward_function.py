"""A true reward or a reward model as the reward function that trainers such as TRL's GRPOTrainer call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from prefenvs.error import EvaluationOnly
from prefenvs.preference_env import EvaluationEnv
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.language import Language, left_padded, message_text, prompt_numbers, right_padded

RewardFunction = Callable[..., list[float | None]]
"""`f(prompts, completions, **columns)` from texts or lists of messages, to a reward each; None for what has none."""
Encoded = tuple[list[int], list[int]]


def reward_function(source: Any, language: Language | str | None = None) -> RewardFunction:
    """What `source` says of texts: TRL's convention for reward functions.

    Texts that the language cannot read, completions that are too long and prompts that a task does not have get None,
    which leaves them out of a group's baseline.

    Args:
        source: a text task's environment of the evaluation door, `gym.make(id, evaluation=True)`, for its true reward;
            a reward model of text, or a function of (prompts, completions) as one is to `TransformedReward`.
        language: whose words the texts are made of, or the name of its task; not needed for an environment.

    Raises:
        EvaluationOnly: for an environment whose reward is hidden.
        ValueError: if a model comes without a language.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.agents.text.reward_function import reward_function
        >>> reward = reward_function(gym.make("prefenvs/TextBandit-v0", evaluation=True))
        >>> reward(["w1 w10", "w1 w10"], ["w7", "no word of it"], answer=[0, 0])[1] is None
        True
    """
    if hasattr(source, "unwrapped"):
        return _true_reward(source)
    if language is None:
        raise ValueError("a reward model needs language=: its task's name, or language_of(env).")
    return _model_reward(source, language_of(language))


def _true_reward(env: Any) -> RewardFunction:
    base = env.unwrapped
    if not isinstance(base, EvaluationEnv):
        raise EvaluationOnly(
            f"{env} hides its true reward. Make it with evaluation=True to score by it; a learner that is to be judged "
            "by this reward must not train on it."
        )
    language = language_of(env)

    def true_reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        """The task's true reward of each completion."""

        def score(rows: list[Encoded]) -> list[float | None]:
            ids = prompt_numbers(language, left_padded([prompt for prompt, _ in rows], language.pad))
            tokens = right_padded([completion for _, completion in rows], language.max_new_tokens, language.pad)
            known, rewards = ids >= 0, np.full(len(rows), None)
            if known.any():
                rewards[known] = base.task.rewards(ids[known], tokens[known])
            return rewards.tolist()

        return _score_texts(prompts, completions, language, score)

    return true_reward


def _model_reward(model: Any, language: Language) -> RewardFunction:
    function, device = getattr(model, "score", model), getattr(model, "device", torch.device("cpu"))

    def learned_reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        """The reward model's reward of each completion."""

        @torch.no_grad()
        def score(rows: list[Encoded]) -> list[float | None]:
            shown = left_padded([prompt for prompt, _ in rows], language.pad)
            written = right_padded([completion for _, completion in rows], language.max_new_tokens, language.pad)
            both = (torch.as_tensor(tokens, device=device) for tokens in (shown, written))
            return function(*both).cpu().double().tolist()

        return _score_texts(prompts, completions, language, score)

    return learned_reward


def _score_texts(
    prompts: list[Any],
    completions: list[Any],
    language: Language,
    score: Callable[[list[Encoded]], list[float | None]],
) -> list[float | None]:
    """Rewards by `score` of the texts that can be read, all at once; None for the others."""
    rewards: list[float | None] = [None] * len(prompts)
    places, rows = [], []
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        read = _read(prompt, completion, language)
        if read is not None:
            places.append(place)
            rows.append(read)
    if rows:
        for place, reward in zip(places, score(rows), strict=True):
            rewards[place] = reward
    return rewards


def _read(prompt: Any, completion: Any, language: Language) -> Encoded | None:
    try:
        shown, written = language.encode_prompt(prompt), language.encode(message_text(completion))
    except ValueError:
        return None
    if not shown or len(written) > language.max_new_tokens:
        return None
    cut = language.eos in written or len(written) == language.max_new_tokens
    return shown, written if cut else [*written, language.eos]
