"""Optimal values, which regret is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.spaces import Box

from prefenvs.error import NoExpert
from prefenvs.oracles.value_nets import load_values
from prefenvs.segments import Arrays

if TYPE_CHECKING:
    from prefenvs.tasks.grid.tabular import TabularMDP

EXPERTS_FOLDER = Path(__file__).with_name("experts")
"""Where the shipped files lie, one a task."""


class Values(Protocol):
    """State values of a good policy for the true reward."""

    @property
    def gamma(self) -> float:
        """Discount the values were computed with."""

    @property
    def source(self) -> str:
        """Where they come from."""

    def v(self, observations: Arrays) -> np.ndarray:
        """(n, ...) observations of the task to (n, ...) values, in units of return."""


@runtime_checkable
class ActionValues(Values, Protocol):
    """State and action values of a good policy for the true reward."""

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

    @staticmethod
    def of(mdp: TabularMDP) -> TabularValues:
        """The optimal values of a problem."""
        from prefenvs.tasks.grid.solvers import policy_iteration

        return TabularValues(*policy_iteration(mdp), mdp.gamma)

    def v(self, observations: Arrays) -> np.ndarray:
        """Values of integer states of any shape."""
        return self.state_values[np.asarray(observations)]

    def q(self, observations: Arrays, actions: Arrays) -> np.ndarray:
        """Values of integer states and actions of one shape."""
        return self.action_values[np.asarray(observations), np.asarray(actions)]


def expert_values(task: str | None, task_kwargs: Mapping[str, Any] | None = None) -> Values:
    """The values shipped with a task: exact on grids and small text tasks, of a trained policy on some control tasks.

    The latter are values of a good policy and not of an optimal one: `NetworkValues.facts` has its score beside the
    task's reference score.

    Args:
        task: name of a task of the suite; None for an environment of one's own.
        task_kwargs: what it was made with.

    Raises:
        NoExpert: naming the command that trains them, where actions are continuous.
        DamagedFile: if the file cannot be read.
    """
    from prefenvs.making import changed_arguments, make_task
    from prefenvs.tasks import TASKS

    if task in TASKS and TASKS[task].entry_point.startswith("prefenvs.tasks.grid"):
        from prefenvs.tasks.grid.solvers import value_iteration

        base: Any = make_task(TASKS[task], task_kwargs=task_kwargs)
        v, q = value_iteration(base.mdp)
        return TabularValues(v, q, float(base.mdp.gamma))
    if task in TASKS and TASKS[task].exact_values:
        return make_task(TASKS[task], task_kwargs=task_kwargs).optimal_values()
    changed = sorted(changed_arguments(TASKS[task], task_kwargs)) if task in TASKS else []
    if task in shipped_experts() and not changed:
        return load_values(EXPERTS_FOLDER / f"{task}.safetensors")
    trainable = task in TASKS and isinstance(make_task(TASKS[task], task_kwargs=task_kwargs).action_space, Box)
    how = (
        f"Train them: prefenvs experts train --env {task} --out FILE, then "
        'oracle={"name": "regret", "values": FILE}; or pass '
        if trainable and not changed
        else "Pass "
    )
    raise NoExpert(
        f"no optimal values are known for {'an environment of your own' if task is None else repr(task)}"
        f"{' with other ' + ', '.join(changed) if changed else ''}, so regret cannot be measured. {how}"
        "oracle=Regret(values=...) with your own v(obs) and q(obs, act), or DeterministicRegret with v(obs) alone."
    )


def shipped_experts() -> tuple[str, ...]:
    """Names of the tasks whose values come with the library as a file, in order."""
    return tuple(sorted(path.stem for path in EXPERTS_FOLDER.glob("*.safetensors")))
