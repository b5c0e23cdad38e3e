"""Batches as Stable-Baselines3's VecEnv."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from prefenvs.vector_env import BatchedEnv, Infos


class BatchVecEnv(VecEnv):
    """A batch that steps as arrays, as SB3's algorithms expect it: a dict of infos for each environment."""

    def __init__(self, batch: BatchedEnv) -> None:
        """Show `batch`, made with SAME_STEP autoreset."""
        self.batch = batch
        self._actions: np.ndarray | None = None
        super().__init__(batch.num_envs, batch.single_observation_space, batch.single_action_space)

    def reset(self) -> np.ndarray:
        """Begin episodes, with the seeds given to `seed` if that was called since the last reset."""
        observations, infos = self.batch.reset(seed=list(self._seeds))
        self.reset_infos = split_infos(infos, self.num_envs)
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what to do."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Do it. Infos of an episode's last step hold `terminal_observation`."""
        observations, rewards, terminated, truncated, infos = self.batch.step(self._actions)
        rows = split_infos(infos, self.num_envs)
        if "final_obs" in infos:
            last = split_infos(infos["final_info"], self.num_envs)
            for row in np.flatnonzero(infos["_final_obs"]).tolist():
                begun = rows[row]
                self.reset_infos[row] = {name: begun[name] for name in begun if not name.startswith("final_")}
                rows[row] = last[row] | {"terminal_observation": infos["final_obs"][row]}
        for info, cut in zip(rows, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = cut
        return observations, rewards.astype(np.float32), terminated | truncated, rows

    def close(self) -> None:
        """End threads and free the simulators."""
        self.batch.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """An image of each environment."""
        return self.batch.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The batch's own attribute, once for each environment asked about."""
        return [getattr(self.batch, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible: the environments of a batch are rows of arrays."""
        raise AttributeError(f"cannot set {attr_name}: the environments of a batch are rows of arrays. See `.batch`.")

    def env_method(self, method_name: str, *_: Any, indices: Any = None, **__: Any) -> list[Any]:
        """Not possible: the environments of a batch are rows of arrays."""
        raise AttributeError(f"no {method_name}: the environments of a batch are rows of arrays. See `.batch`.")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for each: rows of arrays have no wrappers."""
        return [False] * len(list(self._get_indices(indices)))


def sb3_vec(id: str, num_envs: int, **settings: Any) -> VecEnv:
    """A batch of N environments as SB3's VecEnv, stepped as arrays where the task can be.

    Args:
        id: as `gym.make` takes it.
        num_envs: N.
        **settings: as `gym.make(id, ...)` takes them.

    Returns:
        A VecEnv of preference environments (with `evaluation=True`, of the true reward), with the numbers of a
        DummyVecEnv of them.

    Example:
        >>> import prefenvs
        >>> from prefenvs.agents import PrefPPO, PreferenceConfig
        >>> venv = prefenvs.sb3_vec("prefenvs/HalfCheetah-v0", 8, budget=20)
        >>> config = PreferenceConfig(queries=20, sessions=1, first_session=512, hidden=(16,))
        >>> model = PrefPPO("MlpPolicy", venv, preferences=config, n_steps=64, seed=0).learn(1024)
        >>> model.preferences.feedback.asked
        20
    """
    if gym.spec(id).vector_entry_point is None:
        return DummyVecEnv([partial(gym.make, id, **settings)] * num_envs)
    batch: Any = gym.make_vec(id, num_envs, "vector_entry_point", autoreset_mode=AutoresetMode.SAME_STEP, **settings)
    return BatchVecEnv(batch)


def split_infos(infos: Infos, num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's infos of a vector environment, as a dict for each environment."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in infos.items():
        if name.startswith("_"):
            continue
        if isinstance(values, dict):
            parts: Any = split_infos(values, num_envs)
        else:
            parts = values.tolist() if values.ndim == 1 else values  # numbers of Python, as one environment shows
        for info, part, held in zip(rows, parts, infos[f"_{name}"].tolist(), strict=True):
            if held:
                info[name] = part
    return rows
