"""Many completions of one text task that are written, and judged, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prefenvs.tasks.task import BatchedStep, Rows, State, generator_to_array

if TYPE_CHECKING:
    from prefenvs.tasks.text.env import TextTask


class BatchedText:
    """N completions of a `TextTask`, with the numbers of N of them. The reward of a step is one batched judgement.

    Example:
        >>> import numpy as np
        >>> from prefenvs.tasks.text.enumerable import TextEnum
        >>> batch, rows = BatchedText(TextEnum(view="completion"), num_envs=4), np.arange(4)
        >>> batch.reset(rows, [np.random.default_rng(row) for row in rows], {"prompt_id": 2})
        >>> batch.step(np.array([[1, 2, 0, 0]] * 4), rows).rewards.shape
        (4,)
    """

    def __init__(self, task: TextTask, num_envs: int) -> None:
        """Write `num_envs` completions of the prompts of `task`."""
        self.task, self.num_envs = task, num_envs
        language = task.language
        self.prompt_ids = np.zeros(num_envs, np.int64)
        """(N,) numbers of the present prompts."""
        self.tokens = np.full((num_envs, language.max_new_tokens), language.pad)
        """(N, T) tokens written so far, padded."""
        self.lengths = np.zeros(num_envs, np.int64)
        """(N,) tokens written so far, the end counted."""
        self.over = np.ones(num_envs, bool)
        """(N,) whether the completion is finished, or was never begun."""
        self.factors = np.zeros((num_envs, len(task.factor_names)))
        """(N, d) factors of the last step's true reward."""
        self.solved = np.zeros(num_envs, bool)
        """(N,) whether the completion is finished and does what is asked."""
        self._generators: list[Any] = [None] * num_envs
        self._prompts, self._prompt_lengths = _right_aligned(language.prompt_tokens, language.pad)
        self._prompt_lens = np.zeros(num_envs, np.int64)  # of the present prompts
        self._text = np.full((num_envs, self._prompts.shape[1] + language.max_new_tokens), language.pad)
        self._mask = np.zeros(self._text.shape, np.int8)
        self._train = len(language.prompts("train"))  # the first of them

    def reset(
        self, rows: Rows, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Begin completions of these rows, of the prompts in `options["prompt_id"]`, one number or (N,), or drawn ones.

        Raises:
            ValueError: if that is not the number of a prompt; nothing was begun.
        """
        given = self._given_prompts(options)
        for row, generator in zip(rows.tolist(), generators, strict=True):
            self._generators[row] = generator
        if given is None:
            drawn = [self._generators[row].integers(self._train) for row in rows.tolist()]
            self.prompt_ids[rows] = drawn
        else:
            self.prompt_ids[rows] = given[rows]
        self.tokens[rows] = self.task.language.pad
        self.lengths[rows] = 0
        self._show(rows)
        self.over[rows] = self.solved[rows] = False
        self.factors[rows] = 0.0

    def _given_prompts(self, options: Mapping[str, Any] | None) -> np.ndarray | None:
        if options is None or options.get("prompt_id") is None:
            return None
        given, known = np.asarray(options["prompt_id"]), len(self._prompts)
        if given.dtype.kind not in "iu" or given.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"options['prompt_id'] is {given!r}, expected a whole number or ({self.num_envs},) of them. "
                "Nothing was reset."
            )
        if ((given < 0) | (given >= known)).any():
            raise ValueError(
                f"options['prompt_id'] is {given}, expected numbers of prompts in [0, {known}). Nothing was reset."
            )
        return np.broadcast_to(given, self.num_envs)

    def remember(self, rows: Rows) -> None:
        """Nothing: a state is known after any step."""

    def step(self, actions: np.ndarray, rows: Rows) -> BatchedStep:
        """Write in these rows: the next token of each, (N,), or all, (N, T)."""
        task = self.task
        if task.view == "token":
            written, at, language = actions[rows], self.lengths[rows], task.language
            stops = (written == language.eos) | (written == language.pad)
            counts = (written == language.eos) | ~stops  # padding is no word, but says that there are no more
            self.tokens[rows, at] = written
            self._text[rows, at + self._prompt_lens[rows]] = written
            self._mask[rows, at + self._prompt_lens[rows]] = counts
            self.lengths[rows] += counts
            ended = rows[stops | (at + 1 == self.tokens.shape[1])]
        else:
            self.tokens[rows], mask = task._written(actions[rows])
            self.lengths[rows] = mask.sum(1)
            self._show(rows)
            ended = rows
        self.over[ended] = True
        self.factors[rows] = 0.0
        rewards = np.zeros(self.num_envs)
        if len(ended):
            judged = task.factors(self.prompt_ids[ended], self.tokens[ended])
            self.factors[ended] = np.stack(list(judged.values()), 1)
            rewards[ended] = task.combine_factors(judged)
            if task.has_success:
                self.solved[ended] = task.solved(self.prompt_ids[ended], self.tokens[ended])
        solved = self.solved.copy() if task.has_success else None
        return BatchedStep(rewards, self.factors.copy(), self.over.copy(), solved)

    def observe(self) -> dict[str, np.ndarray]:
        """(N, P + T) tokens, prompt first, with their mask, and (N,) lengths of the prompts."""
        return {"mask": self._mask.copy(), "prompt_len": self._prompt_lens.copy(), "tokens": self._text.copy()}

    def _show(self, rows: Rows) -> None:
        """Write the observations of these rows anew."""
        prompts = self._prompts[self.prompt_ids[rows]]
        lengths = self._prompt_lens[rows] = self._prompt_lengths[self.prompt_ids[rows]]
        steps = self.tokens.shape[1]
        text = np.concatenate([prompts, np.full((len(rows), steps), self.task.language.pad)], 1)
        text[np.arange(len(rows))[:, None], lengths[:, None] + np.arange(steps)] = self.tokens[rows]
        self._text[rows] = text
        self._mask[rows] = np.arange(text.shape[1]) < (lengths + self.lengths[rows])[:, None]

    def get_state(self, row: int) -> State:
        """What `TextTask.set_state` takes."""
        return {
            "prompt_id": self.prompt_ids[row].copy(),
            "tokens": self.tokens[row].copy(),
            "length": self.lengths[row].copy(),
            "over": self.over[row].copy(),
            "factors": self.factors[row].copy(),
            "solved": self.solved[row].copy(),
            "rng": generator_to_array(self._generators[row]),
        }

    def set_state(self, row: int, state: State) -> None:
        """Put a state of `get_state` into a row."""
        if state["tokens"].shape != self.tokens[row].shape or not 0 <= state["prompt_id"] < len(self._prompts):
            raise ValueError(f"state {state} is not one that get_state() of this task gave.")
        self.prompt_ids[row], self.tokens[row] = state["prompt_id"], state["tokens"]
        self.lengths[row], self.over[row] = state["length"], state["over"]
        self.factors[row], self.solved[row] = state["factors"], state["solved"]
        self._show(np.array([row]))

    def close(self) -> None:
        """Free the single task."""
        self.task.close()


def _right_aligned(prompts: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded prompts (n, P) with their padding moved behind them, and their (n,) lengths."""
    lengths = (np.cumsum(prompts != pad, 1) > 0).sum(1)
    at = np.arange(prompts.shape[1]) + (prompts.shape[1] - lengths)[:, None]
    moved = np.take_along_axis(prompts, np.minimum(at, prompts.shape[1] - 1), 1)
    return np.where(np.arange(prompts.shape[1]) < lengths[:, None], moved, pad), lengths
