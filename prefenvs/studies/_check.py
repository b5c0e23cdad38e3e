"""From tables to a verdict: estimates with intervals over seeds, and the rule that judges them. Pure, seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np

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


def decide(estimates: Sequence[Estimate], note: str = "") -> Verdict:
    """The claim holds if every estimate does, and fails if any fails.

    Raises:
        ValueError: if there is no estimate: nothing was measured.
    """
    if not estimates:
        raise ValueError("a verdict needs at least one estimate.")
    outcomes = {estimate.outcome for estimate in estimates}
    outcome: Outcome = "fails" if "fails" in outcomes else "undecided" if "undecided" in outcomes else "holds"
    return Verdict(outcome, tuple(estimates), note)


def per_seed(tables: Tables, arm: str, column: str, **where: Any) -> dict[int, float]:
    """Mean of a column of an arm's tables, by seed, over the rows that have the values of `where`.

    Raises:
        ValueError: if a seed has no such row.
    """
    found = {}
    for seed, table in tables[arm].items():
        rows = [row[column] for row in table if all(row[key] == value for key, value in where.items())]
        if not rows:
            raise ValueError(f"seed {seed} of arm {arm!r} has no row with {where or 'anything in it'}.")
        found[seed] = float(np.mean(rows))
    return found


def exact(name: str, value: float, margin: float = 0.0) -> Estimate:
    """An estimate without an interval, of something computed and not sampled."""
    return Estimate(name, float(value), float(value), float(value), margin)


def within(name: str, error: float, tolerance: float) -> Estimate:
    """An exact estimate that holds if `error <= tolerance`."""
    return replace(exact(name, error, tolerance), at_most=True)


def over_seeds(
    name: str, values: Mapping[int, float], margin: float = 0.0, *, statistic: Statistic = np.mean, seed: int = 0
) -> Estimate:
    """Mean (or median) over seeds with its bootstrap interval.

    Args:
        name: what was measured, with its unit.
        values: a number a seed, two seeds at least.
        margin: what the interval has to reach.
        statistic: np.mean, np.median or `interquartile_mean`.
        seed: of the resampling.
    """
    return over_tasks_and_seeds(name, {"": values}, margin, statistic=statistic, seed=seed)


def paired_difference(
    name: str,
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    margin: float = 0.0,
    *,
    statistic: Statistic = np.mean,
    seed: int = 0,
) -> Estimate:
    """Mean (or median) over seeds of ours - theirs, paired by seed, with its bootstrap interval.

    Raises:
        ValueError: if the two have different seeds.
    """
    return over_seeds(name, _differences(name, ours, theirs), margin, statistic=statistic, seed=seed)


def over_tasks_and_seeds(
    name: str,
    values: Mapping[str, Mapping[int, float]],
    margin: float = 0.0,
    *,
    minus: Mapping[str, Mapping[int, float]] | None = None,
    statistic: Statistic = np.mean,
    seed: int = 0,
) -> Estimate:
    """A statistic over tasks x seeds with its stratified bootstrap interval: seeds are drawn anew within each task.

    Agarwal et al. 2021, sec. 4.1, arXiv:2108.13264. Tasks are the strata and stay as they are: the interval says what
    other seeds would give on these tasks. Few seeds make plain bootstrap intervals too short; the percentiles are
    moved outwards so that they match Student's t for a mean (`tail`).

    Args:
        name: what was measured, with its unit.
        values: by task and seed; every task has the same number of seeds, two at least.
        margin: what the interval has to reach.
        minus: subtracted, paired by task and seed.
        statistic: of all numbers together; takes `axis`.
        seed: of the resampling.

    Raises:
        ValueError: if there are fewer than two seeds a task, or tasks or seeds do not match.
    """
    if minus is not None:
        if set(values) != set(minus):
            raise ValueError(f"{name}: tasks {sorted(values)} and {sorted(minus)} cannot be paired.")
        values = {task: _differences(name, values[task], minus[task]) for task in values}
    counts = {len(row) for row in values.values()}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"{name}: expected the same number of seeds for each task, two at least, got {sorted(counts)}."
        )
    table = np.array([[row[key] for key in sorted(row)] for _, row in sorted(values.items())], dtype=float)  # (K, n)
    low, high = bootstrap(table, np.random.default_rng(seed), statistic)
    return Estimate(name, float(statistic(table.reshape(-1), axis=-1)), low, high, margin)


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


def _differences(name: str, ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    if set(ours) != set(theirs):
        raise ValueError(f"{name}: seeds {sorted(ours)} and {sorted(theirs)} cannot be paired.")
    return {seed: ours[seed] - theirs[seed] for seed in ours}
