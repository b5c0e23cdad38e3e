"""A grid world as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from prefenvs.tasks.grid.drawing import draw_pixels, draw_text
from prefenvs.tasks.grid.tabular import TabularMDP
from prefenvs.tasks.grid.world import GridWorld
from prefenvs.tasks.task import State, generator_from_array, generator_to_array

IMPORTANCE = ("goal", "win", "sheep", "water", "mud", "roadblock", "coin", "gas")
"""Names of the reward factors of any grid, the most important first."""


class GridTask(gym.Env[np.int64, np.int64]):
    """Walks a grid world: the observation is the index of the state, the actions are up, down, left, right.

    The true reward is linear in the map's features, so its factors are `w_i * phi_i` by name and combine by their sum.
    An episode ends in the map's terminal states; the step limit is not this class's business.

    Args:
        world: The map with its MDP.
        render_mode: None, "ansi" (text) or "rgb_array" (pixels).

    Example:
        >>> from prefenvs.tasks.grid.delivery import GridDelivery
        >>> from prefenvs.tasks.grid.solvers import greedy_policy, policy_iteration
        >>> env = GridDelivery()
        >>> state, _ = env.reset(seed=0)
        >>> v, q = policy_iteration(env.mdp)                         # exact optimal values
        >>> action = greedy_policy(q, ties="first")[state].argmax()
        >>> next_state, reward, terminated, truncated, info = env.step(action)
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(self, world: GridWorld, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r} is not known. Expected None, 'ansi' or 'rgb_array'.")
        self.world = world
        self.render_mode = render_mode
        self.observation_space = Discrete(world.mdp.num_states)
        self.action_space = Discrete(world.mdp.num_actions)
        self._start = _cumulate(world.mdp.start)
        self._next = _cumulate(world.mdp.transitions)
        self._transition = np.full(3, -1)  # last state, action and present state

    @property
    def mdp(self) -> TabularMDP:
        """The exact problem, for solvers and for oracles that need optimal values."""
        return self.world.mdp

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Starts in a state drawn from `mdp.start`."""
        super().reset(seed=seed)
        self._transition = np.array([-1, -1, _draw(self._start, self.np_random)])
        return self._transition[2], {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Moves; `info` is empty.

        Raises:
            ValueError: The action is not one of the four.
            gym.error.ResetNeeded: The episode has ended or never began.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action={action!r} is not known. Expected an integer in [0, {self.mdp.num_actions}).")
        state = self._transition[2]
        if state < 0 or self.mdp.terminal[state]:
            raise gym.error.ResetNeeded("the episode is over or never began; call reset() before step().")
        end = _draw(self._next[state, action], self.np_random)
        self._transition = np.array([state, action, end])
        return self._transition[2], float(self.mdp.rewards[state, action, end]), bool(self.mdp.terminal[end]), False, {}

    def reward_factors(self) -> dict[str, float]:
        """Reward from each feature at the last step, w_i * phi_i in units of reward; 0 before the first step."""
        assert self.mdp.features is not None and self.mdp.weights is not None  # build_grid gives them
        state, action, end = self._transition
        phi = self.mdp.features[state, action, end] if action >= 0 else np.zeros_like(self.mdp.weights)
        paid = phi * self.mdp.weights + 0.0  # turns -0.0 into 0.0
        by_name = dict(zip(self.mdp.feature_names, paid.tolist(), strict=True))
        return {name: by_name[name] for name in IMPORTANCE if name in by_name}

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The sum of the factors, whatever their common shape."""
        return np.sum([factors[name] for name in self.mdp.feature_names], axis=0)

    def success(self) -> bool:
        """Whether the agent is at the goal."""
        return bool(self._transition[2] >= 0 and self.world.goal[self._transition[2]])

    def get_state(self) -> State:
        """`transition` (3,) int64 last state, last action (-1 at the start), present state; `rng` (6,) uint64."""
        return {"transition": self._transition.copy(), "rng": generator_to_array(self.np_random)}

    def set_state(self, state: State) -> None:
        """Continues from a state that `get_state` gave."""
        transition = np.array(state["transition"], dtype=np.int64)
        if transition.shape != (3,) or not -1 <= transition[2] < self.mdp.num_states:
            raise ValueError(f"transition is {transition.tolist()}, expected 3 numbers from get_state() of this map.")
        self.np_random = generator_from_array(state["rng"])
        self._transition = transition

    def render(self) -> Any:
        """The map with the agent: a string for "ansi", a (height, width, 3) uint8 image for "rgb_array"."""
        if self.render_mode is None:
            gym.logger.warn('nothing to render: make the environment with render_mode="ansi" or "rgb_array".')
            return None
        if self._transition[2] < 0:
            raise gym.error.ResetNeeded("there is no agent to draw yet; call reset() before render().")
        draw = draw_text if self.render_mode == "ansi" else draw_pixels
        return draw(self.world, int(self._transition[2]))


def _cumulate(probabilities: np.ndarray) -> np.ndarray:
    """(..., S) cumulated probabilities that end at exactly 1: a draw below 1 always falls on a possible state."""
    sums = probabilities.cumsum(axis=-1)
    return sums / sums[..., -1:]


def _draw(cumulated: np.ndarray, rng: np.random.Generator) -> int:
    """A state drawn by its (S,) cumulated probabilities; uses one number of the generator, random or not."""
    return int(np.searchsorted(cumulated, rng.random(), side="right"))
