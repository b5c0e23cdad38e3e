"""What a person cares about, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from prefenvs.error import unknown_name
from prefenvs.oracles.hierarchical import Hierarchical
from prefenvs.oracles.partial_return import PartialReturn
from prefenvs.oracles.regret import DeterministicRegret, Regret
from prefenvs.oracles.value_nets import NetworkValues, load_values
from prefenvs.oracles.values import ActionValues, TabularValues, Values, expert_values, shipped_experts
from prefenvs.segments import JudgedSegments


@runtime_checkable
class Utility(Protocol):
    """A preference model that scores segments.

    `reads`, if its class has that, names the fields of JUDGED that it needs, and what it reads of a query's context.
    """

    def utility(self, segments: JudgedSegments) -> np.ndarray:
        """(n, T) utility of each step, or (n, 1) of each whole segment; finite numbers."""


@runtime_checkable
class Comparison(Protocol):
    """A preference model that only compares; its preferences may be intransitive. `reads` as a Utility's."""

    def compare(self, a: JudgedSegments, b: JudgedSegments) -> np.ndarray:
        """(n,) margin in favour of `a`; 0 is a tie, nan a skip."""


PreferenceModel = Utility | Comparison

ORACLES: dict[str, Callable[..., Any]] = {
    "hierarchical": Hierarchical,
    "partial_return": PartialReturn,
    "regret": Regret,
    "deterministic_regret": DeterministicRegret,
}
"""Preference models by name. `ORACLES["mine"] = Mine` adds one."""


def make_oracle(oracle: Any, task: str | None, task_kwargs: Mapping[str, Any] | None = None) -> Any:
    """The preference model that `oracle` names; regret is given the values shipped with the task.

    Values of a trained policy are of states alone, so "regret" then is `DeterministicRegret`.

    Args:
        oracle: a name, `{"name": ..., **arguments}` or a preference model. `values` of a regret oracle may be the path
            of a file that `prefenvs experts train` wrote.
        task: name of a task of the suite; None for an environment of one's own, of which no values are known.
        task_kwargs: what the task was made with.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: if `values` names no file.
        DamagedFile: if that file cannot be read.
        NoExpert: if regret is asked for where no values are known.
        TypeError: if an object is no preference model: it has neither `utility` nor `compare`, or is a class.
    """
    if isinstance(oracle, str):
        oracle = {"name": oracle}
    if isinstance(oracle, Mapping):
        arguments = dict(oracle)
        name = arguments.pop("name", None)
        if name not in ORACLES:
            raise unknown_name("oracle", name, ORACLES, f"To add your own: ORACLES[{name!r}] = MyOracle.")
        if ORACLES[name] in (Regret, DeterministicRegret) and "values" not in arguments:
            arguments["values"] = expert_values(task, task_kwargs)
        elif isinstance(arguments.get("values"), str | Path):
            arguments["values"] = load_values(arguments["values"])
        if set(arguments) == {"values"} and isinstance(arguments["values"], NetworkValues):
            return DeterministicRegret(**arguments)
        if not callable(ORACLES[name]):
            raise TypeError(
                f"ORACLES[{name!r}] is {ORACLES[name]!r}, expected a class or a function that makes one. Pass a "
                "preference model itself as oracle=."
            )
        oracle = ORACLES[name](**arguments)
    if isinstance(oracle, type):
        raise TypeError(f"oracle={oracle!r} is a class, expected a preference model: {oracle.__name__}(...).")
    if not isinstance(oracle, Utility | Comparison):
        raise TypeError(f"oracle={oracle!r} has neither utility(segments) nor compare(a, b).")
    return oracle


__all__ = [
    "ORACLES",
    "ActionValues",
    "Comparison",
    "DeterministicRegret",
    "Hierarchical",
    "NetworkValues",
    "PartialReturn",
    "PreferenceModel",
    "Regret",
    "TabularValues",
    "Utility",
    "Values",
    "expert_values",
    "load_values",
    "make_oracle",
    "shipped_experts",
]
