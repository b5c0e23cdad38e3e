"""Gymnasium's MuJoCo environments: their own dynamics, rewards and seeds, with factors and a restorable state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from prefenvs.tasks.task import State, generator_from_array, generator_to_array

DYNAMICS = mujoco.mjtState.mjSTATE_INTEGRATION.value  # all that mj_step reads, qacc_warmstart included


class MujocoTask(gym.Env[np.ndarray, np.ndarray]):
    """One of Gymnasium's MuJoCo environments, whose true reward is a sum of terms that it tells in `info`.

    A state holds the dynamics as they were *before* the last step and the controls of that step. Restoring takes the
    step again, so that what lags a simulation step behind (body positions, contact forces, the picture) comes out
    bit-equal without being listed here.

    Example:
        >>> task = MujocoTask("HalfCheetah-v5", {"forward_reward": "reward_forward", "control_cost": "reward_ctrl"})
        >>> _ = task.reset(seed=0)
        >>> _ = task.step(task.action_space.sample())
        >>> list(task.reward_factors())
        ['forward_reward', 'control_cost']
    """

    def __init__(
        self,
        env_id: str,
        terms: Mapping[str, str],
        constant: float = 0.0,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
    ) -> None:
        """Make the environment without its step limit.

        Args:
            env_id: id in Gymnasium's registry.
            terms: name of each factor, to its key in `info`.
            constant: what the true reward holds besides the terms, in units of reward.
            render_mode: "rgb_array" or None.
            width: of a rendered frame, in pixels.
            height: of a rendered frame, in pixels.
        """
        self._env: Any = gym.make(env_id, render_mode=render_mode, width=width, height=height).unwrapped
        self._terms = dict(terms)
        self._constant = constant
        self._values: tuple[float, ...] = ()  # factors of the last step, empty before the first
        self._before = self._dynamics()
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self._env.metadata["render_fps"]}
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode as Gymnasium does."""
        super().reset(seed=seed)
        self._env.np_random = self.np_random
        self._values = ()
        return self._env.reset(options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Gymnasium's step."""
        mujoco.mj_getState(self._env.model, self._env.data, self._before, DYNAMICS)
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._values = tuple(float(info[key]) for key in self._terms.values())
        return observation, float(reward), bool(terminated), truncated, info

    def reward_factors(self) -> dict[str, float]:
        """Factors of the last step's true reward, in units of reward."""
        if not self._values:
            raise RuntimeError("no step was taken since reset(), so there is no last reward. Call step() first.")
        return dict(zip(self._terms, self._values, strict=True))

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Sum of the factors, of any common shape, and the constant, in units of reward."""
        return np.sum([factors[name] for name in self._terms], axis=0) + self._constant

    def success(self) -> bool | None:
        """None: Gymnasium's robots are paid for how well, not for getting it done."""
        return None

    def get_state(self) -> State:
        """Dynamics before the last step, its controls (empty before the first), its factors, and the generator."""
        stepped = bool(self._values)
        return {
            "dynamics": self._before.copy() if stepped else self._dynamics(),
            "controls": self._env.data.ctrl.copy() if stepped else np.empty(0),
            "factors": np.array(self._values, dtype=np.float64),
            "generator": generator_to_array(self.np_random),
        }

    def set_state(self, state: State) -> None:
        """Continue from a state that `get_state` gave."""
        model, data = self._env.model, self._env.data
        mujoco.mj_setState(model, data, state["dynamics"], DYNAMICS)
        self._before = state["dynamics"].copy()
        if state["controls"].size:
            self._env.do_simulation(state["controls"], self._env.frame_skip)
        else:
            mujoco.mj_forward(model, data)
            mujoco.mj_setState(model, data, state["dynamics"], DYNAMICS)  # mj_forward has moved qacc_warmstart
        self._values = tuple(state["factors"].tolist())
        self.np_random = self._env.np_random = generator_from_array(state["generator"])

    def render(self) -> np.ndarray | None:
        """(height, width, 3) uint8 picture of the present state, or None without render_mode="rgb_array"."""
        return self._env.render() if self.render_mode else None

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()

    def _dynamics(self) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self._env.model, DYNAMICS))
        mujoco.mj_getState(self._env.model, self._env.data, state, DYNAMICS)
        return state
