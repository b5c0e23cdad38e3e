"""Write an expression that passes unit tests. Programs are in postfix order and run on a little stack machine."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Grammar
from prefenvs.tasks.text.language import Language, left_padded, right_padded

STEPS = 9
MOST = 40
"""The greatest result in a prompt."""
SHOWN, HIDDEN = (0, 1, 3), (2, 4, 5)
"""Arguments of the tests that the prompt shows, and of those that it does not."""
LIMIT = 10.0**6
"""Beyond it a program has failed, so that no product overflows."""
CATEGORIES = {
    "number": " ".join(map(str, range(MOST + 1))),
    "argument": "x",
    "operator": "+ - * max",
    "mark": "f is ;",
}


class TextProgram(TextTask):
    """Finds f from "f 0 is 1 ; f 1 is 3 ; f 3 is 7 ;", for example "x 2 * 1 +".

    The reward is at most 2: `shown` is the share of the prompt's three tests that pass, `hidden` that of three
    others, `length` -0.02 a word beyond 5, `runs` -0.2 for a program that does not run. Three shown results can be
    met by a program that is wrong elsewhere. A success passes all six.
    """

    factor_names = ("hidden", "shown", "runs", "length")
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES)
        self._x = int(self.grammar.tokens["argument"][0])
        self._operators = self.grammar.tokens["operator"]
        rng = np.random.default_rng(0)
        found: dict[tuple[int, ...], tuple[list[int], np.ndarray]] = {}
        drawn = [self._random_program(rng) for _ in range(2500)]
        results, runs = self.run(right_padded(drawn, STEPS), np.array(SHOWN + HIDDEN, float))
        fits = runs & ((results >= 0) & (results <= MOST)).all(1) & (np.ptp(results, axis=1) > 0)
        for row in np.flatnonzero(fits).tolist():
            found.setdefault(tuple(self._prompt(results[row])), (drawn[row], results[row]))
        found = dict(list(found.items())[:120])
        self._programs = [program for program, _ in found.values()]
        self._results = np.array([values for _, values in found.values()])
        """(prompts, 6) results of the shown and the hidden tests."""
        prompts = left_padded([list(prompt) for prompt in found])
        super().__init__(
            Language(self.grammar.words, prompts, STEPS, self._demonstrate, test_prompts=24), view, render_mode
        )

    def _prompt(self, values: np.ndarray) -> list[int]:
        f, is_, stop = self.grammar.tokens["mark"].tolist()
        return [t for x, y in zip(SHOWN, values, strict=False) for t in (f, 1 + x, is_, 1 + int(y), stop)]

    def _random_program(self, rng: np.random.Generator) -> list[int]:
        """A valid program of one, two or three operators."""

        def operand() -> int:
            return self._x if rng.random() < 0.55 else int(1 + rng.integers(0, 6))

        program = [self._x]
        for _ in range(rng.integers(1, 4)):
            program += [operand(), int(rng.choice(self._operators))]
        return program

    def run(self, programs: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run postfix programs on a stack machine, all at once.

        Args:
            programs: (n, T) tokens, padded with 0.
            inputs: (m,) values of x.

        Returns:
            (n, m) results, and (n,) whether a program ran: it left one value, took none from an empty stack, used no
            other word, and stayed within a million.
        """
        (n, steps), m = programs.shape, len(inputs)
        stack = np.zeros((n, m, steps + 2))
        depth, good, rows = np.full(n, 0), np.ones(n, bool), np.arange(n)
        for t in range(steps):
            token = programs[:, t]
            operator = token - self._operators[0]
            is_operator = (operator >= 0) & (operator < len(self._operators))
            pushes = (token > 0) & (token <= self._x)
            good &= (token == 0) | pushes | (is_operator & (depth >= 2))
            top, below = (stack[rows, :, np.maximum(depth - k, 0)] for k in (1, 2))
            value = np.where((token == self._x)[:, None], inputs, (token - 1)[:, None])
            combined = np.select(
                [(operator == k)[:, None] for k in range(3)],
                [below + top, below - top, below * top],
                np.maximum(below, top),
            )
            combined = np.clip(combined, -2 * LIMIT, 2 * LIMIT)
            acts = good & is_operator
            place = np.where(acts, depth - 2, depth)
            new = np.where(acts[:, None], combined, value)
            writes = good & (pushes | is_operator)
            stack[rows[writes], :, place[writes]] = new[writes]
            depth = np.where(writes, place + 1, depth)
            good &= (np.abs(new) <= LIMIT).all(1) | ~writes
        return stack[:, :, 0], good & (depth == 1)

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts, texts = rng.choice(self.prompts(), n), []
        for prompt in prompts:
            program = list(self._programs[prompt])
            if rng.random() < 0.5:
                place = int(rng.integers(len(program)))
                other = self._operators if program[place] > self._x else np.append(np.arange(1, 7), self._x)
                program[place] = int(rng.choice(other))
            texts.append(program)
        return prompts, right_padded(texts, STEPS)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) the programs that made the prompts."""
        return right_padded([self._programs[prompt] for prompt in prompt_ids], STEPS)

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        results, runs = self.run(tokens, np.array(SHOWN + HIDDEN, float))
        passed = (results == self._results[prompt_ids]) & runs[:, None]
        return {
            "hidden": passed[:, len(SHOWN) :].mean(1),
            "shown": passed[:, : len(SHOWN)].mean(1),
            "runs": -0.2 * ~runs,
            "length": -0.02 * np.maximum((tokens != 0).sum(1) - 5, 0),
        }

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        factors = self._factors(prompt_ids, tokens, mask)
        return (factors["hidden"] == 1) & (factors["shown"] == 1)
