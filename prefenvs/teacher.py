"""How a simulated person errs: forgetting, skipping, ties, noise and mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from prefenvs.calibration import Calibration
from prefenvs.error import unknown_name
from prefenvs.segments import Label

ANSWERS = ("choice", "ranking", "rating", "soft")
"""Kinds of answer a teacher can give."""

ROUNDING = 1e-9
"""An error-free teacher ties scores that differ by no more than this share of their unit and size, |score|.

Scores are sums of float64 numbers, and regrets small differences of large ones: equal scores differ by 1e-12 of their
size or less, and by the last sweep of the solver. Compared bit for bit, rounding would break such ties, always for the
same segment. Solvers call actions equally good by the same rule (`greedy_policy`)."""


@dataclass(frozen=True)
class Teacher:
    """Turns what a person cares about into the answers that person gives.

    In this order: steps are weighted and summed; a query that is not worth an answer is skipped; segments too alike
    to tell apart are tied; otherwise a segment is chosen with Boltzmann noise; and a mistake replaces the choice by
    another segment. The stages are B-Pref's (Lee et al. 2021, arXiv:2111.03026, sec. 3) in the order of its code;
    skips and ties compare sums without myopia, as there.
    """

    beta: float = math.inf
    """Rationality: P(i) is proportional to exp(beta * score_i / unit). Infinity never errs; 0 chooses at random."""
    myopia: float = 1.0
    """Weight of a step for each step that follows it (B-Pref's gamma): myopia ** (steps to the segment's end)."""
    eps_mistake: float = 0.0
    """Probability that the answer names another segment than the one meant."""
    eps_skip: float = 0.0
    """Skip if no segment's score is this many units above the lowest of the reference set (raw: see `scale`)."""
    eps_equal: float = 0.0
    """Tie if scores differ by less than this many units (raw: see `scale`)."""
    scale: Literal["sd", "raw"] = "sd"
    """Unit: "sd" is the frozen standard deviation of segment scores over the task's reference set. "raw" is B-Pref's:
    beta on the bare sum, thresholds eps * (mean true return of the last ten episodes) * T / (steps an episode)."""
    rating_levels: int = 5
    """Ratings go from 0 to this minus one."""

    def __post_init__(self) -> None:
        for name in ("eps_mistake", "myopia"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value}, expected a number in [0, 1].")
        for name in ("beta", "eps_skip", "eps_equal"):
            value = getattr(self, name)
            if not value >= 0.0:
                raise ValueError(f"{name}={value}, expected 0 or more.")
        if self.scale not in ("sd", "raw"):
            raise unknown_name("scale", self.scale, ("sd", "raw"))
        if self.rating_levels < 2:
            raise ValueError(f"rating_levels={self.rating_levels}, expected at least 2.")

    @property
    def needs_unit(self) -> bool:
        """Whether any parameter is measured in units of the reference set."""
        return self.scale == "sd" and (math.isfinite(self.beta) or self.eps_skip > 0 or self.eps_equal > 0)


def _noisy(**arguments: Any) -> Teacher:
    return Teacher(**{"beta": 1.0, **arguments})


TEACHERS: dict[str, Callable[..., Teacher]] = {
    "oracle": Teacher,
    "noisy": _noisy,
    "mistake": lambda **arguments: Teacher(**{"eps_mistake": 0.1, **arguments}),
    "skip": lambda **arguments: Teacher(**{"eps_skip": 0.1, **arguments}),
    "equal": lambda **arguments: Teacher(**{"eps_equal": 0.1, **arguments}),
    "myopic": lambda **arguments: Teacher(**{"myopia": 0.9, **arguments}),
}
"""B-Pref's six teachers by name; each changes one parameter. `TEACHERS["mine"] = Teacher(...)` adds one, or a function
that makes a Teacher of arguments."""


def make_teacher(teacher: Any) -> Teacher:
    """The teacher that a name, `{"name": ..., **arguments}` or a Teacher means.

    Raises:
        ValueError: for an unknown name or a parameter out of range.
        TypeError: for another kind of object.
    """
    if isinstance(teacher, str):
        teacher = {"name": teacher}
    if isinstance(teacher, Mapping):
        arguments = dict(teacher)
        name = arguments.pop("name", "oracle")
        if name not in TEACHERS:
            raise unknown_name("teacher", name, TEACHERS, f"To add your own: TEACHERS[{name!r}] = Teacher(...).")
        entry = TEACHERS[name]
        teacher = replace(entry, **arguments) if isinstance(entry, Teacher) else entry(**arguments)
        if not isinstance(teacher, Teacher):
            raise TypeError(
                f"TEACHERS[{name!r}] made {teacher!r}, expected a Teacher. TEACHERS takes a Teacher(...) or a function "
                "that makes one; what a person cares about goes into ORACLES."
            )
    if not isinstance(teacher, Teacher):
        raise TypeError(f"teacher={teacher!r} is not a Teacher or the name of one.")
    return teacher


def bpref_threshold(eps: float, mean_return: float, segment_steps: int, episode_steps: float) -> float:
    """B-Pref's threshold on segment scores, eps * mean episode return * T / (steps an episode), in units of reward.

    Lee et al. 2021, arXiv:2111.03026, sec. 3. Zero before the first episode ends; zero or negative returns switch the
    stage off, which is why "sd" is the default scale.
    """
    return eps * mean_return * segment_steps / episode_steps if episode_steps else 0.0


@dataclass(frozen=True)
class Thresholds:
    """A teacher's parameters in units of score, for one batch of queries."""

    unit: float
    """Divides scores before beta multiplies them."""
    skip_below: float
    """Skip if no score is above this."""
    tie_within: float
    """Tie if scores differ by less than this."""

    @staticmethod
    def of(
        teacher: Teacher, calibration: Calibration, segment_steps: int, recent_returns: tuple[float, float] = (0.0, 0.0)
    ) -> Thresholds:
        """Thresholds of a teacher; `recent_returns` (mean return, mean steps) matter to scale="raw" only."""
        if teacher.scale == "raw":
            skip = bpref_threshold(teacher.eps_skip, recent_returns[0], segment_steps, recent_returns[1])
            tie = bpref_threshold(teacher.eps_equal, recent_returns[0], segment_steps, recent_returns[1])
            return Thresholds(1.0, skip if skip > 0 else -math.inf, max(tie, 0.0))
        skip = calibration.floor + teacher.eps_skip * calibration.sd if teacher.eps_skip > 0 else -math.inf
        return Thresholds(calibration.sd, skip, teacher.eps_equal * calibration.sd)


def draws_needed(k: int) -> int:
    """Uniform numbers that answer a query of k segments."""
    return 2 * k + 2


def choose(teacher: Teacher, scores: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Choices by scores that are in the teacher's own unit, without an environment: nobody skips, and equal scores tie.

    Args:
        teacher: how the person errs.
        scores: (n, k).
        uniforms: (n, draws_needed(k)) in (0, 1).

    Returns:
        (n, k) choices, as in `Label`.
    """
    return answer_scores(teacher, Thresholds(1.0, -math.inf, 0.0), scores, scores, uniforms, "choice").choice


def answer_scores(
    teacher: Teacher, thresholds: Thresholds, plain: np.ndarray, weighted: np.ndarray, uniforms: np.ndarray, answer: str
) -> Label:
    """Answers to queries whose segments have scores.

    Args:
        teacher: how the person errs.
        thresholds: from `Thresholds.of`.
        plain: (n, k) scores without myopia, for skips and ties.
        weighted: (n, k) scores with myopia, for the choice.
        uniforms: (n, draws_needed(k)) in (0, 1).
        answer: "choice", "ranking" or "soft"; ratings come from `rate_scores`.

    Returns:
        A Label of n answers.
    """
    k = plain.shape[1]
    skipped = plain.max(1) <= thresholds.skip_below
    # Ties come before mistakes. An error-free teacher has no reason to break an exact tie of what it remembers either.
    alike = _near_best(plain, thresholds.tie_within)
    tied = alike.sum(1) > 1 if thresholds.tie_within > 0 else np.zeros(len(plain), bool)
    equal_within = _rounding(thresholds, weighted)
    if math.isinf(teacher.beta):
        exact = _near_best(weighted, equal_within)
        alike = np.where(tied[:, None], alike, exact)
        tied |= exact.sum(1) > 1
    if answer == "soft":
        choice = _mistaken(_choice_law(teacher, thresholds, weighted), teacher.eps_mistake)
        choice[tied] = alike[tied] / alike[tied].sum(1, keepdims=True)
        choice[skipped] = np.nan
        return Label(choice, soft=True)

    noisy = _noisy_scores(teacher, thresholds, weighted, uniforms[:, :k])
    noisy = np.where(tied[:, None] & alike, np.inf, noisy)  # those that share the choice share the first place
    order = np.argsort(-noisy, axis=1, kind="stable")
    swap = uniforms[:, k] < teacher.eps_mistake
    other = 1 + np.minimum((uniforms[:, k + 1] * (k - 1)).astype(np.int64), max(k - 2, 0))
    rows = np.flatnonzero(swap & ~tied) if k > 1 else np.zeros(0, np.int64)
    order[rows, 0], order[rows, other[rows]] = order[rows, other[rows]], order[rows, 0]

    choice = np.zeros(plain.shape)
    choice[np.arange(len(choice)), order[:, 0]] = 1.0
    choice[tied] = alike[tied] / alike[tied].sum(1, keepdims=True)
    choice[skipped] = np.nan
    if answer != "ranking":
        return Label(choice)
    ranking = np.where(tied[:, None] & alike, 0, np.argsort(order, axis=1))
    if math.isinf(teacher.beta):  # segments that cannot be told apart share a place
        apart = np.abs(plain[:, None, :] - plain[:, :, None]) >= thresholds.tie_within
        behind = (noisy[:, None, :] > noisy[:, :, None] + equal_within[:, :, None]) & apart
        ranking = np.where((swap & ~tied)[:, None], ranking, behind.sum(2))
    ranking[skipped] = -1
    return Label(choice, ranking=ranking.astype(np.int64))


def rate_scores(
    teacher: Teacher, calibration: Calibration, weighted: np.ndarray, uniforms: np.ndarray, skipped: np.ndarray
) -> Label:
    """Ratings of segments on a scale of `rating_levels`, and the choice they imply.

    The rating is the level whose share of the reference set the segment's score falls in, taking scores to be normal:
    floor(levels * Phi((score - mean) / sd + noise / beta)) with logistic noise; a mistake is a level at random.

    Args:
        teacher: how the person errs; needs scale="sd".
        calibration: mean and unit of scores.
        weighted: (n, k) scores.
        uniforms: (n, draws_needed(k)).
        skipped: (n,) bool.

    Raises:
        ValueError: if the teacher's scale is "raw": a rating needs a unit.
    """
    if teacher.scale != "sd":
        raise ValueError('answer="rating" needs a teacher with scale="sd": a rating is relative to the reference set.')
    k, levels = weighted.shape[1], teacher.rating_levels
    noise = uniforms[:, :k]
    z = (weighted - calibration.mean) / calibration.sd
    if math.isfinite(teacher.beta):
        z = z + np.log(noise / (1.0 - noise)) / max(teacher.beta, 1e-9)
    share = 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))
    ratings = np.minimum(np.floor(levels * share), levels - 1)
    second = uniforms[:, k + 2 : 2 * k + 2]
    mistaken = second < teacher.eps_mistake  # given a mistake, second / eps_mistake is uniform again
    ratings = np.where(mistaken, np.floor(levels * second / max(teacher.eps_mistake, 1e-300)), ratings)
    best = ratings == ratings.max(1, keepdims=True)
    choice = best / best.sum(1, keepdims=True)
    ratings[skipped], choice[skipped] = np.nan, np.nan
    return Label(choice, ratings=ratings)


def answer_margins(teacher: Teacher, margins: np.ndarray, uniforms: np.ndarray, answer: str) -> Label:
    """Answers to queries whose segments can only be compared. More than two are chosen among by Copeland wins.

    Args:
        teacher: beta and eps_mistake apply; thresholds and myopia belong to the preference model.
        margins: (n, k, k) how far segment i is preferred to j, in the model's units; 0 a tie, nan a skip.
        uniforms: (n, draws_needed(k) + k * (k - 1) / 2).
        answer: "choice", "ranking", or (k = 2 only) "soft".

    Raises:
        ValueError: if the teacher has parameters that need scores, or the answer does.
    """
    if teacher.eps_skip or teacher.eps_equal or teacher.myopia != 1.0:
        raise ValueError(
            "this oracle compares segments without scoring them, so the teacher's eps_skip, eps_equal and myopia mean "
            "nothing here. Use the oracle's own margins and undecided=."
        )
    n, k, _ = margins.shape
    if answer == "rating" or k < 2:
        raise ValueError(
            f"this oracle compares segments without scoring them, so it cannot answer k={k}, answer={answer!r}. "
            'Use answer="choice" or "ranking" and k of 2 or more, or an oracle with utility(segments).'
        )
    first, second = np.triu_indices(k, 1)
    pairs = margins[:, first, second]
    law = np.where(pairs == 0.0, 0.5, np.where(pairs > 0, 1.0, 0.0))
    if math.isfinite(teacher.beta):
        law = np.where(pairs == 0.0, 0.5, 0.5 * (1.0 + np.tanh(0.5 * teacher.beta * pairs)))
    law = np.where(np.isnan(pairs), np.nan, law)
    skipped = np.isnan(law).all(1)
    if answer == "soft":
        if k != 2:
            raise ValueError(f'answer="soft" of a comparing oracle needs k=2 segments a query, got k={k}.')
        choice = np.stack([law[:, 0], 1.0 - law[:, 0]], 1)
        choice[pairs[:, 0] != 0] = _mistaken(choice[pairs[:, 0] != 0], teacher.eps_mistake)
        return Label(choice, soft=True)
    drawn = uniforms[:, draws_needed(k) :] < law
    outcome = np.where(np.isnan(law) | (pairs == 0.0), 0.5, drawn)
    wins = np.zeros((n, k))
    for pair, (i, j) in enumerate(zip(first, second, strict=True)):
        wins[:, i] += outcome[:, pair]
        wins[:, j] += 1.0 - outcome[:, pair]
    swap = replace(teacher, beta=math.inf)
    label = answer_scores(swap, Thresholds(1.0, -math.inf, 0.0), wins, wins, uniforms[:, : draws_needed(k)], answer)
    label.choice[skipped] = np.nan
    if label.ranking is not None:
        label.ranking[skipped] = -1
    return label


def no_answers(k: int, answer: str) -> Label:
    """The Label of no query of k segments, of a kind in ANSWERS."""
    none = np.zeros((0, k))
    ranking = none.astype(np.int64) if answer == "ranking" else None
    return Label(none, ranking=ranking, ratings=none if answer == "rating" else None, soft=answer == "soft")


def _near_best(scores: np.ndarray, within: float | np.ndarray) -> np.ndarray:
    gap = scores.max(1, keepdims=True) - scores
    return (gap < within) | (gap == 0.0)


def _rounding(thresholds: Thresholds, scores: np.ndarray) -> np.ndarray:
    """(n, 1) difference up to which the scores of a query count as equal."""
    return ROUNDING * (thresholds.unit + np.abs(scores).max(1, keepdims=True))


def _choice_law(teacher: Teacher, thresholds: Thresholds, scores: np.ndarray) -> np.ndarray:
    """(n, k) probability that each segment is meant, before mistakes."""
    if math.isinf(teacher.beta):
        best = _near_best(scores, _rounding(thresholds, scores))
        return best / best.sum(1, keepdims=True)
    logits = teacher.beta * scores / thresholds.unit
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _mistaken(law: np.ndarray, eps: float) -> np.ndarray:
    """The law of the answer where with probability eps another segment than the one meant is named."""
    k = law.shape[1]
    return (1.0 - eps) * law + eps * (1.0 - law) / max(k - 1, 1)


def _noisy_scores(teacher: Teacher, thresholds: Thresholds, scores: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Scores whose order follows the Plackett-Luce law: logits plus Gumbel noise."""
    if math.isinf(teacher.beta):
        return scores
    return teacher.beta * scores / thresholds.unit - np.log(-np.log(uniforms))
