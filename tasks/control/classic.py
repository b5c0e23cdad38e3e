"""Gymnasium's classic control: its own dynamics, rewards and seeds, with reward factors and a restorable state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv, angle_normalize

from prefenvs.tasks.task import State, generator_from_array, generator_to_array

Transition = tuple[Any, Any, bool, bool, dict[str, Any]]

GOAL_REWARD = 100.0  # of MountainCarContinuous
CONTROL_WEIGHT = 0.1  # of MountainCarContinuous, per unit of squared force
SPEED_WEIGHT = 0.1  # of Pendulum, per (rad/s)^2
TORQUE_WEIGHT = 0.001  # of Pendulum, per (N m)^2


class ClassicTask(gym.Env[np.ndarray, Any]):
    """What the five tasks share, to be put before Gymnasium's class. The true reward is the sum of the factors."""

    factors: ClassVar[tuple[str, ...]]
    scratch: ClassVar[tuple[str, ...]] = ()
    """Attributes besides `state` that outlive a step: each a number or None (kept as nan)."""
    state: Any
    _values: tuple[float, ...] = ()  # factors of the last step, empty before the first

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode as Gymnasium does."""
        self._values = ()
        return super().reset(seed=seed, options=options)

    def render(self) -> Any:
        """As Gymnasium; None without a render_mode, with a warning."""
        if self.render_mode is None:  # Gymnasium's own warning needs the spec, which the environment outside has
            gym.logger.warn('nothing to render: make the environment with render_mode="rgb_array".')
            return None
        return super().render()

    def reward_factors(self) -> dict[str, float]:
        """Factors of the last step's true reward, in units of reward."""
        if not self._values:
            raise RuntimeError("no step was taken since reset(), so there is no last reward. Call step() first.")
        return dict(zip(self.factors, self._values, strict=True))

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Sum of the factors, of any common shape, in units of reward."""
        return np.sum([factors[name] for name in self.factors], axis=0)

    def success(self) -> bool | None:
        """None: keeping a pole up has no end."""
        return None

    def get_state(self) -> State:
        """Dynamics in Gymnasium's own dtype (some tasks change it after a reset), generator and last factors."""
        scratch = [getattr(self, name) for name in self.scratch]
        return {
            "state": np.array(self.state),
            "scratch": np.array([np.nan if value is None else value for value in scratch], dtype=np.float64),
            "generator": generator_to_array(self.np_random),
            "factors": np.array(self._values, dtype=np.float64),
        }

    def set_state(self, state: State) -> None:
        """Continue from a state that `get_state` gave."""
        self.state = state["state"].copy()
        for name, value in zip(self.scratch, state["scratch"].tolist(), strict=True):
            setattr(self, name, None if math.isnan(value) else value)
        self.np_random = generator_from_array(state["generator"])
        self._values = tuple(state["factors"].tolist())


class CartPole(ClassicTask, CartPoleEnv):
    """CartPole-v1: one for each step, the falling one included."""

    factors = ("alive",)
    scratch = ("steps_beyond_terminated",)

    def step(self, action: Any) -> Transition:
        """Gymnasium's step."""
        transition = super().step(action)
        self._values = (transition[1],)
        return transition


class MountainCar(ClassicTask, MountainCarEnv):
    """MountainCar-v0: minus one for each step until the flag is reached."""

    factors = ("step_cost",)

    def step(self, action: Any) -> Transition:
        """Gymnasium's step."""
        transition = super().step(action)
        self._values = (transition[1],)
        return transition

    def success(self) -> bool:
        """Whether the car is at the flag."""
        position, velocity = self.state
        return bool(position >= self.goal_position and velocity >= self.goal_velocity)


class MountainCarContinuous(ClassicTask, Continuous_MountainCarEnv):
    """MountainCarContinuous-v0: 100 at the flag, minus a tenth of the squared force each step."""

    factors = ("goal", "control_cost")

    def step(self, action: Any) -> Transition:
        """Gymnasium's step."""
        transition = super().step(action)
        # The force is not clipped here, as in Gymnasium's reward.
        self._values = (GOAL_REWARD * transition[2], -math.pow(action[0], 2) * CONTROL_WEIGHT)
        return transition

    def success(self) -> bool:
        """Whether the car is at the flag."""
        position, velocity = self.state
        return bool(position >= self.goal_position and velocity >= self.goal_velocity)


class Acrobot(ClassicTask, AcrobotEnv):
    """Acrobot-v1: minus one for each step until the tip is above the line, 0 for that one."""

    factors = ("step_cost",)

    def step(self, action: Any) -> Transition:
        """Gymnasium's step."""
        transition = super().step(action)
        self._values = (transition[1],)
        return transition

    def success(self) -> bool:
        """Whether the tip is one link above the pivot."""
        return bool(self._terminal())


class Pendulum(ClassicTask, PendulumEnv):
    """Pendulum-v1: minus the squared angle, speed and torque, weighted, of the state the action is taken in."""

    factors = ("angle_cost", "speed_cost", "torque_cost")
    scratch = ("last_u",)  # drawn by render

    def step(self, action: Any) -> Transition:
        """Gymnasium's step."""
        angle, speed = self.state
        torque = np.clip(action, -self.max_torque, self.max_torque)[0]
        transition = super().step(action)
        self._values = (-(angle_normalize(angle) ** 2), -SPEED_WEIGHT * speed**2, -TORQUE_WEIGHT * torque**2)
        return transition
