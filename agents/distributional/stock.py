"""The stock in an environment: what was earned so far, c' = (c + r) / gamma, as a part of the observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from prefenvs.agents.learned_reward import LearnedReward
from prefenvs.preference_env import PreferenceEnv

STOCK, OBSERVATION = "stock", "observation"
"""Keys of the observation: the stock's, and that of the environment's own unless it is a Dict already."""


class StockWrapper(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Observes the stock c beside the observation, c' = (c + r) / gamma after each step.

    The observation becomes a Dict: {"observation": the environment's own, "stock": (d,) float32}, whatever kind the own
    space is; a Dict space gets the key "stock". It reads the reward, so it belongs on the evaluation door, on any plain
    environment, or with `reward=` on a preference environment, whose own reward is hidden.

    Example:
        >>> import prefenvs
        >>> env = StockWrapper(gym.make("prefenvs/GridLedge-v0", evaluation=True), gamma=0.5, initial_stock=3.0)
        >>> _ = env.reset(seed=0)
        >>> observation, reward, *_ = env.step(0)           # bumps into the edge
        >>> reward, observation["stock"]                    # (3 - 1) / 0.5
        (-1.0, array([4.], dtype=float32))
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        gamma: float,
        initial_stock: float | np.ndarray | Callable[[Any], float | np.ndarray] = 0.0,
        *,
        factors: Sequence[str] | None = None,
        reward: Callable[[Any, Any, Any], float] | None = None,
    ) -> None:
        """Keep a stock.

        Args:
            env: its reward is what the stock is made of.
            gamma: discount, in (0, 1].
            initial_stock: c at reset, a number or (d,), or a function of the first observation that gives it, such as
                `QuantileDQN.initial_stock`.
            factors: names in `info["factors"]` for a vector stock with one entry each, in place of the reward.
            reward: of (observation, action, next observation), in place of the environment's own.

        Raises:
            ValueError: the environment hides its reward and there is no `reward`; or the arguments make no sense.
        """
        # A copy of `initial_stock` would be a copy of the whole agent that it belongs to.
        recorded: dict[str, Any] = {
            "gamma": gamma,
            "initial_stock": initial_stock,
            "factors": factors,
            "reward": reward,
        }
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **recorded)
        super().__init__(env)
        check_gamma(gamma)
        if isinstance(env.unwrapped, PreferenceEnv) and reward is None:
            raise ValueError(HIDDEN.format("give reward=, a function of (observation, action, next observation)"))
        if factors is not None and reward is not None:
            raise ValueError("factors= and reward= both say what the stock is made of; give one of them.")
        self.gamma, self.initial_stock, self._factors, self._reward = gamma, initial_stock, factors, reward
        self.stock = np.zeros(1 if factors is None else len(factors))
        """(d,) the present stock, in units of reward."""
        self.observation_space = stock_space(env.observation_space, len(self.stock))
        self._last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with the initial stock."""
        self._last, info = self.env.reset(seed=seed, options=options)
        initial = self.initial_stock(self._last) if callable(self.initial_stock) else self.initial_stock
        self.stock = np.broadcast_to(np.asarray(initial, dtype=float), self.stock.shape).copy()
        return with_stock(self._last, self.stock), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act; the reward returned is the one that went into the stock, or the environment's own with `factors`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._reward is not None:
            reward = float(self._reward(self._last, action, observation))
        earned: Any = reward
        if self._factors is not None:
            if "factors" not in info:
                raise ValueError("info has no 'factors'; they are shown by gym.make(id, evaluation=True).")
            earned = np.array([info["factors"][name] for name in self._factors])
        self.stock = (self.stock + earned) / self.gamma
        self._last = observation
        return with_stock(observation, self.stock), reward, terminated, truncated, info


class StockVecEnv(VecEnvWrapper):
    """The same for an SB3 VecEnv, such as a `LearnedReward`; `initial` gives the stocks of episodes that begin."""

    def __init__(self, venv: VecEnv, gamma: float, initial: Callable[[int, np.random.Generator], np.ndarray]) -> None:
        """Keep a stock for each environment.

        Args:
            venv: its rewards are what the stock is made of.
            gamma: discount, in (0, 1].
            initial: first stocks (n,) of n episodes, from n and a generator.

        Raises:
            ValueError: the environments hide their rewards and no `LearnedReward` is around them.
        """
        check_gamma(gamma)
        if hides_reward(venv):
            raise ValueError(HIDDEN.format("wrap the VecEnv in LearnedReward with a trained reward model"))
        super().__init__(venv, stock_space(venv.observation_space, 1))
        self.gamma, self._initial = gamma, initial
        self._rng = np.random.default_rng(0)
        self.stocks = np.zeros(venv.num_envs)
        """(E,) the present stocks, in units of reward."""

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the environments, and the initial stocks with a stream of their own."""
        self._rng = np.random.default_rng(None if seed is None else [seed, 1])
        return self.venv.seed(seed)

    def reset(self) -> VecEnvObs:
        """Begin episodes."""
        observations = self.venv.reset()
        self.stocks = np.asarray(self._initial(self.num_envs, self._rng), dtype=float)
        return with_stock(observations, self.stocks[:, None])

    def step_wait(self) -> VecEnvStepReturn:
        """Add the rewards to the stocks; where an episode ended the terminal observation has the final stock."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self.stocks = (self.stocks + rewards) / self.gamma
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = with_stock(infos[i]["terminal_observation"], self.stocks[i, None])
        if dones.any():
            self.stocks = np.where(dones, self._initial(self.num_envs, self._rng), self.stocks)
        return with_stock(observations, self.stocks[:, None]), rewards, dones, infos


HIDDEN = (
    "the reward of a preference environment is hidden, always 0.0, so no stock can be made of it. Either {}, or use "
    "the evaluation door, gym.make(id, evaluation=True)."
)


def hides_reward(venv: VecEnv) -> bool:
    """Whether the rewards of a VecEnv are the hidden 0.0 of preference environments."""
    inside = venv
    while isinstance(inside, VecEnvWrapper):
        if isinstance(inside, LearnedReward):
            return False
        inside = inside.venv
    try:
        inside.get_attr("feedback_config")
    except AttributeError:
        return False
    return True


def stock_space(space: spaces.Space[Any], d: int) -> spaces.Dict:
    """The space of observations with a stock of d entries.

    Raises:
        ValueError: A Dict space has the key "stock" already.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATION: space}
    if STOCK in parts:
        raise ValueError(
            f"the observation has a {STOCK!r} already. Give the plain environment: an agent keeps the stock itself."
        )
    return spaces.Dict({**parts, STOCK: spaces.Box(-np.inf, np.inf, (d,), np.float32)})


def with_stock(observation: Any, stock: np.ndarray) -> dict[str, Any]:
    """An observation, or a batch, with its (..., d) stock."""
    parts = dict(observation) if isinstance(observation, dict) else {OBSERVATION: observation}
    return {**parts, STOCK: stock.astype(np.float32)}


def check_gamma(gamma: float) -> None:
    """Says no to what is no discount."""
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma={gamma} is not a discount, expected a number in (0, 1].")
