"""Puts a learned reward where SB3's algorithms look for one: in the environment's step or in the replay buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from prefenvs.agents.replay import TensorReplayBuffer
from prefenvs.agents.reward_models import RewardEnsemble
from prefenvs.agents.reward_models.ensemble import CHUNK
from prefenvs.agents.reward_models.step_model import StepRewardModel, takes


class LearnedReward(VecEnvWrapper):
    """A VecEnv whose rewards come from a reward model: one batch a step. 0 until the model is trained."""

    def __init__(self, venv: VecEnv, model: RewardEnsemble) -> None:
        """Reward the steps of `venv` by `model`, which may go on learning.

        Raises:
            TypeError: if the model's `reward` does not take (observations, actions, next_observations).
        """
        if not takes(model.reward, 3):
            raise TypeError(
                f"{type(model).__name__}.reward takes other arguments than (obs, act, next_obs): give it next_obs=None,"
                " which it may leave unread."
            )
        super().__init__(venv)
        self.model = model
        self._observations: Any = None
        self._actions: np.ndarray | None = None

    def reset(self) -> VecEnvObs:
        """Begin episodes."""
        self._observations = self.venv.reset()
        return self._observations

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what is done, and do it."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Replace the rewards."""
        observations, rewards, dones, infos = self.venv.step_wait()
        if self.model.trained:
            led_to = observations_after(observations, dones, infos)
            rewards = predict_rewards(self.model, self._observations, self._actions, led_to)
        self._observations = observations
        return observations, rewards, dones, infos


def observations_after(observations: Any, dones: np.ndarray, infos: list[dict[str, Any]]) -> Any:
    """(E, *obs) that the steps of a VecEnv led to: where an episode ended not the reset's, but the terminal one."""
    if not dones.any():
        return observations
    led_to = np.array(observations)
    for row in np.flatnonzero(dones):
        led_to[row] = infos[row]["terminal_observation"]
    return led_to


@torch.no_grad()
def predict_rewards(
    model: StepRewardModel, observations: Any, actions: Any, next_observations: Any = None, *, chunk: int = CHUNK
) -> np.ndarray:
    """(B,) float32 learned rewards of B steps, a chunk at a time.

    Args:
        model: rewards them.
        observations: (B, *obs) in which the actions were taken.
        actions: (B, *act) as the environment takes them.
        next_observations: (B, *obs) that followed, the terminal ones included, for models that read them.
        chunk: steps at a time.
    """
    read = [part for part in (observations, actions, next_observations) if part is not None]
    parts = [
        model.reward(*(torch.as_tensor(part[at : at + chunk], device=model.device) for part in read))
        for at in range(0, len(actions), chunk)
    ]
    return torch.cat(parts).cpu().numpy().astype(np.float32)


class RewardReplayBuffer(TensorReplayBuffer):
    """A replay buffer with rewards from a model: new steps get them as they come, old ones by `relabel`.

    Before there is a model, `explore` samples are rewarded for being far from what was seen: the distance to the k-th
    nearest observation, divided by its running standard deviation. Lee et al. 2021, arXiv:2106.05091, eq. 5 (k = 5).
    """

    def __init__(self, *args: Any, k_nearest: int = 5, **kwargs: Any) -> None:
        """As TensorReplayBuffer; `k_nearest` is k of the exploration reward."""
        super().__init__(*args, **kwargs)
        self.k_nearest = k_nearest
        self.model: RewardEnsemble | None = None
        self.explore = False
        self.novelty = np.zeros(3)  # count, mean and sum of squared deviations of distances
        low, high = getattr(self.action_space, "low", None), getattr(self.action_space, "high", None)
        # SB3 stores Box actions scaled to [-1, 1]; the model reads them as the environment does.
        self._middle: Any = 0.0 if low is None else (high + low) / 2.0
        self._half: Any = 1.0 if low is None else (high - low) / 2.0

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a step of each environment, rewarded by the model if there is one."""
        if self.model is not None and self.model.trained:
            reward = predict_rewards(self.model, obs, self._env_actions(action), next_obs)
        super().add(obs, next_obs, action, reward, done, infos)

    @torch.no_grad()
    def relabel(self, model: RewardEnsemble) -> None:
        """Reward all stored steps, and those to come, by `model`."""
        self.model, self.explore = model, False
        size = self.size()
        observations, led_to, actions, rewards = (
            self.fields[name][:size].flatten(0, 1)  # views: what the model does not read costs nothing
            for name in ("observations", "next_observations", "actions", "rewards")
        )
        # SB3 keeps actions flat and gives discrete values an axis of length 1; the model reads the spaces' own shapes.
        observations, led_to = (
            held.reshape(-1, *(self.observation_space.shape or ())) for held in (observations, led_to)
        )
        actions = actions.reshape(-1, *(self.action_space.shape or ()))
        middle, half = (torch.as_tensor(part, device=self.device) for part in (self._middle, self._half))
        for start in range(0, len(rewards), CHUNK):
            part = slice(start, start + CHUNK)
            rewards[part] = model.reward(observations[part], actions[part] * half + middle, led_to[part])

    def _env_actions(self, actions: np.ndarray) -> np.ndarray:
        return actions * self._half + self._middle

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        if not self.explore:
            return samples
        seen = self.fields["observations"][: self.size()].flatten(0, 1).flatten(1)
        distances = torch.cdist(samples.observations.flatten(1).float(), seen.float())
        novelty = distances.kthvalue(min(self.k_nearest + 1, distances.shape[1]), dim=1).values  # the nearest is itself
        self._track(novelty.cpu().numpy().astype(np.float64))
        sd = np.sqrt(self.novelty[2] / max(self.novelty[0], 1.0))
        return samples._replace(rewards=(novelty / max(float(sd), 1e-6)).reshape(-1, 1))

    def _track(self, values: np.ndarray) -> None:
        """Merge a batch into the running moments. Chan et al. 1983."""
        count, mean, squares = self.novelty
        gap, total = values.mean() - mean, count + len(values)
        self.novelty = np.array(
            [
                total,
                mean + gap * len(values) / total,
                squares + ((values - values.mean()) ** 2).sum() + gap**2 * count * len(values) / total,
            ]
        )
