"""Playing a batch of preference environments and keeping what was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from prefenvs.labelling import feedback
from prefenvs.segment_store import SegmentStore


def collect(envs: Any, act: Callable[[np.ndarray], np.ndarray], steps: int, *, seed: int | None = None) -> SegmentStore:
    """Play for some steps in each stream and keep the segments that can be asked about.

    Args:
        envs: a Gymnasium vector environment of preference environments.
        act: (n, ...) observations to (n, ...) actions.
        steps: of each stream, from its reset on.
        seed: of the reset.

    Returns:
        The store to draw queries from: `Query(store.sample(2 * n, steps, rng))`.

    Example:
        >>> import gymnasium as gym, numpy as np, prefenvs
        >>> envs = gym.make_vec("prefenvs/Pendulum-v0", num_envs=4, budget=10)
        >>> store = prefenvs.collect(envs, lambda observations: np.zeros((4, 1), np.float32), 50, seed=0)
        >>> query = prefenvs.Query(store.sample(20, steps=25, rng=np.random.default_rng(0)))
        >>> prefenvs.feedback(envs).ask(query).choice.shape
        (10, 2)
    """
    spaces = envs.single_observation_space, envs.single_action_space
    store = SegmentStore(*spaces, envs.num_envs, episodes=feedback(envs).recorded_episodes)
    observations, _ = envs.reset(seed=seed)
    for _ in range(steps):
        actions = act(observations)
        after, _, terminated, truncated, info = envs.step(actions)
        store.add(observations, actions, after, terminated, truncated, np.asarray(info["segment_id"]))
        observations = after
    return store
