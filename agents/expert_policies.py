"""Trains the policy of an expert: the learners to choose from, and the network of a learner's mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor, VecNormalize
from torch import nn

from prefenvs.agents.evaluation import FIRST_SEED, evaluate
from prefenvs.agents.policy_evaluation import fold_input_scales, linear_layers
from prefenvs.agents.ppo import PPO
from prefenvs.agents.sac import SAC
from prefenvs.oracles.value_nets import Layers, NetworkValues
from prefenvs.sb3 import sb3_vec

CHECK_SEED = FIRST_SEED + 1000
"""First seed of the episodes that choose which policy is kept; the score that is reported comes from others."""
LAST_RATE = 0.05
"""PPO's learning rate falls linearly to this share of it."""
FLAT = 20.0
"""Before the squashing: no float32 lies between tanh of this and 1."""


class SquashedActions(VecEnvWrapper):
    """Takes unbounded actions u and plays low + (high - low) (tanh(u) + 1) / 2, as SAC's own policies do.

    So the mode of a Gaussian policy over u is a network's output squashed by tanh, and its gradients know no clipping.
    """

    def __init__(self, venv: VecEnv) -> None:
        """Wrap environments with one Box of actions."""
        self._played: Any = venv.action_space
        super().__init__(venv, action_space=gym.spaces.Box(-FLAT, FLAT, self._played.shape, np.float32))

    def reset(self) -> Any:
        """As the environments."""
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Squash and pass on."""
        low, high = self._played.low, self._played.high
        self.venv.step_async((low + (high - low) * (np.tanh(actions) + 1) / 2).astype(np.float32))

    def step_wait(self) -> Any:
        """As the environments."""
        return self.venv.step_wait()


def sac(
    env_id: str, num_envs: int, *, hidden: tuple[int, ...], gamma: float, seed: int, steps: int, **arguments: Any
) -> BaseAlgorithm:
    """SAC that keeps all of its experience."""
    venv = VecMonitor(sb3_vec(env_id, num_envs, evaluation=True))
    kwargs = {"net_arch": list(hidden)} | arguments.pop("policy_kwargs", {})
    settings = {"gamma": gamma, "seed": seed, "device": "cpu", "buffer_size": steps, "policy_kwargs": kwargs}
    return SAC("MlpPolicy", venv, **settings, **arguments)


def ppo(
    env_id: str, num_envs: int, *, hidden: tuple[int, ...], gamma: float, seed: int, steps: int, **arguments: Any
) -> BaseAlgorithm:
    """PPO on scaled observations and rewards, with squashed actions and a learning rate that falls; `steps` is unused.

    It plays about twenty steps in the time of one of SAC's at an update a step.
    """
    squashed = SquashedActions(sb3_vec(env_id, num_envs, evaluation=True))
    venv = VecNormalize(squashed, gamma=gamma, clip_obs=np.inf)  # a clip is no part of a linear layer
    kwargs = {"net_arch": list(hidden), "activation_fn": nn.ReLU} | arguments.pop("policy_kwargs", {})
    rate = arguments.pop("learning_rate")
    settings = {"gamma": gamma, "seed": seed, "device": "cpu", "policy_kwargs": kwargs}
    schedule = LinearSchedule(rate, LAST_RATE * rate, 1.0)
    return PPO("MlpPolicy", venv, learning_rate=schedule, **settings, **arguments)


LEARNERS: Mapping[str, Callable[..., BaseAlgorithm]] = {"SAC": sac, "PPO": ppo}
"""Makers of a learner on a task's true reward, by name."""


def mode_layers(model: BaseAlgorithm) -> Layers:
    """The network of a learner's mode, from the task's own observations to actions before the squashing."""
    policy: Any = model.policy
    if isinstance(model, SAC):
        return linear_layers(policy.actor.latent_pi) + linear_layers(policy.actor.mu)
    layers = linear_layers(policy.mlp_extractor.policy_net) + linear_layers(policy.action_net)
    scaled = model.get_vec_normalize_env()
    assert scaled is not None
    rms: Any = scaled.obs_rms
    return fold_input_scales(layers, rms.mean, np.sqrt(rms.var + scaled.epsilon))


class KeepBest(BaseCallback):
    """Keeps the policy of every check, with its mean true return over five episodes."""

    def __init__(self, env_id: str, every: int, space: gym.spaces.Box) -> None:
        """Check every so many steps; `space` is the task's of actions."""
        super().__init__()
        self.env_id, self.every = env_id, every
        self.bounds = (space.low.astype(np.float32), space.high.astype(np.float32))
        self.scores: list[float] = []
        self.policies: list[Layers] = []

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= (len(self.scores) + 1) * self.every:
            self.check()

    def _on_step(self) -> bool:
        return True

    def check(self) -> None:
        """Score the policy and keep it."""
        self.policies.append(mode_layers(self.model))
        self.scores.append(evaluate(self._values(-1), self.env_id, 5, first_seed=CHECK_SEED).mean)

    def best(self) -> NetworkValues:
        """The policy with the highest score, without values yet."""
        return self._values(int(np.argmax(self.scores)))

    def _values(self, index: int) -> NetworkValues:
        return NetworkValues(self.policies[index], (), *self.bounds)
