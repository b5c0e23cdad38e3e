"""Which questions to ask: pure functions that pick some of many candidate queries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidates:
    """What a strategy may look at."""

    probabilities: np.ndarray
    """(M, c, k) each ensemble member's probability that each segment of a candidate is preferred."""
    features: np.ndarray
    """(c, d) what a candidate shows, as one vector."""
    labelled: np.ndarray
    """(l, d) the same of queries asked before."""

    def __len__(self) -> int:
        return len(self.features)


def pairs_within(groups: np.ndarray) -> np.ndarray:
    """(m, 2) indices i < j of all pairs of rows whose (n,) group is the same: completions that share a prompt.

    Example:
        >>> pairs_within(np.array([7, 7, 3, 7])).tolist()
        [[0, 1], [0, 3], [1, 3]]
    """
    first, second = np.triu_indices(len(groups), 1)
    same = groups[first] == groups[second]
    return np.stack([first[same], second[same]], 1)


Strategy = Callable[[Candidates, int, np.random.Generator], np.ndarray]
"""(candidates, n, rng) to the (n,) indices of the queries to ask."""


def uniform(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """N candidates at random, without replacement."""
    return rng.permutation(len(candidates))[:n]


def disagreement(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """The n candidates on which members differ most: greatest sd of P. Christiano et al. 2017, arXiv:1706.03741."""
    return _top(candidates.probabilities.std(0).mean(-1), n)


def entropy(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """The n candidates whose answer is least foreseen: greatest entropy of P. Lee et al. 2021, arXiv:2106.05091."""
    p = np.clip(candidates.probabilities, 1e-12, 1.0)
    return _top(-(p * np.log(p)).sum(-1).mean(0), n)


def k_centre(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """N candidates far from each other and from those labelled: greedy. Sener & Savarese 2018, arXiv:1708.00489.

    The distance to the nearest centre is kept and lowered as centres are added: O(n c d).
    """
    features = candidates.features
    squares = (features**2).sum(1)

    def distance(centres: np.ndarray) -> np.ndarray:
        return np.maximum(squares[:, None] - 2 * features @ centres.T + (centres**2).sum(1), 0.0)

    nearest = np.full(len(features), np.inf)
    for start in range(0, len(candidates.labelled), 256):
        nearest = np.minimum(nearest, distance(candidates.labelled[start : start + 256]).min(1))
    chosen: list[int] = []
    for _ in range(min(n, len(features))):
        index = int(np.argmax(nearest)) if np.isfinite(nearest).all() else int(rng.integers(len(features)))
        chosen.append(index)
        nearest = np.minimum(nearest, distance(features[index : index + 1])[:, 0])
        nearest[index] = -1.0
    return np.array(chosen, np.int64)


def hybrid(first: Strategy, then: Strategy, keep: float = 0.5) -> Strategy:
    """A strategy that lets `first` keep a share of the candidates and `then` pick among those.

    `hybrid(disagreement, k_centre)` and `hybrid(entropy, k_centre)` are B-Pref's schemes 4 and 5.
    """

    def pick(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
        kept = first(candidates, max(n, int(keep * len(candidates))), rng)
        narrowed = Candidates(candidates.probabilities[:, kept], candidates.features[kept], candidates.labelled)
        return kept[then(narrowed, n, rng)]

    return pick


STRATEGIES: dict[str, Strategy] = {
    "uniform": uniform,
    "disagreement": disagreement,
    "entropy": entropy,
    "k_centre": k_centre,
    "disagreement_k_centre": hybrid(disagreement, k_centre),
    "entropy_k_centre": hybrid(entropy, k_centre),
}
"""Query strategies by name. `STRATEGIES["mine"] = mine` adds one."""


def queries_to_ask(wanted: int | None, remaining: float, otherwise: int) -> int:
    """How many queries a learner asks: `wanted`, or None for all that remain, and never more than remain.

    Args:
        wanted: by the learner's config.
        remaining: of the budget; infinity without one.
        otherwise: how many where all would be infinitely many.
    """
    if wanted is None and math.isinf(remaining):
        return otherwise
    return int(remaining if wanted is None else min(wanted, remaining))


def sessions(kind: str, budget: int, count: int) -> list[int]:
    """How a budget is spread over `count` feedback sessions.

    Args:
        kind: "constant"; "decaying", where session i gets a share proportional to 1 / (i + 1); "growing", to i + 1.
        budget: queries in all.
        count: sessions.

    Returns:
        Queries a session; they sum to the budget.

    Raises:
        ValueError: for an unknown kind.
    """
    from prefenvs.error import unknown_name

    places = np.arange(1, count + 1)
    weights = {"constant": np.ones(count), "decaying": 1.0 / places, "growing": places.astype(float)}
    if kind not in weights:
        raise unknown_name("schedule", kind, weights)
    edges = np.rint(np.cumsum(weights[kind]) / weights[kind].sum() * budget).astype(int)
    return np.diff(edges, prepend=0).tolist()


def _top(scores: np.ndarray, n: int) -> np.ndarray:
    return np.argsort(-scores, kind="stable")[:n]
