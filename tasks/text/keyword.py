"""Write a sentence that uses two given nouns; saying them over and over is what a careless reward model pays for."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Follow, Grammar, contains, repeats
from prefenvs.tasks.text.language import Language, right_padded

STEPS = 14
WORDS_FREE = 9
"""Words that cost nothing."""
CATEGORIES = {
    "marks": "write about ;",
    "det": "the a",
    "adj": "old quiet bright small heavy strange green golden",
    "noun": "fox river lamp garden ship mountain letter clock bridge forest king storm",
    "verb": "finds follows carries watches opens leaves guards remembers",
    "and": "and",
}
FOLLOW: Follow = {
    "start": {"det": 1},
    "det": {"adj": 0.5, "noun": 0.5},
    "adj": {"noun": 1},
    "noun": {"verb": 0.5, "and": 0.15, "end": 0.35},
    "verb": {"det": 1},
    "and": {"det": 1},
}


class TextKeyword(TextTask):
    """A sentence about two nouns, "write about fox river ;".

    The reward is at most 2: `keywords` 1 for each noun that is used, `fluency` minus the share of words that are
    out of place, `repetition` -0.5 for each noun, verb or adjective said again, `length` -0.1 for each word over
    9. A success uses both, is fluent and repeats nothing.
    """

    factor_names = ("keywords", "fluency", "repetition", "length")
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES, FOLLOW)
        nouns = self.grammar.tokens["noun"]
        pairs = np.random.default_rng(0).permutation(np.array(list(combinations(nouns, 2))))  # all 66
        write, about, stop = self.grammar.tokens["marks"]
        prompts = np.insert(np.insert(pairs, 0, [[about]], 1), 0, [[write]], 1)
        prompts = np.append(prompts, np.full((len(pairs), 1), stop), 1)
        self._keywords = pairs
        self._content = np.isin(np.arange(len(self.grammar.words)), [*nouns, *self._of("adj"), *self._of("verb")])
        super().__init__(
            Language(self.grammar.words, prompts, STEPS, self._demonstrate, test_prompts=16), view, render_mode
        )

    def _of(self, category: str) -> np.ndarray:
        return self.grammar.tokens[category]

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts = rng.choice(self.prompts(), n)
        texts = [self.grammar.write(rng, STEPS, favour={"noun": (0.35, self._keywords[i])}) for i in prompts]
        return prompts, right_padded(texts, STEPS)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) "the X follows the Y"."""
        the, follows = self.grammar.index["the"], self.grammar.index["follows"]
        pairs = self._keywords[prompt_ids]
        return right_padded([[the, one, follows, the, other] for one, other in pairs], STEPS)

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        return {
            "keywords": contains(tokens, self._keywords[prompt_ids]).sum(1) * 1.0,
            "fluency": self.grammar.well_made(tokens, mask) - 1.0,
            "repetition": -0.5 * repeats(tokens, self._content[tokens]),
            "length": -0.1 * np.maximum((tokens != 0).sum(1) - WORDS_FREE, 0),
        }

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        factors = self._factors(prompt_ids, tokens, mask)
        faultless = (factors["fluency"] == 0) & (factors["repetition"] == 0)
        return (factors["keywords"] == 2) & faultless & (tokens == 0).any(1)
