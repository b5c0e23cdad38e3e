"""Base environments with their true reward. They know nothing of preferences."""

from __future__ import annotations

from prefenvs.tasks.control import CONTROL_TASKS
from prefenvs.tasks.grid import GRID_TASKS
from prefenvs.tasks.task import Score, State, Task, TaskSpec
from prefenvs.tasks.text import TEXT_TASKS

TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in (*CONTROL_TASKS, *GRID_TASKS, *TEXT_TASKS)}
"""Every task by name. Importing this imports no simulator."""

__all__ = ["TASKS", "Score", "State", "Task", "TaskSpec"]
