"""Sum up what reviewers of a product think of its aspects, after the product summarisation of opinions."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Grammar
from prefenvs.tasks.text.language import Language, left_padded, right_padded

STEPS = 13
REVIEWS = 6
"""Opinions in a prompt."""
CATEGORIES = {
    "aspect": "battery screen price camera sound weight",
    "opinion": "good bad",
    "marks": "; , summary",
}
TITLES = ("battery", "screen", "price", "camera", "sound", "weight")


class TextSummary(TextTask):
    """Reads opinions, "battery good ; screen bad ; ... summary", and writes "battery good , screen bad".

    The reward is at most 2: `coverage` 2 times the share of the reviewed aspects on which the majority's opinion
    is told, `unfaithful` -0.5 for each claim that the majority does not hold or nobody made, `redundancy` -0.25
    for each claim made again, `form` -0.1 for each word that is no part of a claim or a comma between two. A
    success tells all and nothing else.
    """

    factor_names = ("coverage", "unfaithful", "redundancy", "form")
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES)
        rng = np.random.default_rng(0)
        self._aspects = self.grammar.tokens["aspect"]
        self._good, self._bad = self.grammar.tokens["opinion"]
        texts: dict[tuple[int, ...], np.ndarray] = {}
        while len(texts) < 120:
            reviews = np.stack([rng.choice(rng.permutation(6)[:4], REVIEWS), rng.integers(2, size=REVIEWS)], 1)
            votes = np.zeros(6, np.int64)
            np.add.at(votes, reviews[:, 0], 2 * reviews[:, 1] - 1)
            if (votes[np.unique(reviews[:, 0])] != 0).all():  # no aspect on which opinions are even
                texts[tuple(self._prompt(reviews))] = np.sign(votes)
        self._majority = np.array(list(texts.values()))
        """(prompts, 6) 1 for good, -1 for bad, 0 where nobody said anything."""
        prompts = left_padded([list(text) for text in texts])
        super().__init__(
            Language(self.grammar.words, prompts, STEPS, self._demonstrate, test_prompts=24), view, render_mode
        )

    def _prompt(self, reviews: np.ndarray) -> list[int]:
        stop, summary = self.grammar.index[";"], self.grammar.index["summary"]
        said = [t for aspect, good in reviews for t in (int(self._aspects[aspect]), self._opinion(good), stop)]
        return [*said, summary]

    def _opinion(self, good: float) -> int:
        return int(self._good if good > 0 else self._bad)

    def _claims(self, claims: list[tuple[int, float]]) -> list[int]:
        comma = self.grammar.index[","]
        text = [token for aspect, good in claims for token in (int(self._aspects[aspect]), self._opinion(good), comma)]
        return text[:-1]

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts, texts = rng.choice(self.prompts(), n), []
        for prompt in prompts:
            known = np.flatnonzero(self._majority[prompt])
            aspects = [int(a) if rng.random() < 0.85 else int(rng.integers(6)) for a in rng.permutation(known)]
            told = aspects[: rng.integers(1, len(aspects) + 1)]
            claims = [(a, self._majority[prompt, a] * (1 if rng.random() < 0.85 else -1)) for a in told]
            texts.append(self._claims(claims))
        return prompts, right_padded(texts, STEPS)

    def references(self, prompt_ids: np.ndarray, count: int = 3) -> np.ndarray:
        """(n, count, T) good summaries of each prompt that tell their claims in different orders, as for BLEU."""
        written = []
        for order in range(count):
            known = [np.roll(np.flatnonzero(self._majority[prompt]), order).tolist() for prompt in prompt_ids]
            claims = [
                [(a, self._majority[p, a]) for a in aspects] for p, aspects in zip(prompt_ids, known, strict=True)
            ]
            written.append(right_padded([self._claims(claim) for claim in claims], STEPS))
        return np.stack(written, 1)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) the first reference."""
        return self.references(prompt_ids, 1)[:, 0]

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        n = len(tokens)
        aspect = np.where(np.isin(tokens, self._aspects), tokens - self._aspects[0], -1)
        opinion = np.where(tokens == self._good, 1, np.where(tokens == self._bad, -1, 0))
        claim = (aspect[:, :-1] >= 0) & (opinion[:, 1:] != 0)  # (n, T - 1), at the aspect
        about, says = aspect[:, :-1], opinion[:, 1:]
        held = claim & (self._majority[prompt_ids[:, None], about] == says)
        told, made = (np.zeros((n, 6), np.int64) for _ in range(2))
        rows = np.broadcast_to(np.arange(n)[:, None], about.shape)
        np.add.at(told, (rows[held], about[held]), 1)
        np.add.at(made, (rows[claim], about[claim]), 1)
        words = (tokens != 0).sum(1)
        between = (tokens[:, 2:-2] == self.grammar.index[","]) & claim[:, :-3] & claim[:, 3:]  # one claim, and another
        spare = words - 2 * claim.sum(1) - between.sum(1)
        return {
            "coverage": 2.0 * (told > 0).sum(1) / (self._majority[prompt_ids] != 0).sum(1),
            "unfaithful": -0.5 * (claim & ~held).sum(1),
            "redundancy": -0.25 * np.maximum(made - 1, 0).sum(1),
            "form": -0.1 * spare,
        }

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        factors = self._factors(prompt_ids, tokens, mask)
        return (factors["coverage"] == 2) & (sum(factors[name] for name in self.factor_names[1:]) == 0)
