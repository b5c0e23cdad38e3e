"""Optimal values, which regret is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from prefenvs.error import NoExpert
from prefenvs.segments import Arrays


class Values(Protocol):
    """State and action values of a good policy for the true reward."""

    @property
    def gamma(self) -> float:
        """Discount the values were computed with."""

    @property
    def source(self) -> str:
        """Where they come from."""

    def v(self, observations: Arrays) -> np.ndarray:
        """(n, ...) observations of the task to (n, ...) values, in units of return."""

    def q(self, observations: Arrays, actions: Arrays) -> np.ndarray:
        """(n, ...) observations and actions to (n, ...) values, in units of return."""


@dataclass(frozen=True)
class TabularValues:
    """Exact values of a finite Markov decision process."""

    state_values: np.ndarray
    """(S,)."""
    action_values: np.ndarray
    """(S, A)."""
    gamma: float
    source: str = "exact"

    def v(self, observations: Arrays) -> np.ndarray:
        """Values of integer states of any shape."""
        return self.state_values[np.asarray(observations)]

    def q(self, observations: Arrays, actions: Arrays) -> np.ndarray:
        """Values of integer states and actions of one shape."""
        return self.action_values[np.asarray(observations), np.asarray(actions)]


def expert_values(task: str, task_kwargs: Mapping[str, Any] | None = None) -> Values:
    """The values shipped with a task: exact on grids, trained networks on some control tasks.

    Raises:
        NoExpert: naming the command that trains them.
    """
    from prefenvs.preference_env import make_task
    from prefenvs.tasks import TASKS

    if task in TASKS and TASKS[task].entry_point.startswith("prefenvs.tasks.grid"):
        from prefenvs.tasks.grid.solvers import value_iteration

        base: Any = make_task(TASKS[task], task_kwargs=task_kwargs)
        v, q = value_iteration(base.mdp)
        return TabularValues(v, q, float(base.mdp.gamma))
    if task in TASKS and TASKS[task].exact_values:
        return make_task(TASKS[task], task_kwargs=task_kwargs).optimal_values()
    raise NoExpert(
        f"no optimal values are known for {task!r}, so regret cannot be measured. "
        "Pass oracle=Regret(values=...) with your own v(obs) and q(obs, act)."
    )
