"""Follow instructions: several constraints at once on which words are said, where, and how many."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Grammar
from prefenvs.tasks.text.language import Language, left_padded, right_padded

STEPS = 10
LEAST, MOST = 3, 8
"""Words that a text may be asked to have."""
CATEGORIES = {
    "rule": "start include avoid words",
    "number": " ".join(map(str, range(LEAST, MOST + 1))),
    "mark": ":",
    "word": "red blue green amber stone river cloud apple tiger piano winter velvet copper maple harbor lantern",
}
RULES = ("start", "include", "avoid", "words")


class TextInstruct(TextTask):
    """Three of four rules, "start red include blue words 5 :", over 16 words.

    The reward is at most 1: `start`, `include`, `avoid` and `words` each give a third where the rule is asked for
    and kept: the text begins with a word, has it, has it not, or has so many words. A success keeps all and ends
    by itself.
    """

    factor_names = RULES
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES)
        rng = np.random.default_rng(0)
        prompts: dict[tuple[int, ...], np.ndarray] = {}
        while len(prompts) < 160:
            asked = np.sort(rng.permutation(4)[:3])
            words = rng.permutation(self.grammar.tokens["word"])[:3]  # different, so that no rules contradict
            values = np.array([*words, rng.integers(LEAST, MOST + 1)])
            prompts[tuple(self._prompt(asked, values))] = np.where(np.isin(np.arange(4), asked), values, -1)
        self._asked = np.array(list(prompts.values()))
        """(prompts, 4) the token of each rule, for "words" the number; -1 where it is not asked for."""
        tokens = left_padded([list(prompt) for prompt in prompts])
        super().__init__(
            Language(self.grammar.words, tokens, STEPS, self._demonstrate, test_prompts=40), view, render_mode
        )

    def _prompt(self, asked: np.ndarray, values: np.ndarray) -> list[int]:
        index, text = self.grammar.index, []
        for rule in asked.tolist():
            text += [index[RULES[rule]], index[str(values[rule])] if rule == 3 else int(values[rule])]
        return [*text, index[":"]]

    def _text(self, prompt: int, keeps: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Some words that keep these of the four rules, and the others only by chance."""
        start, include, avoid, count = np.where(keeps, self._asked[prompt], -1)
        length = int(count) if count >= 0 else int(rng.integers(LEAST, MOST + 1))
        words = self.grammar.tokens["word"]
        text = rng.choice(words[words != avoid], length)
        if include >= 0:
            text[rng.integers(1, length)] = include
        if start >= 0:
            text[0] = start
        return text.tolist()

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts = rng.choice(self.prompts(), n)
        return prompts, right_padded([self._text(prompt, rng.random(4) < 0.5, rng) for prompt in prompts], STEPS)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) words that keep all rules."""
        rng = np.random.default_rng(0)
        return right_padded([self._text(prompt, np.ones(4, bool), rng) for prompt in prompt_ids], STEPS)

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        asked = self._asked[prompt_ids]
        kept = {
            "start": tokens[:, 0] == asked[:, 0],
            "include": (tokens == asked[:, 1:2]).any(1),
            "avoid": (tokens != asked[:, 2:3]).all(1),
            "words": (tokens != 0).sum(1) == asked[:, 3],
        }
        return {rule: (kept[rule] & (asked[:, i] >= 0)) / 3.0 for i, rule in enumerate(RULES)}

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        kept = np.stack(list(self._factors(prompt_ids, tokens, mask).values()), 1) > 0
        return (kept.sum(1) == 3) & (tokens == 0).any(1)
