"""Words by category, and which may follow which: enough to write sentences and to see whether one is well made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prefenvs.tasks.text.language import END

Follow = Mapping[str, Mapping[str, float]]
"""For each category, the odds of those that may follow it."""


class Grammar:
    """A vocabulary in categories and the orders in which they may stand. Token 0 is END, of the category "end".

    Args:
        categories: words of each category, between spaces.
        follow: the categories that may follow each one and their odds; "start" is what a completion begins after.

    Example:
        >>> follow = {"start": {"det": 1}, "det": {"noun": 1}, "noun": {"end": 1}}
        >>> grammar = Grammar({"det": "the", "noun": "cat dog"}, follow)
        >>> [grammar.words[token] for token in grammar.write(np.random.default_rng(0), 5)]
        ['the', 'cat', '<end>']
    """

    def __init__(self, categories: Mapping[str, str], follow: Follow | None = None) -> None:
        self.words = (END, *(word for words in categories.values() for word in words.split()))
        self.index = {word: token for token, word in enumerate(self.words)}
        names = ("end", *categories)
        self.category = np.array([0, *(1 + i for i, words in enumerate(categories.values()) for _ in words.split())])
        """(V,) number of each token's category."""
        self.tokens = {name: np.flatnonzero(self.category == i) for i, name in enumerate(names)}
        """Tokens of each category by name."""
        self._names = names
        self._follow = {name: (list(after), _odds(after)) for name, after in (follow or {}).items()}
        kinds = np.zeros((len(names) + 1, len(names)), bool)  # the last row is "start"
        for name, (after, _) in self._follow.items():
            kinds[-1 if name == "start" else names.index(name), [names.index(other) for other in after]] = True
        self._allowed = kinds[np.append(self.category, -1)][:, self.category]  # (V + 1, V)

    def encode(self, text: str) -> list[int]:
        """The tokens of words between spaces."""
        return [self.index[word] for word in text.split()]

    def write(
        self,
        rng: np.random.Generator,
        steps: int,
        after: str = "start",
        favour: Mapping[str, tuple[float, np.ndarray]] | None = None,
    ) -> list[int]:
        """At most `steps` tokens that follow a token of the category `after`, END included if it was reached.

        Args:
            rng: source of randomness.
            steps: T.
            after: category of what stands before.
            favour: for a category, with which probability its word is one of some tokens.
        """
        written: list[int] = []
        while len(written) < steps and (not written or written[-1] != 0):
            kinds, odds = self._follow[after]
            after = kinds[int((odds <= rng.random()).sum())]
            choice = self.tokens[after]
            if favour is not None and after in favour and rng.random() < favour[after][0]:
                choice = favour[after][1]
            written.append(int(choice[rng.integers(len(choice))]))
        return written

    def well_made(self, tokens: np.ndarray, mask: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """(n,) share of the tokens (n, T) under `mask` that may stand where they do, in [0, 1].

        Args:
            tokens: (n, T).
            mask: (n, T) bool.
            before: (n,) tokens before the first; by default it begins after "start".
        """
        first = np.full(len(tokens), len(self.words)) if before is None else before
        previous = np.concatenate([first[:, None], tokens[:, :-1]], 1)
        return (self._allowed[previous, tokens] & mask).sum(1) / mask.sum(1)


def _odds(weights: Mapping[str, float]) -> np.ndarray:
    """Cumulated probabilities, all but the last, which is 1."""
    values = np.array(list(weights.values()), float)
    return (values / values.sum()).cumsum()[:-1]


def repeats(tokens: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """(n,) tokens under `counted` (n, T) that stand at an earlier place under it too."""
    earlier = np.tril(np.ones((tokens.shape[1],) * 2, bool), -1)
    same = (tokens[:, :, None] == tokens[:, None, :]) & earlier & counted[:, None, :]
    return (same.any(2) & counted).sum(1)


def contains(tokens: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n, k) bool, whether each of the wanted tokens (n, k) stands in tokens (n, T)."""
    return (tokens[:, None, :] == wanted[:, :, None]).any(2)
