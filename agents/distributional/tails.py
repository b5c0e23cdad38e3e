"""Optimal tails: the policies of greatest CVaR and optimistic CVaR, by a search over the initial stock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prefenvs.agents.distributional.exact import Law, Solution, value_iteration
from prefenvs.agents.distributional.functionals import CVaR, Excess, OptimisticCVaR, Shortfall
from prefenvs.agents.distributional.stock_graph import StockGraph
from prefenvs.tasks.grid.tabular import TabularMDP


@dataclass(frozen=True, eq=False)
class Part:
    """A policy that is followed from its own initial stock."""

    weight: float
    """Probability of following it for a whole episode."""
    initial_stock: float
    """c_0 = -b."""
    solution: Solution
    start: int
    """Which of the solution's initial stocks c_0 is."""


@dataclass(frozen=True, eq=False)
class TailSolution:
    """The optimum: one policy, or for the optimistic tail a mixture of two, drawn before the episode."""

    value: float
    """The (optimistic) CVaR of its return, in units of reward."""
    parts: tuple[Part, ...]

    def return_law(self) -> Law:
        """The law of the return G_0."""
        laws = [part.solution.return_law(part.start) for part in self.parts]
        values, place = np.unique(np.concatenate([law[0] for law in laws]), return_inverse=True)
        weights = np.concatenate([part.weight * law[1] for part, law in zip(self.parts, laws, strict=True)])
        return values, np.bincount(place, weights)


def shortfall_graph(mdp: TabularMDP, horizon: int) -> StockGraph:
    """The problem unrolled from every threshold b that the return can be at all, c_0 = -b.

    Args:
        mdp: The problem; the return is discounted by its gamma.
        horizon: Steps after which an episode is cut off.
    """
    return StockGraph.build(mdp, horizon, -StockGraph.build(mdp, horizon, [0.0]).atoms)


def cvar_of(shortfalls: Solution, tau: float) -> TailSolution:
    """The best tau-CVaR, from the solution of a `shortfall_graph` for `Shortfall()`: one serves every tau."""
    CVaR(tau)  # refuses what is no fraction
    values = -shortfalls.graph.initial + shortfalls.start_values(Shortfall()) / tau
    best = int(values.argmax())
    return TailSolution(float(values[best]), (Part(1.0, float(shortfalls.graph.initial[best]), shortfalls, best),))


def best_cvar(mdp: TabularMDP, tau: float, horizon: int) -> TailSolution:
    """The greatest static CVaR of the return that any history-dependent policy has, and a policy that has it.

    max_b { b + max_pi E min(G - b, 0) / tau }: for a fixed policy the best b is one of its returns, so trying the
    returns that are possible at all is exact. CVaR is convex in the law, so no randomised policy does better.
    Bauerle and Ott 2011, Markov decision processes with average-value-at-risk criteria; Pires et al. 2025,
    arXiv:2501.13028.

    Args:
        mdp: The problem; the return is discounted by its gamma.
        tau: Fraction of worst outcomes, in (0, 1].
        horizon: Steps after which an episode is cut off.
    """
    return cvar_of(value_iteration(shortfall_graph(mdp, horizon), Shortfall()), tau)


def best_optimistic_cvar(mdp: TabularMDP, tau: float, horizon: int, max_rounds: int = 1000) -> TailSolution:
    """The greatest mean of the best tau-fraction of outcomes over all policies, randomised ones included.

    min_b max_pi { b + E max(G - b, 0) / tau }. This functional is concave in the law, so the optimum may be a mixture
    of two policies and the minimax theorem allows to take the minimum outside. It is convex and piecewise linear in b,
    but bends also between the returns; intersecting the tangents left and right of the minimum finds it in finitely
    many rounds.

    Args:
        mdp: The problem; the return is discounted by its gamma.
        tau: Fraction of best outcomes, in (0, 1].
        horizon: Steps after which an episode is cut off.
        max_rounds: of intersecting tangents.
    """
    OptimisticCVaR(tau)
    bounds = StockGraph.build(mdp, horizon, [0.0]).atoms
    left, right = (_tangent(mdp, tau, horizon, bound) for bound in (bounds[0] - 1.0, bounds[-1]))
    for _ in range(max_rounds):
        b = (right[1] - right[2] * right[0] - left[1] + left[2] * left[0]) / (left[2] - right[2])
        model = left[1] + left[2] * (b - left[0])
        middle = _tangent(mdp, tau, horizon, b)
        if middle[2] == 0 or middle[1] <= model + 1e-12 * (1 + abs(model)):
            break
        left, right = (middle, right) if middle[2] < 0 else (left, middle)
    else:
        raise ValueError(f"the minimum over b is not settled after {max_rounds} rounds; raise max_rounds.")
    if middle[2] == 0:
        return TailSolution(middle[1], (Part(1.0, -middle[0], middle[3], 0),))
    weight = right[2] / (right[2] - left[2])  # the mixture's slope is 0, so b is its quantile
    parts = (Part(weight, -left[0], left[3], 0), Part(1 - weight, -right[0], right[3], 0))
    return TailSolution(middle[1], tuple(part for part in parts if part.weight > 0))


def _tangent(mdp: TabularMDP, tau: float, horizon: int, b: float) -> tuple[float, float, float, Solution]:
    """b, the greatest b + E max(G - b, 0) / tau, a slope of that in b, and the policy that both are of."""
    solution = value_iteration(StockGraph.build(mdp, horizon, [-b]), Excess())
    above = float(solution.start_laws()[0, solution.graph.atoms > 0].sum())
    return float(b), float(b + solution.start_values(Excess())[0] / tau), 1 - above / tau, solution
