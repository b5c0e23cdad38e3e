"""Go on with a film review so that it praises, in words that mean it and in sentences that are well made."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Follow, Grammar, repeats
from prefenvs.tasks.text.language import Language, right_padded

STEPS = 14
POLARITY = {
    **{"great": 2.0, "moving": 1.5, "funny": 1.5, "clever": 1.0, "good": 1.0, "fine": 0.5, "warm": 0.5},
    **{"awful": -2.0, "boring": -1.5, "clumsy": -1.5, "dull": -1.0, "bad": -1.0, "flat": -0.5, "long": -0.5},
}
DEGREE = {"very": 1.5, "quite": 1.0, "barely": 0.5, "not": -1.0, "never": -1.0}
"""What a word right before an adjective multiplies its polarity by."""
CATEGORIES = {
    "det": "the",
    "aspect": "film acting plot music cast ending",
    "verb": "is was seems",
    "degree": " ".join(DEGREE),
    "adj": " ".join(POLARITY),
    "conj": "and but",
}
FOLLOW: Follow = {
    "start": {"det": 1},
    "det": {"aspect": 1},
    "aspect": {"verb": 1},
    "verb": {"degree": 0.4, "adj": 0.6},
    "degree": {"adj": 1},
    "adj": {"conj": 0.5, "end": 0.5},
    "conj": {"det": 0.7, "degree": 0.1, "adj": 0.2},
}


class TextSentiment(TextTask):
    """Goes on with "the plot is dull but the cast was".

    The reward is at most 2: `sentiment` 2 tanh(s / 2) of the summed polarity s of its adjectives, each changed by
    the word before ("not good"), `fluency` minus twice the share of words out of place, `repetition` -0.5 for each
    adjective said again. A success is praise (above 1) that is well made and repeats nothing.
    """

    factor_names = ("sentiment", "fluency", "repetition")
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES, FOLLOW)
        index, rng = self.grammar.index, np.random.default_rng(0)
        self._polarity, self._degree = np.zeros(len(index)), np.ones(len(index))
        for table, values in ((self._polarity, POLARITY), (self._degree, DEGREE)):
            table[[index[word] for word in values]] = list(values.values())
        openings = {tuple(self._opening(rng)): None for _ in range(80)}
        prompts = np.array(list(openings))[:60]
        super().__init__(
            Language(self.grammar.words, prompts, STEPS, self._demonstrate, test_prompts=12), view, render_mode
        )

    def _opening(self, rng: np.random.Generator) -> list[int]:
        order = ("det", "aspect", "verb", "adj", "conj", "det", "aspect", "verb")
        return [int(rng.choice(self.grammar.tokens[category])) for category in order]

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts = rng.choice(self.prompts(), n)
        return prompts, right_padded([self.grammar.write(rng, STEPS, after="verb") for _ in prompts], STEPS)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) "very great and very moving"."""
        text = self.grammar.encode("very great and very moving")
        return right_padded([text for _ in prompt_ids], STEPS)

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        before = self.language.prompt_tokens[prompt_ids, -1]
        degrees = self._degree[np.concatenate([before[:, None], tokens[:, :-1]], 1)]
        summed = (self._polarity[tokens] * degrees * mask).sum(1)
        return {
            "sentiment": 2.0 * np.tanh(summed / 2.0),
            "fluency": 2.0 * self.grammar.well_made(tokens, mask, before) - 2.0,
            "repetition": -0.5 * repeats(tokens, self._polarity[tokens] != 0),
        }

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        factors = self._factors(prompt_ids, tokens, mask)
        return (factors["sentiment"] > 1) & (factors["fluency"] == 0) & (factors["repetition"] == 0)
