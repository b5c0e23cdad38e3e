"""A text task as a Gymnasium environment, in two views: a token a step, or a whole completion in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from prefenvs.tasks.task import State, generator_from_array
from prefenvs.tasks.text.batched import BatchedText
from prefenvs.tasks.text.language import Language, completion_mask

VIEWS = ("token", "completion")
Factors = dict[str, np.ndarray]


class TextTask(gym.Env[dict[str, Any], Any]):
    """Writes a completion of a prompt; the true reward comes with its last token.

    In the view "token" an action is the next token, in the view "completion" it is all T of them, padded after the end.
    Observations are `tokens` (P + T,), the prompt and what is written so far with padding behind, `mask` (P + T,), 1
    on tokens, and `prompt_len`. An episode terminates with the token `language.eos` or after T tokens: both are part
    of the task. `reset(options={"prompt_id": i})` begins with that prompt, else one of the split "train" is drawn.

    A subclass names its factors and fills `_factors`; its reward is their sum unless it says otherwise.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}
    factor_names: tuple[str, ...]
    """Names of the reward factors, the most important first."""
    has_success = False
    """Whether completions can be right or wrong."""

    def __init__(self, language: Language, view: str = "token", render_mode: str | None = None) -> None:
        """Write in `language`.

        Args:
            language: words, prompts and length.
            view: "token" or "completion".
            render_mode: None or "ansi" (the text so far).
        """
        for name, value, known in (("view", view, VIEWS), ("render_mode", render_mode, (None, "ansi"))):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not known. Expected one of: {', '.join(map(repr, known))}.")
        self.language, self.view, self.render_mode = language, view, render_mode
        self.metadata = {**self.metadata, "language": language}
        width = language.prompt_tokens.shape[1]
        total, size = width + language.max_new_tokens, language.vocab_size
        self.observation_space = Dict(
            {
                "mask": MultiBinary(total),
                "prompt_len": Discrete(width + 1),
                "tokens": Box(0, size - 1, (total,), np.int64),
            }
        )
        self.action_space = Discrete(size) if view == "token" else MultiDiscrete([size] * language.max_new_tokens)
        self._batch, self._row = BatchedText(self, 1), np.arange(1)

    # What a task is asked, a batch at a time.

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        """(n,) factors of each name; `tokens` (n, T) are padded after the end, `mask` (n, T) counts the end token."""
        raise NotImplementedError

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """(n,) bool, whether completions do what is asked; filled where `has_success`."""
        raise NotImplementedError

    def factors(self, prompt_ids: np.ndarray, completions: np.ndarray) -> Factors:
        """Reward factors of completions.

        Args:
            prompt_ids: (n,) numbers of the prompts.
            completions: (n, T) tokens; what follows the end is ignored.

        Returns:
            (n,) float64 by name, the most important first.
        """
        tokens, mask = self._written(completions)
        factors = self._factors(np.asarray(prompt_ids), tokens, mask)
        return {name: np.asarray(factors[name], np.float64) for name in self.factor_names}

    def rewards(self, prompt_ids: np.ndarray, completions: np.ndarray) -> np.ndarray:
        """(n,) true reward of completions (n, T) of the prompts (n,)."""
        return self.combine_factors(self.factors(prompt_ids, completions))

    def solved(self, prompt_ids: np.ndarray, completions: np.ndarray) -> np.ndarray:
        """(n,) bool, whether completions (n, T) do what the prompts (n,) ask; for tasks that have success."""
        return self._solved(np.asarray(prompt_ids), *self._written(completions))

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) completions of the prompts (n,) that are as good as the task itself can write."""
        raise NotImplementedError

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The sum of the factors, whatever their common shape."""
        return np.sum([factors[name] for name in self.factor_names], axis=0)

    def _written(self, completions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        completions = np.asarray(completions, np.int64)
        mask = completion_mask(completions, self.language.eos, self.language.pad)
        return np.where(mask, completions, self.language.pad), mask

    def prompts(self, split: str = "train") -> np.ndarray:
        """(m,) ids of the prompts of a split: "train", "test" or "all"."""
        return self.language.prompts(split)

    def reference_episode(self, rng: np.random.Generator) -> tuple[dict[str, Any], np.ndarray]:
        """A demonstration as options of a reset and the actions that follow: teachers' units are measured on them."""
        prompts, completions = self.language.demonstrate(1, rng)
        return {"prompt_id": int(prompts[0])}, completions[0] if self.view == "token" else completions

    # The Task protocol, as a batch of one.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show a prompt.

        Raises:
            ValueError: if `options["prompt_id"]` is not the number of a prompt.
        """
        super().reset(seed=seed)
        self._batch.reset(self._row, [self.np_random], options)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Write a token, or all of them; `info` is empty.

        Raises:
            ValueError: if the action is not in the action space.
            gymnasium.error.ResetNeeded: if the episode is over or never began.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action={action!r} is not in {self.action_space}.")
        if self._batch.over[0]:
            raise gym.error.ResetNeeded("the episode is over or never began; call reset() before step().")
        result = self._batch.step(np.asarray(action)[None], self._row)
        return self._observe(), float(result.rewards[0]), bool(result.terminated[0]), False, {}

    def _observe(self) -> dict[str, Any]:
        return {name: values[0] for name, values in self._batch.observe().items()}

    def reward_factors(self) -> dict[str, float]:
        """Factors of the last step's true reward; 0 before the completion ends."""
        return dict(zip(self.factor_names, self._batch.factors[0].tolist(), strict=True))

    def success(self) -> bool | None:
        """Whether the completion is written and does what is asked; None where the task has no such notion."""
        return bool(self._batch.solved[0]) if self.has_success else None

    def get_state(self) -> State:
        """Prompt, tokens, their number, whether the episode is over, last factors, and the generator."""
        return self._batch.get_state(0)

    def set_state(self, state: State) -> None:
        """Continue from a state that `get_state` gave."""
        self._batch.set_state(0, state)
        self.np_random = generator_from_array(state["rng"])
        self._batch._generators[0] = self.np_random

    def render(self) -> str | None:
        """The prompt and, after an arrow, what is written so far."""
        if self.render_mode is None:
            gym.logger.warn('nothing to render: make the environment with render_mode="ansi".')
            return None
        prompt, tokens = self.language.prompt_tokens[self._batch.prompt_ids[0]], self._batch.tokens[0]
        return f"{self.language.decode(prompt)} -> {self.language.decode(tokens)}"
