"""Exact distributional dynamic programming over (state, stock): value iteration and policy iteration.

eta(s, c) is the law of the return from a state and a stock of past rewards, c' = (c + r) / gamma. Value iteration backs
up (B eta)(s, c, a) = law(r + gamma G'), G' ~ eta(s', c'), and takes argmax_a K(law(c + G)). Pires et al. 2025,
arXiv:2501.13028. Here laws are those of c_0 + G_0 on the graph's atoms, gamma^t times law(c + G) at a pair met after t
steps, so that a backup mixes the laws of the successors and nothing is shifted or scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefenvs.agents.distributional.functionals import Functional, check_optimisable
from prefenvs.agents.distributional.stock_graph import Level, StockGraph

Law = tuple[np.ndarray, np.ndarray]
"""Values (n,) or (n, d), all different, and their probabilities (n,), none 0."""
Policy = Sequence[np.ndarray]
"""A level's action (n,) or action probabilities (n, A), for each step."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A policy over (step, state, stock) with the laws of its returns.

    Example:
        >>> from prefenvs.agents.distributional import Target, StockGraph, value_iteration
        >>> from prefenvs.tasks.grid.windy import windy_world
        >>> graph = StockGraph.build(windy_world().mdp, horizon=12, stocks=[4.0, 7.0])
        >>> value_iteration(graph, Target()).start_values(Target()).round(3)   # how near the returns are to -4 and -7
        array([-4.058, -3.153])
    """

    graph: StockGraph
    policy: tuple[np.ndarray, ...]
    """What to do at each pair of each level but the last."""
    laws: tuple[np.ndarray, ...]
    """(n, m) probability of each of the graph's atoms from each pair, level by level."""

    def start_laws(self) -> np.ndarray:
        """(k, m) probability of each atom from each initial stock, over the MDP's start states."""
        return self.graph.start @ self.laws[0]

    def start_values(self, functional: Functional) -> np.ndarray:
        """(k,) worth of law(c_0 + G_0) for each initial stock."""
        return functional(self.graph.atoms, self.start_laws())

    def return_law(self, start: int = 0) -> Law:
        """The law of the return G_0 from the `start`-th initial stock."""
        probabilities = self.start_laws()[start]
        values = self.graph.atoms - self.graph.initial[start]
        return values[probabilities > 0], probabilities[probabilities > 0]

    def visits(self, start: int = 0) -> np.ndarray:
        """(S, A) expected number of times that each action is taken in each state, from one initial stock."""
        mdp, levels = self.graph.mdp, self.graph.levels
        visits = np.zeros((mdp.num_states, mdp.num_actions))
        here = self.graph.start[start]  # (n,) probability of each pair
        for level, after, choice in zip(levels[:-1], levels[1:], self.policy, strict=True):
            taken = np.eye(mdp.num_actions)[choice] if choice.ndim == 1 else choice
            taken = taken * (here * (level.atoms < 0))[:, None]  # (n, A)
            np.add.at(visits, level.states, taken)
            flows = taken[:, :, None] * level.probabilities  # (n, A, m)
            here = np.bincount(level.successors.ravel(), weights=flows.ravel(), minlength=len(after.states))
        return visits

    def action(self, step: int, state: int, stock: float | np.ndarray) -> int:
        """What to do after so many steps in a state with a stock.

        Raises:
            KeyError: That pair cannot occur then.
        """
        level = self.graph.levels[step]
        here = np.flatnonzero((level.states == state) & (level.stocks == stock).all(axis=1))
        if not here.size or step == self.graph.horizon:
            raise KeyError(f"state {state} with stock {stock} does not occur after {step} steps")
        return int(self.policy[step][here[0]])


def value_iteration(graph: StockGraph, functional: Functional, allowed: np.ndarray | None = None) -> Solution:
    """The best policy for K(law(c + G)) from every state and stock of the graph, by one sweep backwards.

    Args:
        graph: The unrolled problem.
        functional: K.
        allowed: (S, A) bool, actions that may be taken, at least one a state; by default all.

    Raises:
        ValueError: K is not one that dynamic programming optimises; says why and what to use.
    """
    check_optimisable(functional, graph.mdp.gamma)
    laws, policy = [_ended(graph, graph.levels[-1])], list[np.ndarray]()
    for step in reversed(range(graph.horizon)):
        level = graph.levels[step]
        choices = _action_laws(level, laws[0])
        actions = _scores(graph, functional, step, choices, allowed).argmax(axis=-1)
        laws.insert(0, _ended(graph, level, choices[np.arange(len(actions)), actions]))
        policy.insert(0, actions)
    return Solution(graph, tuple(policy), tuple(laws))


def policy_iteration(graph: StockGraph, functional: Functional, max_rounds: int = 1000) -> Solution:
    """The same by evaluating a policy, improving it greedily everywhere at once, and so on until nothing improves.

    Starts from action 0 everywhere. A round settles at least one more step from the end, so the horizon bounds them.

    Raises:
        ValueError: As `value_iteration`.
    """
    check_optimisable(functional, graph.mdp.gamma)
    policy = [np.zeros(len(level.states), np.int64) for level in graph.levels[:-1]]
    for _ in range(max_rounds):
        solution, changed = evaluate(graph, policy), False
        for step, level in enumerate(graph.levels[:-1]):
            scores = _scores(graph, functional, step, _action_laws(level, solution.laws[step + 1]))
            present = np.take_along_axis(scores, policy[step][:, None], axis=-1)[:, 0]
            better = scores.max(axis=-1) > present + 1e-12 * (1 + np.abs(present))  # ties keep what is done
            policy[step] = np.where(better, scores.argmax(axis=-1), policy[step])
            changed |= bool(better.any())
        if not changed:
            return solution
    raise ValueError(f"the policy still improves after {max_rounds} rounds; raise max_rounds.")


def evaluate(graph: StockGraph, policy: Policy) -> Solution:
    """The laws of the returns of a policy; see `markov` for one that looks at the state alone."""
    laws = [_ended(graph, graph.levels[-1])]
    for level, choice in zip(reversed(graph.levels[:-1]), reversed(policy), strict=True):
        choices = _action_laws(level, laws[0])
        if choice.ndim == 1:
            mixed = choices[np.arange(len(choice)), choice]
        else:
            mixed = np.einsum("na,nam->nm", choice, choices)
        laws.insert(0, _ended(graph, level, mixed))
    return Solution(graph, tuple(policy), tuple(laws))


def markov(graph: StockGraph, policy: np.ndarray) -> Policy:
    """A policy of the state alone, (S,) actions or (S, A) probabilities, at every pair of the graph."""
    return [policy[level.states] for level in graph.levels[:-1]]


def _action_laws(level: Level, after: np.ndarray) -> np.ndarray:
    """(n, A, m) law that each action leads to, given those (n', m) of the next level."""
    laws = np.zeros((*level.probabilities.shape[:2], after.shape[1]))
    for j in range(level.probabilities.shape[2]):  # outcomes of an action, a few
        laws += level.probabilities[:, :, j, None] * after[level.successors[:, :, j]]
    return laws


def _scores(
    graph: StockGraph, functional: Any, step: int, laws: np.ndarray, allowed: np.ndarray | None = None
) -> np.ndarray:
    """(n, A) worth of law(c + G) of each action; -inf where it is not allowed."""
    scores = functional(graph.atoms / graph.mdp.gamma**step, laws)
    if np.shape(scores) != laws.shape[:2]:
        raise ValueError(
            f"{functional!r} gave shape {np.shape(scores)} for laws on values {graph.atoms.shape}, expected "
            f"{laws.shape[:2]}. Vector rewards need a functional of vectors, such as Homeostasis, and scalar ones not."
        )
    return scores if allowed is None else np.where(allowed[graph.levels[step].states], scores, -np.inf)


def _ended(graph: StockGraph, level: Level, laws: np.ndarray | None = None) -> np.ndarray:
    """(n, m) laws, certain where the episode is over."""
    laws = np.zeros((len(level.states), len(graph.atoms))) if laws is None else laws
    over = np.flatnonzero(level.atoms >= 0)
    laws[over] = 0.0
    laws[over, level.atoms[over]] = 1.0
    return laws
