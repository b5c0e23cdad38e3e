"""What one would do about risk without a stock: policies of the state alone, and CVaR nested step by step."""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from prefenvs.agents.distributional.exact import Solution, evaluate, markov, value_iteration
from prefenvs.agents.distributional.functionals import CVaR, Shortfall
from prefenvs.agents.distributional.stock_graph import StockGraph
from prefenvs.agents.distributional.tails import cvar_of, shortfall_graph
from prefenvs.tasks.grid.tabular import TabularMDP


def best_markov_cvar(mdp: TabularMDP, tau: float, horizon: int, max_rounds: int = 1000) -> tuple[float, np.ndarray]:
    """The greatest static CVaR among deterministic policies that look at the state alone, and such a policy.

    Branch and bound, best first. The bound of a set of policies is the best CVaR with a stock and the set's actions;
    where its policy takes several actions in one state, the set is split by the action taken there.

    Args:
        mdp: The problem.
        tau: Fraction of worst outcomes, in (0, 1].
        horizon: Steps after which an episode is cut off.
        max_rounds: sets to look at.

    Returns:
        Its value, and (S,) actions.
    """
    graph, unrolled = StockGraph.build(mdp, horizon, [0.0]), shortfall_graph(mdp, horizon)
    count = itertools.count()
    best, found = -np.inf, np.zeros(mdp.num_states, np.int64)
    heap = [(-np.inf, next(count), np.ones((mdp.num_states, mdp.num_actions), bool))]
    for _ in range(max_rounds):
        if not heap or -heap[0][0] <= best + 1e-12 * (1 + abs(best)):
            return best, found
        _, _, allowed = heapq.heappop(heap)
        tail = cvar_of(value_iteration(unrolled, Shortfall(), allowed), tau)
        visits = tail.parts[0].solution.visits(tail.parts[0].start)
        policy = np.where(visits.any(axis=1), visits.argmax(axis=1), allowed.argmax(axis=1))
        value = float(CVaR(tau)(*evaluate(graph, markov(graph, policy)).return_law()))
        if value > best:
            best, found = value, policy
        state = int(np.sort(visits, axis=1)[:, -2].argmax())  # where a second action is taken most often
        if tail.value > best + 1e-12 * (1 + abs(best)):
            for action in np.flatnonzero(allowed[state]):
                fewer = allowed.copy()
                fewer[state] = np.arange(mdp.num_actions) == action
                heapq.heappush(heap, (-tail.value, next(count), fewer))
    raise ValueError(f"{len(heap)} sets of policies are left after {max_rounds} rounds; raise max_rounds.")


def stepwise(graph: StockGraph, policy: np.ndarray) -> Solution:
    """The laws of the returns of a (horizon, S) policy of step and state."""
    return evaluate(graph, [policy[step][level.states] for step, level in enumerate(graph.levels[:-1])])


def nested_cvar(mdp: TabularMDP, tau: float, horizon: int) -> np.ndarray:
    """The policy that maximises CVaR step by step, v(s) = max_a CVaR_tau(r + gamma v(s')), a baseline.

    That is another, more timid objective: it fears bad luck in every single step, and ignores what was earned so far.
    Ruszczynski 2010, Risk-averse dynamic programming for Markov decision processes.

    Returns:
        (horizon, S) action after each number of steps.
    """
    outcomes = mdp.transitions.reshape(-1, mdp.num_states)  # (S * A, S)
    v, policy = np.zeros(mdp.num_states), np.zeros((horizon, mdp.num_states), np.int64)
    for step in reversed(range(horizon)):
        gains = (mdp.rewards + mdp.gamma * np.where(mdp.terminal, 0.0, v)).reshape(outcomes.shape)
        order = np.argsort(gains, axis=-1, kind="stable")
        gains, p = np.take_along_axis(gains, order, -1), np.take_along_axis(outcomes, order, -1)
        share = np.clip(tau - (p.cumsum(axis=-1) - p), 0.0, p)  # of each outcome within the worst tau
        q = ((share * gains).sum(axis=-1) / share.sum(axis=-1)).reshape(mdp.num_states, mdp.num_actions)
        policy[step], v = q.argmax(axis=-1), q.max(axis=-1)
    return policy
