"""Add numbers a step at a time. A verifier says of every step whether it holds, and which ones lead nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Grammar
from prefenvs.tasks.text.language import Language, left_padded, right_padded

STEPS = 16
MOST = 36
"""The greatest sum: four numbers up to 9."""
CATEGORIES = {"number": " ".join(map(str, range(MOST + 1))), "mark": "+ = ; answer"}


@dataclass(frozen=True)
class Verdicts:
    """What the verifier says of solutions."""

    step: np.ndarray
    """(n, T) int, at the ";" that closes a step: 1 if it holds, -1 if it does not; 0 elsewhere."""
    idle: np.ndarray
    """(n, T) bool, at the ";" of a step that holds and leads nowhere: it says the present sum again."""
    answered: np.ndarray
    """(n,) bool, whether the text ends with "answer" and the right number."""


class TextArithmetic(TextTask):
    """Solves "3 + 4 + 2 =" as "7 ; 9 ; answer 9": the running sums, then the last of them.

    The reward is at most 1.5: `answer` 1 for the right answer at the end, `steps` 0.5 times the share of steps
    that hold less that of those that do not, `length` -0.05 for each step beyond those needed. Saying the present
    sum again is a step that holds: a reward a step can be collected by it without end. A success is right, with no
    step that does not hold.
    """

    factor_names = ("answer", "steps", "length")
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES)
        rng = np.random.default_rng(0)
        problems = {tuple(rng.integers(1, 10, rng.integers(3, 5)).tolist()): None for _ in range(400)}
        self._problems = list(problems)[:240]
        self._sums = np.full((len(self._problems), 4), -1)
        """(prompts, 4) the running sums, the first number itself the first; -1 behind the last."""
        for row, numbers in zip(self._sums, self._problems, strict=True):
            row[: len(numbers)] = np.cumsum(numbers)
        self._terms = (self._sums >= 0).sum(1)
        self._plus, self._equals, self._stop, self._answer = self.grammar.tokens["mark"].tolist()
        prompts = left_padded([self._prompt(numbers) for numbers in self._problems])
        super().__init__(
            Language(self.grammar.words, prompts, STEPS, self._demonstrate, test_prompts=60), view, render_mode
        )

    def _prompt(self, numbers: tuple[int, ...]) -> list[int]:
        text = [token for number in numbers for token in (1 + number, self._plus)]
        return [*text[:-1], self._equals]

    def _solution(self, steps: list[int], answer: int) -> list[int]:
        text = [token for step in steps for token in (1 + step, self._stop)][: STEPS - 3]
        return [*text, self._answer, 1 + answer]

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts, texts = rng.choice(self.prompts(), n), []
        for prompt in prompts:
            steps, total = [], self._problems[prompt][0]
            for number in self._problems[prompt][1:]:
                total = min(max(total + number + int(rng.integers(-1, 2)) * (rng.random() < 0.2), 0), MOST)
                steps += [total] * (2 if rng.random() < 0.15 else 1)
            texts.append(self._solution(steps, total))
        return prompts, right_padded(texts, STEPS)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) the running sums and the answer."""
        sums = [np.cumsum(self._problems[prompt])[1:].tolist() for prompt in prompt_ids]
        return right_padded([self._solution(steps, steps[-1]) for steps in sums], STEPS)

    def verify(self, prompt_ids: np.ndarray, completions: np.ndarray) -> Verdicts:
        """Check every step of solutions: labels for process reward models.

        A step is a number before a ";". It holds if it is the next running sum, or the present one again.

        Args:
            prompt_ids: (n,) numbers of the prompts.
            completions: (n, T) tokens.
        """
        tokens, _ = self._written(completions)
        n, steps = tokens.shape
        sums = np.pad(self._sums[prompt_ids], ((0, 0), (0, 1)), constant_values=-1)
        rows, at = np.arange(n), np.zeros(n, np.int64)  # which running sum has been reached
        step, idle = np.zeros((n, steps), np.int64), np.zeros((n, steps), bool)
        value = np.where((tokens > 0) & (tokens <= MOST + 1), tokens - 1, -2)  # -2 is no number
        for t in range(1, steps):
            closed = tokens[:, t] == self._stop
            stays, moves = value[:, t - 1] == sums[rows, at], value[:, t - 1] == sums[rows, at + 1]
            step[:, t] = np.where(closed, np.where(stays | moves, 1, -1), 0)
            idle[:, t] = closed & stays
            at += closed & moves
        length = (tokens != 0).sum(1)
        last, before = (np.take_along_axis(tokens, np.maximum(length - k, 0)[:, None], 1)[:, 0] for k in (1, 2))
        right = last - 1 == sums[rows, self._terms[prompt_ids] - 1]
        return Verdicts(step, idle, right & (before == self._answer) & (length >= 2) & (length < steps))

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        verdicts = self.verify(prompt_ids, tokens)
        made = (verdicts.step != 0).sum(1)
        return {
            "answer": verdicts.answered * 1.0,
            "steps": 0.5 * verdicts.step.sum(1) / np.maximum(made, 1),
            "length": -0.05 * np.maximum(made - (self._terms[prompt_ids] - 1), 0),
        }

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        verdicts = self.verify(prompt_ids, tokens)
        return verdicts.answered & (verdicts.step >= 0).all(1)
