"""What to make of a return's distribution: statistical functionals, and which of them dynamic programming can optimise.

A functional K maps a law, `values` (n,) or (n, d) and `probabilities` (..., n), to (...) numbers, greater is better. It
is applied to law(c + G), stock plus return. Dynamic programming over (state, stock) is exact if K is indifferent to
mixtures (a better law stays better when both are mixed with a third one) and, where gamma < 1, to gamma (a better law
stays better when both are multiplied by gamma); the limit of endless episodes also needs K to be Lipschitz in the
1-Wasserstein distance. Pires et al. 2025, Optimizing Return Distributions with Distributional Dynamic Programming,
arXiv:2501.13028.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from prefenvs.error import unknown_name


class Functional(Protocol):
    """A law's worth, and what is known of it."""

    @property
    def indifferent_to_mixtures(self) -> bool:
        """Whether mixing two laws with a third, in equal shares, keeps their order."""

    @property
    def indifferent_to_gamma(self) -> bool:
        """Whether multiplying two laws by a discount keeps their order."""

    @property
    def lipschitz(self) -> bool:
        """Whether the worth changes by at most a constant times the 1-Wasserstein distance."""

    @property
    def instead(self) -> str:
        """What to use where dynamic programming cannot optimise this one."""

    def __call__(self, values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The worth of laws on common values (n,) or (n, d) with probabilities (..., n); returns (...)."""


class _Utility:
    """K = E f: indifferent to mixtures because linear in the law. Subclasses give f as `utility`."""

    indifferent_to_mixtures = True
    indifferent_to_gamma = True
    lipschitz = True
    instead = "gamma=1, or a positively homogeneous utility: f(g x) = g^p f(x) for 0 < g < 1"

    def utility(self, x: Any) -> Any:
        """f, elementwise on scalars (...) or over the last axis of vectors (..., d); numpy arrays and torch tensors."""
        raise NotImplementedError

    def __call__(self, values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """E f."""
        return probabilities @ np.asarray(self.utility(values), dtype=float)


@dataclass(frozen=True)
class Mean(_Utility):
    """f(x) = x: ordinary reinforcement learning, whatever the stock."""

    def utility(self, x: Any) -> Any:
        """X itself."""
        return x


@dataclass(frozen=True)
class ExpectedUtility(_Utility):
    """K = E f for a function of one's own.

    Example:
        >>> squared = ExpectedUtility(lambda x: -(x**2), homogeneous=True)
        >>> float(squared(np.array([1.0, 3.0]), np.array([0.5, 0.5])))
        -5.0
    """

    f: Callable[[Any], Any]
    """Elementwise on an array, or over the last axis of vectors."""
    homogeneous: bool = False
    """Whether f(g x) = g^p f(x) for some p; without it gamma must be 1."""
    lipschitz: bool = False
    """Whether |f(x) - f(y)| <= L |x - y|; only endless episodes need it."""

    def utility(self, x: Any) -> Any:
        """f(x)."""
        return self.f(x)

    @property
    def indifferent_to_gamma(self) -> bool:  # type: ignore[override]
        """As `homogeneous` says."""
        return self.homogeneous


@dataclass(frozen=True)
class Shortfall(_Utility):
    """f(x) = min(x, 0): with c_0 = -b, minus the mean amount by which the return falls short of b."""

    def utility(self, x: Any) -> Any:
        """min(x, 0)."""
        return x.clip(max=0)


@dataclass(frozen=True)
class Excess(_Utility):
    """f(x) = max(x, 0): with c_0 = -b, the mean amount by which the return exceeds b."""

    def utility(self, x: Any) -> Any:
        """max(x, 0)."""
        return x.clip(min=0)


@dataclass(frozen=True)
class Target(_Utility):
    """f(x) = -|x|: the return should be -c_0. A target t is the initial stock -t."""

    def utility(self, x: Any) -> Any:
        """-|x|."""
        return -abs(x)


@dataclass(frozen=True)
class Homeostasis(_Utility):
    """f(x) = -|x|_p for vector rewards: several stocks should end at 0 together."""

    p: float = 2.0
    """Order of the norm, at least 1."""

    def utility(self, x: Any) -> Any:
        """Minus the p-norm over the last axis."""
        size = abs(x)
        if self.p == np.inf:
            return -(size.max(-1) if isinstance(x, np.ndarray) else size.amax(-1))
        return -((size**self.p).sum(-1) ** (1 / self.p))


@dataclass(frozen=True)
class Goal(_Utility):
    """f(x) = 1 if x >= 0, all coordinates of a vector: the chance that the return reaches the goal -c_0."""

    lipschitz = False

    def utility(self, x: Any) -> Any:
        """1.0 or 0.0; of vectors (n, d) where `vector` rewards are solved for, all coordinates count."""
        reached = (x >= 0) * 1.0
        return reached.min(-1) if isinstance(x, np.ndarray) and x.ndim > 1 else reached


@dataclass(frozen=True)
class CVaR:
    """The mean of the worst tau-fraction of outcomes, max_b { b + E min(x - b, 0) / tau }.

    Not indifferent to mixtures itself: `best_cvar` optimises `Shortfall` for every b = -c_0 and takes the best.
    Rockafellar and Uryasev 2000, Optimization of conditional value-at-risk.
    """

    tau: float
    """Fraction of outcomes, in (0, 1]; at 1 this is the mean."""

    indifferent_to_mixtures = False
    indifferent_to_gamma = True
    lipschitz = True
    instead = "best_cvar, which optimises Shortfall() and searches the initial stock"

    def __post_init__(self) -> None:
        _check_tau(self.tau)

    @property
    def inner(self) -> Shortfall:
        """What to optimise for a given b = -c_0."""
        return Shortfall()

    def by_b(self, b: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """What is to be greatest over b, given the worth of `inner` for each."""
        return b + worth / self.tau

    def __call__(self, values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """CVaR of laws on scalars, in units of reward."""
        order = np.argsort(values, kind="stable")
        values, probabilities = values[order], probabilities[..., order]
        # The share of each value within the worst tau: what is left of tau before it, at most its own probability.
        before = probabilities.cumsum(axis=-1) - probabilities
        share = np.clip(self.tau - before, 0.0, probabilities)
        return share @ values / share.sum(axis=-1)


@dataclass(frozen=True)
class OptimisticCVaR:
    """The mean of the best tau-fraction of outcomes, min_b { b + E max(x - b, 0) / tau }.

    Optimised by `best_optimistic_cvar`, and by a mixture of two policies in general.
    """

    tau: float
    """Fraction of outcomes, in (0, 1]; at 1 this is the mean."""

    indifferent_to_mixtures = False
    indifferent_to_gamma = True
    lipschitz = True
    instead = "best_optimistic_cvar, which optimises Excess() and searches the initial stock"

    def __post_init__(self) -> None:
        _check_tau(self.tau)

    @property
    def inner(self) -> Excess:
        """What to optimise for a given b = -c_0."""
        return Excess()

    def by_b(self, b: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """What is to be greatest over b, given the worth of `inner` for each: here the minimum is looked for."""
        return -(b + worth / self.tau)

    def __call__(self, values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Optimistic CVaR of laws on scalars, in units of reward."""
        return -CVaR(self.tau)(-values, probabilities)


@dataclass(frozen=True)
class MeanVariance:
    """Mean minus a penalty times the variance. A measure only: no dynamic programming optimises it."""

    penalty: float = 1.0
    """Price of a unit of variance, in units of 1 / reward."""

    indifferent_to_mixtures = False
    indifferent_to_gamma = False
    lipschitz = False
    instead = "an expected utility with f concave, such as -(x - m)^2 for a target m (ExpectedUtility), or best_cvar"

    def __call__(self, values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Mean - penalty * variance of laws on scalars."""
        mean = probabilities @ values
        return mean - self.penalty * (probabilities @ values**2 - mean**2)


FUNCTIONALS: dict[str, Callable[..., Any]] = {
    "cvar": CVaR,
    "excess": Excess,
    "expected_utility": ExpectedUtility,
    "goal": Goal,
    "homeostasis": Homeostasis,
    "mean": Mean,
    "mean_variance": MeanVariance,
    "optimistic_cvar": OptimisticCVaR,
    "shortfall": Shortfall,
    "target": Target,
}
"""Functionals by name. `FUNCTIONALS["mine"] = Mine` adds one."""


def make_functional(functional: Any) -> Any:
    """A functional from itself, its name in FUNCTIONALS, or `{"name": ..., **arguments}`."""
    if not isinstance(functional, (str, Mapping)):
        return functional
    arguments = {"name": functional} if isinstance(functional, str) else dict(functional)
    name = arguments.pop("name", None)
    if name not in FUNCTIONALS:
        raise unknown_name("functional", name, FUNCTIONALS, f"To add your own: FUNCTIONALS[{name!r}] = Mine.")
    return FUNCTIONALS[name](**arguments)


def describe_functional(functional: Any) -> dict[str, Any]:
    """What `make_functional` makes it from again, as JSON.

    Raises:
        ValueError: if its class is not registered, or it holds a function.
    """
    arguments = {field.name: getattr(functional, field.name) for field in fields(functional)}
    for name, cls in FUNCTIONALS.items():
        if cls is type(functional) and not any(callable(value) for value in arguments.values()):
            return {"name": name, **arguments}
    raise ValueError(
        f"{functional!r} cannot be written as JSON. Make its class a dataclass of numbers and register it: "
        f"FUNCTIONALS['mine'] = {type(functional).__name__}."
    )


def check_optimisable(functional: Functional, gamma: float, *, endless: bool = False) -> None:
    """Says no where dynamic programming over (state, stock) would not be exact.

    Args:
        functional: what to optimise.
        gamma: discount of the problem.
        endless: whether the episodes have no horizon.

    Raises:
        ValueError: naming the condition that fails and what to use in its place.
    """
    failed = ""
    if not functional.indifferent_to_mixtures:
        failed = "is not indifferent to mixtures, so the best continuation depends on outcomes of other branches"
    elif gamma < 1 and not functional.indifferent_to_gamma:
        failed = f"is not indifferent to gamma, and gamma={gamma:g}: discounting would change what is preferred"
    elif endless and not functional.lipschitz:
        raise ValueError(
            f"{functional!r} is not Lipschitz in the law, so a cut-off of endless episodes has no bounded effect. "
            "Give a horizon: the problem with that horizon is solved exactly."
        )
    if failed:
        raise ValueError(f"{functional!r} {failed}. Use instead: {functional.instead}.")


def _check_tau(tau: float) -> None:
    if not 0 < tau <= 1:
        raise ValueError(f"tau={tau} is not a fraction of outcomes, expected a number in (0, 1].")
