"""Over-optimisation of a proxy reward: what the gold reward does while a policy leaves its reference for the proxy.

Gao et al. 2022, arXiv:2210.10760; Coste et al. 2023, arXiv:2310.02743. Distances are d = sqrt(KL(pi || ref)), KL in
nats. Gold rewards are for metrics, never for learners. `kl_frontier` has the exact laws over finitely many outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefenvs.error import unknown_name


@dataclass(frozen=True)
class OptimisationCurve:
    """Rewards of m checkpoints of one run, or of best-of-n at m values of n."""

    kl: np.ndarray
    """(m,) KL(pi || ref) in nats."""
    gold: np.ndarray
    """(m,) mean gold reward."""
    proxy: np.ndarray | None = None
    """(m,) mean proxy reward."""
    error: np.ndarray | None = None
    """(m,) half width of the 95% interval of gold."""


def best_of_n_curve(gold: np.ndarray, proxy: np.ndarray, n: Sequence[int]) -> np.ndarray:
    """Unbiased estimate of the gold reward of the sample that the proxy rates best of n, from N samples.

    sum_i C(i - 1, n - 1) / C(N, n) gold_(i), sorted by proxy: the mean over all subsets of n. Equal proxies share their
    mean gold, as if ties were broken at random.

    Args:
        gold: (..., N) gold rewards of N samples a prompt.
        proxy: (..., N) their proxy rewards.
        n: m numbers, each from 1 to N.

    Returns:
        (..., m) in units of gold. At n = 1 the mean, at n = N the gold of the best proxy.

    Raises:
        ValueError: if an n is out of its range.
    """
    gold, proxy = np.broadcast_arrays(np.asarray(gold, float), np.asarray(proxy, float))
    samples = gold.shape[-1]
    if any(not 1 <= size <= samples for size in n):
        raise ValueError(f"n={list(n)}, expected whole numbers from 1 to N = {samples}, the samples a prompt.")
    weights = np.stack([_best_of_n_weights(samples, int(size)) for size in n], axis=-1)  # (N, m)
    return _sorted_by_proxy(gold, proxy) @ weights


def best_of_n_table(gold: np.ndarray, proxy: np.ndarray, n: Sequence[int]) -> list[dict[str, float]]:
    """A row for each of m numbers: `n`, `kl` in nats, and means of `gold` and `proxy` over all axes but the samples'.

    See `best_of_n_curve` and `best_of_n_kl`. Of an ensemble whose members each choose for themselves, proxy has one
    more leading axis than gold.
    """
    kl = best_of_n_kl(np.asarray(n)).tolist()
    curves = (best_of_n_curve(of, proxy, n).reshape(-1, len(n)).mean(0).tolist() for of in (gold, proxy))
    return [dict(zip(("n", "kl", "gold", "proxy"), row, strict=True)) for row in zip(n, kl, *curves, strict=True)]


def best_of_n_kl(n: np.ndarray | float) -> np.ndarray:
    """(...) KL of the best of n from the law of one sample, log n - (n - 1) / n nats, where no two rewards are equal.

    An upper bound where ties are possible; Beirami et al. 2024, arXiv:2401.01879. `kl_frontier.best_of_n` has the law.
    """
    n = np.asarray(n, float)
    return np.log(n) - (n - 1) / n


def sampled_kl(log_ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """KL(pi || ref) from the policy's own responses, with a 95% interval.

    Args:
        log_ratios: (..., n) of n responses, log pi - log ref summed over tokens or, with less variance, the sum of the
            full KLs of each step.

    Returns:
        Mean, lower and upper end, each (...) in nats: mean +- 1.96 standard errors.
    """
    log_ratios = np.asarray(log_ratios, float)
    mean = log_ratios.mean(-1)
    error = 1.96 * log_ratios.std(-1, ddof=1) / np.sqrt(log_ratios.shape[-1])
    return mean, mean - error, mean + error


@dataclass(frozen=True)
class FrontierFit:
    """A fitted curve R(d) of gold reward against distance, R(0) = 0."""

    form: str
    """A key of FRONTIERS."""
    alpha: float
    """Reward a unit of distance at the start (quadratic), or at d = 1 (log)."""
    beta: float
    """Over-optimisation: how fast that falls."""
    rmse: float
    """Root of the mean square of residuals, weighted as the fit."""
    r_squared: float
    """1 - residual over total sum of squares about the mean, weighted as the fit."""

    def gold(self, distance: np.ndarray) -> np.ndarray:
        """(...) R(d)."""
        linear, penalty = _columns(self.form, np.asarray(distance, float))
        return self.alpha * linear + self.beta * penalty

    @property
    def peak(self) -> float:
        """Distance of the greatest reward; infinity where the curve never falls."""
        if self.beta <= 0:
            return np.inf
        return float(np.exp(self.alpha / self.beta - 1)) if self.form == "log" else self.alpha / (2 * self.beta)


FRONTIERS = ("log", "quadratic")
"""Forms of R(d): d (alpha - beta log d), found for RL and direct alignment, and d (alpha - beta d), for best-of-n."""


def fit_frontier(
    kl: np.ndarray, gold: np.ndarray, *, form: str = "log", error: np.ndarray | None = None
) -> FrontierFit:
    """Least-squares fit of R(d) = d (alpha - beta log d), or d (alpha - beta d), to gold rewards less the reference's.

    Gao et al. 2022, arXiv:2210.10760; Rafailov et al. 2024 for direct alignment, arXiv:2406.02900. Both are 0 at d = 0
    by form, so a point there says nothing and is left out.

    Args:
        kl: (m,) in nats.
        gold: (m,) gold reward less that of the reference.
        form: One of FRONTIERS.
        error: (m,) standard errors of gold, whose inverse squares weigh the points; None weighs all alike.

    Returns:
        The fit.

    Raises:
        ValueError: if the form is unknown or fewer than two distances differ from 0 and each other.
    """
    if form not in FRONTIERS:
        raise unknown_name("form", form, FRONTIERS)
    kl, gold = np.asarray(kl, float), np.asarray(gold, float)
    away = kl > 0
    distance, reward = np.sqrt(kl[away]), gold[away]
    if len(np.unique(distance)) < 2:
        raise ValueError(
            f"kl={kl.tolist()}, expected two different values above 0 or more: there are two coefficients."
        )
    weight = np.ones_like(reward) if error is None else np.asarray(error, float)[away] ** -2.0
    weight = weight / weight.sum()
    design = np.stack(_columns(form, distance), axis=-1)
    root = np.sqrt(weight)
    (alpha, beta), *_ = np.linalg.lstsq(design * root[:, None], reward * root, rcond=None)
    residual = weight @ (reward - design @ (alpha, beta)) ** 2
    total = weight @ (reward - weight @ reward) ** 2
    return FrontierFit(form, float(alpha), float(beta), float(np.sqrt(residual)), float(1 - residual / total))


def peak_to_final_drop(gold: np.ndarray) -> np.ndarray:
    """(...) greatest gold reward along a run less its last, at least 0. gold: (..., m) of checkpoints in order."""
    gold = np.asarray(gold, float)
    return gold.max(-1) - gold[..., -1]


def gold_at_kl(curve: OptimisationCurve, at: np.ndarray | float) -> np.ndarray:
    """Gold reward of a run at given KLs, so that runs are compared at equal distance and not at equal coefficients.

    Interpolated between checkpoints sorted by KL; checkpoints of equal KL count by their mean.

    Args:
        curve: A run of m checkpoints.
        at: (...) in nats.

    Returns:
        (...) in units of gold; nan where the run was never so near or so far, since nothing is extrapolated.
    """
    kl, place = np.unique(curve.kl, return_inverse=True)
    gold = np.bincount(place, weights=curve.gold) / np.bincount(place)
    return np.asarray(np.interp(at, kl, gold, left=np.nan, right=np.nan))


def matched_kl_difference(
    curve: OptimisationCurve, other: OptimisationCurve, at: np.ndarray | float | None = None
) -> np.ndarray:
    """How much more gold reward one run has than another at equal KL.

    Args:
        curve: The one.
        other: The other.
        at: (...) KLs in nats; None for every KL at which either has a checkpoint and both are known.

    Returns:
        (...) differences in units of gold; nan outside either run's range.
    """
    if at is None:
        low, high = max(curve.kl.min(), other.kl.min()), min(curve.kl.max(), other.kl.max())
        both = np.union1d(curve.kl, other.kl)
        at = both[(both >= low) & (both <= high)]
    return gold_at_kl(curve, at) - gold_at_kl(other, at)


def _columns(form: str, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The regressors of alpha and beta: d and -d log d, or d and -d^2."""
    if form == "quadratic":
        return distance, -(distance**2)
    return distance, -distance * np.log(np.where(distance > 0, distance, 1.0))  # d log d is 0 at 0


def _best_of_n_weights(samples: int, n: int) -> np.ndarray:
    """(N,) C(i - 1, n - 1) / C(N, n) for i = 1, ..., N, in logs from the greatest: w_{i-1} = w_i (i - n) / (i - 1)."""
    above = np.arange(samples, n, -1)  # i = N, ..., n + 1
    logs = np.log(n / samples) + np.concatenate([[0.0], np.cumsum(np.log(above - n) - np.log(above - 1))])
    return np.concatenate([np.zeros(n - 1), np.exp(logs[::-1])])


def _sorted_by_proxy(gold: np.ndarray, proxy: np.ndarray) -> np.ndarray:
    """(..., N) gold in rising order of proxy; where proxies are equal, their mean gold."""
    order = np.argsort(proxy, axis=-1, kind="stable")
    gold, proxy = np.take_along_axis(gold, order, -1), np.take_along_axis(proxy, order, -1)
    starts = np.ones(gold.shape, bool)  # of groups of equal proxies; each row begins one
    starts[..., 1:] = proxy[..., 1:] != proxy[..., :-1]
    group = np.cumsum(starts.ravel()) - 1
    means = np.bincount(group, weights=gold.ravel()) / np.bincount(group)
    return means[group].reshape(gold.shape)
