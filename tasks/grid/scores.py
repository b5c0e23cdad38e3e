"""Computes the scores that the grid tasks' registry states: `python -m prefenvs.tasks.grid.scores`."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from prefenvs.tasks.grid import GRID_TASKS
from prefenvs.tasks.grid.env import GridTask
from prefenvs.tasks.grid.solvers import undiscounted_optimum
from prefenvs.tasks.grid.tabular import TabularMDP
from prefenvs.tasks.task import TaskSpec


def make_task(spec: TaskSpec) -> GridTask:
    """The task that a line of the registry describes, without a step limit."""
    module, name = spec.entry_point.split(":")
    return getattr(import_module(module), name)(**spec.kwargs)


def random_return_moments(mdp: TabularMDP, horizon: int) -> tuple[float, float]:
    """Mean and standard deviation of the true return of uniformly random actions, not discounted.

    Exact, by backward induction on the first two moments of the return G = r + G':
    E[G] = E[r + E[G']] and E[G^2] = E[r^2 + 2 r E[G'] + E[G'^2]]. A lucky hundred episodes of a lottery mislead.

    Args:
        mdp: The problem; its discount is ignored.
        horizon: Steps after which an episode is cut off.

    Returns:
        In units of reward.
    """
    alive, r = ~mdp.terminal, mdp.rewards
    first, second = np.zeros(mdp.num_states), np.zeros(mdp.num_states)
    for _ in range(horizon):
        squares = (mdp.transitions * (r**2 + 2 * r * first + second)).sum(axis=-1).mean(axis=-1) * alive  # (S,)
        first = (mdp.transitions * (r + first)).sum(axis=-1).mean(axis=-1) * alive
        second = squares
    mean = mdp.start @ first
    return float(mean), float(np.sqrt(mdp.start @ second - mean**2))


if __name__ == "__main__":
    for spec in GRID_TASKS:
        mdp = make_task(spec).mdp
        mean, sd = random_return_moments(mdp, spec.horizon)
        print(f"{spec.name}: random {mean:.4f} sd {sd:.4f}, optimum {undiscounted_optimum(mdp, spec.horizon):.4f}")
