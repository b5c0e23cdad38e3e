"""Playing a batch of preference environments and keeping what was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from prefenvs.labelling import feedback
from prefenvs.segment_store import SegmentStore
from prefenvs.segments import Arrays, map_arrays


def collect(envs: Any, act: Callable[[np.ndarray], np.ndarray], steps: int, *, seed: int | None = None) -> SegmentStore:
    """Play for some steps in each stream and keep the segments that can be asked about.

    Args:
        envs: a Gymnasium vector environment of preference environments, in any autoreset mode.
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
    asked = feedback(envs)
    store = SegmentStore(*spaces, envs.num_envs, episodes=asked.recorded_episodes, task=asked.task)
    observations, _ = envs.reset(seed=seed)
    for _ in range(steps):
        actions = act(observations)
        after, _, terminated, truncated, info = envs.step(actions)
        ends, ids = step_ends(after, info)
        store.add(observations, actions, ends, terminated, truncated, ids)
        over = terminated | truncated
        if over.any() and envs.metadata.get("autoreset_mode") is AutoresetMode.DISABLED:
            after, _ = envs.reset(options={"reset_mask": over})
        observations = after
    return store


def step_ends(after: Arrays, infos: dict[str, Any]) -> tuple[Arrays, np.ndarray]:
    """How a step of a batch ended, for `SegmentStore.add`: what `step` returned, but for SAME_STEP autoreset.

    There the observations and ids that `step` returns are those of the episodes that begin, and how the others ended is
    in `infos["final_obs"]` and `infos["final_info"]`.

    Args:
        after: (E, *obs) that `envs.step` returned.
        infos: beside them.

    Returns:
        (E, *obs) that followed the actions, the terminal ones included, and (E, 3) their ids.
    """
    ids = np.asarray(infos["segment_id"])
    if "final_obs" not in infos:
        return after, ids
    over = infos["_final_obs"]
    final, ends = infos["final_obs"][over], map_arrays(np.array, after)
    if isinstance(ends, dict):
        for key, array in ends.items():
            array[over] = [observation[key] for observation in final]
    else:
        ends[over] = list(final)
    return ends, np.where(over[:, None], infos["final_info"]["segment_id"], ids)
