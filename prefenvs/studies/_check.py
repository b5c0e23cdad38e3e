"""From tables to a verdict: estimates with intervals over seeds, and the rule that judges them. Pure, seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Outcome: TypeAlias = Literal["holds", "fails", "undecided"]
Table: TypeAlias = Sequence[Mapping[str, Any]]
Tables: TypeAlias = Mapping[str, Mapping[int, Table]]
"""Rows of JSON scalars by arm, then by seed."""
Statistic: TypeAlias = Callable[..., Any]
"""A mean of sorts that takes `axis`: np.mean, np.median, `interquartile_mean`."""

RESAMPLES = 20_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Paper:
    """The paper that a study repeats."""

    card: str
    """Number of the paper in the suite, as in the names of its tests."""
    name: str
    title: str
    authors: str
    year: int
    arxiv: str = ""
    """Its arXiv id, such as 2206.02231; empty if it has none."""


@dataclass(frozen=True)
class Estimate:
    """A measured number, its interval, and the margin that it has to reach, or to stay within."""

    name: str
    value: float
    low: float
    high: float
    margin: float = 0.0
    at_most: bool = False
    """The margin is an upper bound, as of an error."""

    @property
    def outcome(self) -> Outcome:
        """`holds` if the whole interval meets the margin, `fails` if none of it does, `undecided` otherwise."""
        sign = -1 if self.at_most else 1
        worst, best = sorted((sign * self.low, sign * self.high))
        if worst >= sign * self.margin:
            return "holds"
        return "fails" if best < sign * self.margin else "undecided"


@dataclass(frozen=True)
class Verdict:
    """What the tables say about the claim."""

    outcome: Outcome
    estimates: tuple[Estimate, ...]
    note: str = ""


def decide(*estimates: Estimate, note: str = "") -> Verdict:
    """The claim holds if every estimate does, and fails if any fails.

    Raises:
        ValueError: if there is no estimate: nothing was measured.
    """
    if not estimates:
        raise ValueError("a verdict needs at least one estimate.")
    outcomes = {estimate.outcome for estimate in estimates}
    outcome: Outcome = "fails" if "fails" in outcomes else "undecided" if "undecided" in outcomes else "holds"
    return Verdict(outcome, estimates, note)


def exact(name: str, value: float, margin: float = 0.0) -> Estimate:
    """An estimate without an interval, of something computed and not sampled."""
    return Estimate(name, float(value), float(value), float(value), margin)


def within(name: str, error: float, tolerance: float) -> Estimate:
    """An exact estimate that holds if `error <= tolerance`."""
    return replace(exact(name, error, tolerance), at_most=True)


def over_seeds(
    name: str,
    values: ArrayLike,
    margin: float = 0.0,
    *,
    at_most: bool = False,
    statistic: Statistic = np.mean,
    seed: int = 0,
) -> Estimate:
    """Mean (or median) over seeds with its stratified bootstrap interval; of differences, if arms are to be compared.

    Agarwal et al. 2021, sec. 4.1, arXiv:2108.13264. Tasks are the strata and stay as they are: the interval says what
    other seeds would give on these tasks. Few seeds make plain bootstrap intervals too short; the percentiles are
    moved outwards so that they match Student's t for a mean (`tail`).

    Args:
        name: what was measured, with its unit.
        values: (n,) a number a seed, as `per_seed` gives them, or (K, n) with a row a task; two seeds at least.
        margin: what the interval has to reach.
        at_most: what the interval has to stay below.
        statistic: np.mean, np.median or `interquartile_mean`, of all numbers together.
        seed: of the resampling.

    Raises:
        ValueError: for fewer than two seeds.
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"{name}: expected (n,) or (tasks, n) numbers, n two seeds or more, got {np.shape(values)}.")
    low, high = bootstrap(table, np.random.default_rng(seed), statistic)
    return Estimate(name, float(statistic(table.reshape(-1), axis=-1)), low, high, margin, at_most)


def lead(
    what: str, of: Mapping[str, np.ndarray], ours: str, theirs: str, margin: float = 0.0, *, at_most: bool = False
) -> Estimate:
    """How far an arm is above another, `over_seeds`, of (n,) numbers a seed by arm: "[what, ]ours - theirs"."""
    return over_seeds(f"{what}, {ours} - {theirs}".removeprefix(", "), of[ours] - of[theirs], margin, at_most=at_most)


def bootstrap(table: np.ndarray, rng: np.random.Generator, statistic: Statistic = np.mean) -> tuple[float, float]:
    """Stratified bootstrap interval of a statistic of all numbers of a table, with expanded percentiles.

    Args:
        table: (K, n) a row a stratum; n numbers of each row are drawn with replacement.
        rng: of the resampling.
        statistic: takes `axis`.

    Returns:
        Lower and upper end of the 95% interval; nan if a number is nan.
    """
    strata, n = table.shape
    drawn = rng.integers(n, size=(RESAMPLES, strata, n))
    resampled = table[np.arange(strata)[:, None], drawn].reshape(RESAMPLES, -1)  # (resamples, K * n)
    share = tail(strata, n)
    low, high = np.quantile(statistic(resampled, axis=-1), [share, 1 - share])
    return float(low), float(high)


def tail(strata: int, n: int) -> float:
    """Share of resamples beyond each end of a 95% interval, Phi(-t sqrt(n / (n - 1))).

    t is Student's quantile with K (n - 1) degrees of freedom. Hesterberg 2015, arXiv:1411.5279, "expanded percentile":
    resampling n numbers spreads too little by sqrt((n - 1) / n), and normal tails are too short for few numbers.
    0.025 as n grows; 0.001 for five seeds, where the interval nearly spans the numbers.
    """
    return NormalDist().cdf(-_student_quantile(strata * (n - 1)) * math.sqrt(n / (n - 1)))


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the numbers: a quarter, rounded down, is left out at each end. arXiv:2108.13264."""
    ordered = np.sort(np.moveaxis(values, axis, -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def _student_quantile(degrees: int) -> float:
    """Student's quantile at (1 + CONFIDENCE) / 2: t = sqrt(d) tan(a), where the density of a is as cos(a)^(d - 1)."""
    angles = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (degrees - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(degrees) * math.tan(float(np.interp(CONFIDENCE, mass / mass[-1], angles)))
