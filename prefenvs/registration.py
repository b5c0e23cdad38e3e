"""Registers every task with Gymnasium."""

from __future__ import annotations

import gymnasium as gym

from prefenvs.tasks import TASKS


def register_all() -> None:
    """Register `prefenvs/<task>-v<n>` for every task; registering again replaces nothing."""
    for spec in TASKS.values():
        if spec.id not in gym.registry:
            gym.register(
                id=spec.id,
                entry_point="prefenvs.making:make",
                vector_entry_point="prefenvs.vector_env:make_vec" if spec.batched else None,
                kwargs={"task": spec.name},
                max_episode_steps=spec.horizon if spec.time_limit else None,
            )
