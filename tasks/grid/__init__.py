"""Grid worlds: tabular Markov decision processes with exact solutions."""

from __future__ import annotations

from prefenvs.tasks.task import TaskSpec

GRID_TASKS: tuple[TaskSpec, ...] = ()
