"""Registers tasks with Gymnasium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from prefenvs.calibration import forget_reference_sets
from prefenvs.tasks import TASKS
from prefenvs.tasks.task import TaskSpec

_SUITE = frozenset(TASKS)


def register_all() -> None:
    """Register `prefenvs/<task>-v<n>` for every task; registering again replaces nothing."""
    for spec in TASKS.values():
        if spec.id not in gym.registry:
            _register(spec)


def register(spec: TaskSpec) -> None:
    """Add a task of your own: `gym.make` and `gym.make_vec` know it by `spec.id`, and all else by its name.

    Another process has to import the module that calls this: `gym.make("my_module:prefenvs/TextMine-v0")` does, and so
    does `prefenvs eval --env my_module:prefenvs/TextMine-v0`. Pickled environments and workers of runs bring it along.

    Args:
        spec: as of the suite's tasks; `prefenvs.tasks.text.text_spec` makes that of a text task. One of the same name
            that was registered before is replaced, with its id.

    Raises:
        ValueError: if a task of the suite has this name. Nothing was registered.
        gymnasium.error.Error: if Gymnasium takes no such id. Nothing was registered.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.tasks.text import text_spec
        >>> prefenvs.register(text_spec("TextMine", "my_module:TextMine", 3, ("good",)))             # doctest: +SKIP
        >>> envs = gym.make_vec("prefenvs/TextMine-v0", num_envs=64, view="completion")              # doctest: +SKIP
    """
    if spec.name in _SUITE:
        raise ValueError(f"name={spec.name!r} is a task of the suite; choose another. Nothing was registered.")
    gym.registry.pop(spec.id, None)
    _register(spec)
    old = TASKS.get(spec.name, spec)
    if old.id != spec.id:
        gym.registry.pop(old.id, None)
    TASKS[spec.name] = spec
    forget_reference_sets()


def own_tasks() -> tuple[TaskSpec, ...]:
    """What was registered beside the suite, which a new process does not know."""
    return tuple(spec for name, spec in TASKS.items() if name not in _SUITE)


def reduced(make: Callable[..., Any], arguments: dict[str, Any], spec: Any) -> tuple[Any, ...]:
    """What `__reduce__` of an environment returns, for one that is made anew, of a task of one's own too."""
    own = [task for task in own_tasks() if task.name == arguments.get("task")]
    return _make_anew, (make, arguments, spec, *own)


def _make_anew(make: Callable[..., Any], arguments: dict[str, Any], spec: Any, own: TaskSpec | None = None) -> Any:
    if own is not None and own.name not in TASKS:
        register(own)
    env = make(**arguments)
    env.spec = spec
    return env


def _register(spec: TaskSpec) -> None:
    gym.register(
        id=spec.id,
        entry_point="prefenvs.making:make",
        vector_entry_point="prefenvs.vector_env:make_vec" if spec.batched else None,
        kwargs={"task": spec.name},
        max_episode_steps=spec.horizon if spec.time_limit else None,
    )
