"""Every (state, stock) that an episode of a tabular problem can pass through, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefenvs.tasks.grid.tabular import TabularMDP

MAX_PAIRS, MAX_ENTRIES = 300_000, 200_000_000
"""Pairs of state and stock in one step, and probabilities that their laws may hold together (1.6 GB)."""


@dataclass(frozen=True, eq=False)
class Level:
    """The pairs of state and stock that can occur after some number of steps."""

    states: np.ndarray
    """(n,) state of each pair."""
    stocks: np.ndarray
    """(n, d) stock of each pair, in units of reward at that step."""
    successors: np.ndarray
    """(n, A, m) index in the next level of each outcome of each action; 0 where the probability is."""
    probabilities: np.ndarray
    """(n, A, m) of those outcomes; all 0 where the episode is over."""
    atoms: np.ndarray
    """(n,) index in the graph's atoms where the episode is over, else -1."""


@dataclass(frozen=True, eq=False)
class StockGraph:
    """A finite-horizon problem unrolled over (state, stock), with c' = (c + r) / gamma.

    c_0 + G_0 = gamma^t (c_t + G_t), so the law of c + G at a pair is gamma^-t times a law on the same `atoms`
    everywhere: backups only mix. No value is rounded or projected. Stocks are told apart by the bits of their floats:
    where rewards are multiples of one power of two and gamma = 1, equal sums meet in one pair; elsewhere rounding may
    keep two apart, which costs time and memory but no accuracy.

    Example:
        >>> from prefenvs.tasks.grid.windy import windy_world
        >>> graph = StockGraph.build(windy_world().mdp, horizon=50, stocks=[0.0])
        >>> float(graph.atoms.max())                       # eight moves at -1, then the goal
        2.0
    """

    mdp: TabularMDP
    levels: tuple[Level, ...]
    """horizon + 1 of them; the first holds every start state with every initial stock."""
    atoms: np.ndarray
    """(m, d) or, for scalar rewards, (m,) every value that c_0 + G_0 can take."""
    initial: np.ndarray
    """(k, d) or (k,) the initial stocks."""
    start: np.ndarray
    """(k, n_0) probability of each pair of the first level, for each initial stock."""

    @property
    def horizon(self) -> int:
        """Steps after which an episode is cut off."""
        return len(self.levels) - 1

    @classmethod
    def build(
        cls, mdp: TabularMDP, horizon: int, stocks: Sequence[float] | np.ndarray, rewards: np.ndarray | None = None
    ) -> StockGraph:
        """Unroll a problem.

        Args:
            mdp: The problem; its discount is that of the stock.
            horizon: Steps after which an episode is cut off.
            stocks: (k,) or (k, d) initial stocks, all different.
            rewards: (S, A, S) or (S, A, S, d) in place of the MDP's own, such as `mdp.features` for vector rewards.

        Raises:
            ValueError: Shapes do not fit, or there are more pairs than memory holds.
        """
        rewards = mdp.rewards if rewards is None else np.asarray(rewards, dtype=float)
        scalar = rewards.ndim == 3
        initial = np.asarray(stocks, dtype=float) + 0.0  # turns -0.0 into 0.0
        size = () if scalar else rewards.shape[3:]
        if rewards.shape[:3] != mdp.transitions.shape or initial.ndim != 1 + len(size) or initial.shape[1:] != size:
            raise ValueError(
                f"stocks has shape {initial.shape} and rewards {rewards.shape}, expected (k, *d) and "
                f"{(*mdp.transitions.shape, '*d')} with the same d, which scalar rewards do not have."
            )
        if len(_unique_rows(initial.reshape(len(initial), -1))[0]) != len(initial):
            raise ValueError("stocks holds a value twice; give each initial stock once.")
        if horizon < 1:
            raise ValueError(f"horizon={horizon} leaves no step, expected at least 1.")
        flat = initial.reshape(len(initial), -1)
        outcomes = _outcomes(mdp, rewards.reshape(*mdp.transitions.shape, -1))
        starts = np.flatnonzero(mdp.start)
        states, stocks = np.tile(starts, len(flat)), np.repeat(flat, len(starts), axis=0)
        steps = []
        for _ in range(horizon):
            successors, probabilities, *after = _expand(mdp, outcomes, states, stocks)
            steps.append((states, stocks, successors, probabilities))
            states, stocks = after
            _check_size(len(states), mdp.num_actions, 1)
        nothing = np.zeros((len(states), mdp.num_actions, 1))
        steps.append((states, stocks, nothing.astype(np.int64), nothing))
        atoms, places = _ends(mdp, steps)
        levels = tuple(Level(*step, place) for step, place in zip(steps, places, strict=True))
        start = np.kron(np.eye(len(flat)), mdp.start[starts])
        return cls(mdp, levels, atoms[:, 0] if scalar else atoms, initial, start)


def truncation(mdp: TabularMDP, horizon: int, rewards: np.ndarray | None = None) -> float:
    """The most that returns of endless episodes can differ from those cut off at a horizon, |G - G_H|.

    gamma^H max|r| / (1 - gamma): a bound on the 1-Wasserstein distance of the laws too, and so, times its Lipschitz
    constant, on the functional. Infinite where gamma = 1.
    """
    r = np.abs(mdp.rewards if rewards is None else rewards)[mdp.transitions > 0].max()
    return float(np.inf) if mdp.gamma == 1 else float(mdp.gamma**horizon * r / (1 - mdp.gamma))


def _outcomes(mdp: TabularMDP, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S, A, m) next states with their (S, A, m) probabilities and (S, A, m, d) rewards, m as small as it can be."""
    m = int((mdp.transitions > 0).sum(axis=-1).max())
    ends = np.argsort(mdp.transitions == 0, axis=-1, kind="stable")[..., :m]
    going_on = np.where(mdp.terminal[:, None, None], 0.0, mdp.transitions)
    return (
        ends,
        np.take_along_axis(going_on, ends, axis=-1),
        np.take_along_axis(rewards, ends[..., None], axis=2),
    )


def _expand(
    mdp: TabularMDP, outcomes: tuple[np.ndarray, np.ndarray, np.ndarray], states: np.ndarray, stocks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Successors (n, A, m), probabilities (n, A, m), and the next level's states (n',) and stocks (n', d)."""
    ends, probabilities, rewards = (array[states] for array in outcomes)
    after = (stocks[:, None, None] + rewards) / mdp.gamma + 0.0  # (n, A, m, d)
    possible = probabilities > 0
    values, value = _unique_rows(after[possible])
    codes, inverse = np.unique(ends[possible] * max(len(values), 1) + value, return_inverse=True)
    successors = np.zeros(probabilities.shape, np.int64)
    successors[possible] = inverse
    state, value = np.divmod(codes, max(len(values), 1))
    return successors, probabilities, state, values[value]


def _unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of (n, d), sorted, and (n,) which of them each row is."""
    if rows.shape[1] == 1:
        values, inverse = np.unique(rows[:, 0], return_inverse=True)
        return values[:, None], inverse
    values, inverse = np.unique(rows, axis=0, return_inverse=True)
    return values, inverse.reshape(-1)


def _ends(mdp: TabularMDP, steps: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(m, d) values of c_0 + G_0 over all pairs where an episode can end, and which of them each pair is, or -1."""
    over = [mdp.terminal[step[0]] for step in steps]
    over[-1] = np.ones_like(over[-1])
    totals = [mdp.gamma**t * step[1][end] for t, (step, end) in enumerate(zip(steps, over, strict=True))]
    atoms, place = _unique_rows(np.concatenate(totals))
    _check_size(max(len(end) for end in over), mdp.num_actions, len(atoms))
    places = [np.full(len(end), -1) for end in over]
    for here, end, part in zip(places, over, np.split(place, np.cumsum([len(t) for t in totals])[:-1]), strict=True):
        here[end] = part
    return atoms, places


def _check_size(pairs: int, actions: int, atoms: int) -> None:
    if pairs > MAX_PAIRS or pairs * actions * atoms > MAX_ENTRIES:
        raise ValueError(
            f"the problem has {pairs:,} pairs of state and stock in one step, too many for exact laws. Shorten the "
            "horizon, give fewer initial stocks, use gamma=1, or round the rewards to multiples of a coarser unit, so "
            "that sums meet."
        )
