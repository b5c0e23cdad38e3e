"""Experience of a `TabularMDP` drawn in one go, without an environment."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.grid.tabular import TabularMDP


def random_segments(
    mdp: TabularMDP, count: int, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments of uniformly random actions, each begun in a state drawn from the start distribution.

    Args:
        mdp: The problem.
        count: How many, n.
        steps: Steps each, T; fewer happen where the episode ends.
        rng: Draws starts, actions and what follows.

    Returns:
        States (n, T + 1), actions (n, T), and a mask (n, T) of the steps that happened: entering a terminal state is
        the last one, and what stands after it means nothing.
    """
    states = np.zeros((count, steps + 1), np.int64)
    states[:, 0] = rng.choice(mdp.num_states, size=count, p=mdp.start)
    actions = rng.integers(mdp.num_actions, size=(count, steps))
    cumulated = mdp.transitions.cumsum(-1)
    cumulated /= cumulated[..., -1:]  # ends at exactly 1, so that a draw below 1 falls on a possible state
    for t in range(steps):
        drawn = rng.random((count, 1))
        states[:, t + 1] = (cumulated[states[:, t], actions[:, t]] <= drawn).sum(-1)
    ended = np.logical_or.accumulate(mdp.terminal[states[:, :-1]], axis=1)
    return states, actions, ~ended
