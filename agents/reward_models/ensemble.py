"""A Bradley-Terry ensemble of step reward models, as one module."""

from __future__ import annotations

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefenvs.agents.fused import DifferentiableLinear
from prefenvs.agents.reward_models.step_model import StepRewardModel
from prefenvs.segments import TorchSegments
from prefenvs.tasks.product import is_large

CHUNK = 2048
"""Rows that pass through the networks at a time where no gradient is kept: so many activations stay in the cache."""

SLOPE = 0.01
"""LeakyReLU's slope below zero."""


class RewardEnsemble(StepRewardModel):
    """M multi-layer perceptrons from (observation, action) to a reward in [-1, 1], evaluated in one batch.

    The mean of the members, divided by `scale`, is the reward. Lee et al. 2021, arXiv:2106.05091: three members of
    3x256 LeakyReLU with a tanh output on the inputs as they are, scale 1. Standardized inputs need far fewer answers
    where the parts of an observation differ in size, as positions and velocities of a robot do (docs/benchmarks.md).
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        members: int = 3,
        hidden: tuple[int, ...] = (256, 256, 256),
        standardize: bool = True,
        rng: torch.Generator,
    ) -> None:
        """Make an untrained ensemble.

        Args:
            observation_space: Box or Discrete.
            action_space: Box or Discrete.
            members: M.
            hidden: width of each hidden layer.
            standardize: whether `observe` sets mean and standard deviation of the inputs; without, as they are.
            rng: draws the initial weights; members differ by it alone.

        Raises:
            TypeError: for spaces that are neither Box nor Discrete.
        """
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        width = _width(observation_space) + _width(action_space)
        sizes = (width, *hidden, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = 1.0 / math.sqrt(fan_in)  # nn.Linear's own initial law
            for store, shape in ((self.weights, (members, fan_in, fan_out)), (self.biases, (members, 1, fan_out))):
                store.append(nn.Parameter((2.0 * torch.rand(shape, generator=rng) - 1.0) * bound))
        # One-hot values and pixels are of one size already.
        measured = [
            standardize and isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)
            for space in (observation_space, action_space)
            for _ in range(_width(space))
        ]
        self.register_buffer("measured", torch.tensor(measured), persistent=False)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.measured: Tensor
        self.mean: Tensor
        self.sd: Tensor
        self.scale: Tensor
        self.trained: Tensor

    @property
    def orders(self) -> int:
        """M, in how many orders training goes through the data: one a member."""
        return self.weights[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.scale.device

    def encode(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(..., in) input of the networks: flat observations and actions, discrete ones as one-hot; not `next_obs`."""
        return torch.cat([_flat(obs, self.observation_space), _flat(act, self.action_space)], -1)

    @torch.no_grad()
    def observe(self, inputs: Tensor) -> None:
        """Take mean and standard deviation of (B, in) inputs, B at least 2, for those that are standardized."""
        sd, mean = torch.std_mean(inputs, 0)
        self.mean.copy_(torch.where(self.measured, mean, 0.0))
        # What has not moved yet may move later: its unit stays what it was.
        self.sd.copy_(torch.where(self.measured & (sd > 1e-6), sd, 1.0))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, in) or (M, B, in) inputs to (M, B) rewards in [-1, 1], before scaling."""
        if not torch.is_grad_enabled() and inputs.shape[-2] > CHUNK:
            return torch.cat([self.forward(part) for part in inputs.split(CHUNK, -2)], -1)
        x = (inputs - self.mean) / self.sd
        x = x if x.dim() == 3 else x.expand(self.orders, *x.shape)
        if is_large(x, x.shape[1] * max(weight[0].numel() for weight in self.weights)):
            weights, biases = ([held.unbind() for held in each] for each in (self.weights, self.biases))
            members = zip(x.unbind(), zip(*weights, strict=True), zip(*biases, strict=True), strict=True)
            return torch.stack([_member(*member) for member in members])
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = F.leaky_relu_(torch.baddbmm(bias, x, weight), SLOPE)
        return torch.tanh(torch.baddbmm(self.biases[-1], x, self.weights[-1])).squeeze(-1)

    def members(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(M, B) each member's reward of B steps, scaled."""
        return self.forward(self.encode(obs, act, next_obs)) / self.scale

    def segment_members(self, segments: TorchSegments) -> Tensor:
        """(M, n) each member's sum over the steps of each segment, padding left out, before scaling."""
        inputs = self.encode(segments.observations[:, :-1], segments.actions, segments.observations[:, 1:])
        n, steps = segments.mask.shape
        return (self.forward(inputs.reshape(n * steps, -1)).reshape(-1, n, steps) * segments.mask).sum(-1)


def _member(x: Tensor, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...]) -> Tensor:
    """(B,) rewards of (B, in) inputs by one network, where its products alone fill the processor."""
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), 1):
        x = DifferentiableLinear.apply(x, weight.t(), bias[0], SLOPE if i < len(weights) else 1.0)
    return torch.tanh(x[:, 0])


def _width(space: gym.Space[Any]) -> int:
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.Box):
        return math.prod(space.shape)
    raise TypeError(f"RewardEnsemble reads Box and Discrete spaces, got {space}. Flatten the observations first.")


def _flat(x: Tensor, space: gym.Space[Any]) -> Tensor:
    if isinstance(space, gym.spaces.Discrete):
        return F.one_hot(x.long() - int(space.start), int(space.n)).float()
    width = len(space.shape or ())
    flat = x.reshape(*x.shape[: x.dim() - width], -1).float()
    return flat / 255.0 if x.dtype == torch.uint8 else flat
