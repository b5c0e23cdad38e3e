"""SB3's replay buffer with its experience in tensors on the training device."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from prefenvs.agents.fused.torch_kernels import sent

FIELDS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""What is kept of a transition."""


def _field(name: str) -> Any:
    """A property that shows one of `TensorReplayBuffer.fields` as an array, and copies an array into it."""

    def read(self: TensorReplayBuffer) -> np.ndarray:
        field = self.fields[name]
        values = field.cpu().numpy()
        if field.device.type != "cpu":
            values.flags.writeable = False  # what is written to a copy would be lost
        return values

    def write(self: TensorReplayBuffer, values: np.ndarray) -> None:
        self.fields[name].copy_(torch.as_tensor(values))

    return property(read, write, doc=f"(rows, E, ...) {name}: on the CPU a view of `fields`, elsewhere a copy to read.")


class TensorReplayBuffer(ReplayBuffer):
    """SB3's ReplayBuffer with each field one tensor on the training device, where batches are gathered.

    The same seed draws the same batches as SB3's. float64 is kept as float32, which is how networks read it. Where all
    fields are float32 and the device is not the CPU, they are columns of one tensor: a step is then sent at once, and a
    batch is gathered at once.
    """

    observations = _field("observations")
    next_observations = _field("next_observations")
    actions = _field("actions")
    rewards = _field("rewards")
    dones = _field("dones")
    timeouts = _field("timeouts")

    def __init__(
        self,
        buffer_size: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        """As SB3's ReplayBuffer.

        Raises:
            ValueError: for optimize_memory_usage=True.
        """
        if optimize_memory_usage:
            raise ValueError(f"{type(self).__name__} keeps next observations: leave optimize_memory_usage at False.")
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage, self.handle_timeout_termination = False, handle_timeout_termination
        observed = (self.obs_shape, _kept_dtype(observation_space))
        acted = ((self.action_dim,), _kept_dtype(action_space))
        number: tuple[tuple[int, ...], np.dtype[Any]] = ((), np.dtype(np.float32))
        kinds = dict(zip(FIELDS, (observed, observed, acted, number, number, number), strict=True))
        self._shapes = {name: shape for name, (shape, _) in kinds.items()}
        self._packed: Tensor | None = None
        if self.device.type != "cpu" and {dtype for _, dtype in kinds.values()} == {np.dtype(np.float32)}:
            width = sum(math.prod(shape) for shape in self._shapes.values())
            self._packed = torch.zeros(self.buffer_size, n_envs, width, device=self.device)
        self.fields = {
            # The system gives memory to numpy's zeros only as they are written.
            name: torch.as_tensor(np.zeros((self.buffer_size, n_envs, *shape), dtype), device=self.device)
            for name, (shape, dtype) in (kinds.items() if self._packed is None else ())
        }
        """(rows, E, ...) tensors by name."""
        self._show_columns()

    def _columns(self, packed: Tensor) -> dict[str, Tensor]:
        """The fields of a (..., width) tensor, by name."""
        parts = packed.split([math.prod(shape) for shape in self._shapes.values()], -1)
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in named}

    def _show_columns(self) -> None:
        if self._packed is not None:
            self.fields = self._columns(self._packed)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, in which columns would no longer share the memory of their tensor."""
        return vars(self) if self._packed is None else {**vars(self), "fields": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._show_columns()

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a step of each environment."""
        timeout = [self.handle_timeout_termination and info.get("TimeLimit.truncated", False) for info in infos]
        step = [np.asarray(values) for values in (obs, next_obs, action, reward, done, timeout)]
        if self._packed is not None:
            flat = [values.astype(np.float32).reshape(self.n_envs, -1) for values in step]
            self._packed[self.pos] = sent(torch.from_numpy(np.concatenate(flat, 1)), self.device)
        else:
            for name, values in zip(FIELDS, step, strict=True):
                field = self.fields[name]
                if field.device.type == "cpu":
                    row: Any = field.numpy()[self.pos]  # numpy's calls cost less than torch's
                    row[...] = np.reshape(values, row.shape)
                else:
                    row = field[self.pos]
                    row.copy_(torch.as_tensor(values).reshape(row.shape))
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        env_indices = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))
        rows = sent(torch.from_numpy(batch_inds * self.n_envs + env_indices), self.device)
        if self._packed is None:
            batch = {name: field.flatten(0, 1).index_select(0, rows) for name, field in self.fields.items()}
        else:
            batch = self._columns(self._packed.flatten(0, 1).index_select(0, rows))
        observations, next_observations, actions, rewards, dones, timeouts = batch.values()
        if env is not None:
            observations, next_observations, rewards = (
                torch.as_tensor(normalize(values.cpu().numpy(), env), device=self.device)
                for normalize, values in (
                    (self._normalize_obs, observations),
                    (self._normalize_obs, next_observations),
                    (self._normalize_reward, rewards),
                )
            )
        ends = dones * (1 - timeouts)  # a cut episode would have gone on
        return ReplayBufferSamples(
            observations, actions, next_observations, ends.reshape(-1, 1), rewards.reshape(-1, 1)
        )


def _kept_dtype(space: gym.Space[Any]) -> np.dtype[Any]:
    assert space.dtype is not None
    return np.dtype(np.float32) if space.dtype == np.float64 else space.dtype
