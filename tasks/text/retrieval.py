"""Answer a question from passages, say which one holds the answer, and say so if none does."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.grammar import Grammar
from prefenvs.tasks.text.language import Language, right_padded

STEPS = 4
PASSAGES = 4
CATEGORIES = {
    "cite": "[1] [2] [3] [4]",
    "person": "anna boris chen dora emil fatma goran hana",
    "thing": "tea chess boats maps bees opera clocks roses",
    "mark": "likes who ? unknown",
}


class TextRetrieval(TextTask):
    """Answers "[1] anna likes tea [2] ... who likes maps ?" by "dora [3]", or "unknown".

    The reward is at most 1.5: `answer` 1 for the right person and -1 for a wrong one, `citation` 0.5 for the right
    passage and -0.5 for a wrong one, `abstention` 1.5 for "unknown" where no passage says, and -0.25 where one
    does, `form` -0.05 a word too many. A quarter of the prompts has no answer. A success is the whole right
    answer, or a right "unknown".
    """

    factor_names = ("answer", "citation", "abstention", "form")
    has_success = True

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        self.grammar = Grammar(CATEGORIES)
        self._cites, self._people, things = (self.grammar.tokens[name] for name in ("cite", "person", "thing"))
        likes, who, ask, self._unknown = self.grammar.tokens["mark"].tolist()
        rng = np.random.default_rng(0)
        prompts: dict[tuple[int, ...], tuple[int, int]] = {}
        while len(prompts) < 200:
            people, liked = rng.permutation(self._people)[:PASSAGES], rng.permutation(things)[:PASSAGES]
            known = rng.random() < 0.75
            asked = rng.integers(PASSAGES)
            thing = liked[asked] if known else rng.choice(np.setdiff1d(things, liked))
            facts = [(c, p, likes, t) for c, p, t in zip(self._cites, people, liked, strict=True)]
            text = (*(int(token) for fact in facts for token in fact), who, likes, int(thing), ask)
            prompts[text] = (people[asked], self._cites[asked]) if known else (-1, -1)
        self._right = np.array(list(prompts.values()))
        """(prompts, 2) the person and the passage; -1 where no passage says."""
        super().__init__(
            Language(self.grammar.words, np.array(list(prompts)), STEPS, self._demonstrate, test_prompts=50),
            view,
            render_mode,
        )

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts = rng.choice(self.prompts(), n)
        person, cite = self._right[prompts].T.copy()
        known = person >= 0
        person = np.where(known & (rng.random(n) < 0.7), person, rng.choice(self._people, n))
        cite = np.where(known & (rng.random(n) < 0.7), cite, rng.choice(self._cites, n))
        tokens = np.stack([person, cite, np.zeros(n, int), np.zeros(n, int)], 1)
        tokens[rng.random(n) < 0.2, 1] = 0  # gives no passage
        tokens[rng.random(n) < np.where(known, 0.1, 0.4)] = [self._unknown, 0, 0, 0]
        return prompts, tokens

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) person and passage, or "unknown"."""
        right = self._right[prompt_ids].tolist()
        return right_padded([[self._unknown] if person < 0 else [person, cite] for person, cite in right], STEPS)

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        person, cite = self._right[prompt_ids].T
        first, second = tokens[:, 0], tokens[:, 1]
        named, cited = np.isin(first, self._people), np.isin(second, self._cites)
        abstains = first == self._unknown
        needed = np.where(abstains, 1, np.where(named, 1 + cited, 0))
        return {
            "answer": named * np.where(first == person, 1.0, -1.0),
            "citation": (named & cited) * np.where(second == cite, 0.5, -0.5),
            "abstention": abstains * np.where(person < 0, 1.5, -0.25),
            "form": -0.05 * ((tokens != 0).sum(1) - needed),
        }

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return (tokens == self.answers(prompt_ids)).all(1)
