"""Linear rewards of continuous tasks, learned by partial return or by regret."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.reward_models.features import Features
from prefenvs.agents.reward_models.linear import TEMPERATURE, LinearModel, check_temperature, soft_maximum
from prefenvs.segments import TorchSegments


class SuccessorFeatures(Protocol):
    """Successor features of a set of policies, psi_i(s) = E_i[sum_t gamma^t f(s_t, a_t) | s_0 = s], so V_i = w . psi_i.

    In closed form, interpolated on a grid (`GridPolicies`), or by a network.
    """

    @property
    def gamma(self) -> float:
        """Discount a step."""

    def __call__(self, obs: Tensor) -> Tensor:
        """(n, *obs) observations to (P, n, d) successor features of P policies; 0 where an episode has ended."""

    def add(self, weights: Tensor) -> None:
        """Take up policies that are good for (R, d) reward vectors; a set that cannot plan stays as it is."""


class FeatureReward(LinearModel):
    """M reward vectors over features of (observation, action); a segment is worth its partial return.

    reward(s, a) = w . f(s, a), score(segment) = sum_t w . f_t: linear Bradley-Terry, the partial return model that Knox
    et al. 2022, arXiv:2206.02231, compare with.
    """

    def __init__(self, features: Features, members: int = 1) -> None:
        """Start from w = 0 with M = `members` vectors, each learned from labels of its own."""
        super().__init__(len(features), members)
        self.features = features

    def step_features(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(B, d) features of B steps; next observations do not matter."""
        return self.features(obs, act)

    def collected(self, segments: TorchSegments, gamma: float = 1.0) -> Tensor:
        """(n, d) discounted sums of the features of each segment, padding left out."""
        discount = gamma ** torch.arange(segments.mask.shape[1], dtype=self.weights.dtype, device=self.device)
        weight = segments.mask * discount
        return (self.features(segments.observations[:, :-1], segments.actions) * weight[..., None]).sum(1)

    def read(self, segments: TorchSegments) -> tuple[Tensor, ...]:
        """(n, d) sums of the features of each segment."""
        return (self.collected(segments),)


class FeatureRegret(FeatureReward):
    """The same reward vectors, but a segment is worth minus its regret under the reward that is being learned.

    score(segment) = sum_t gamma^t w . f_t + gamma^n V~(s_n) - V~(s_0), with V~(s) = sum_i p_i(s) w . psi_i(s),
    p(s) = softmax_i(w . psi_i(s) / T), over the successor features of a set of policies. Knox et al. 2022,
    arXiv:2206.02231, eq. 3 and sec. 5, where segments are not discounted; here they are, as in `DeterministicRegret`,
    so that the score telescopes to the sum of advantages. For deterministic transitions. V~ is differentiated, never
    held constant. `refresh` lets the set take up policies that are good for the present reward vectors.

    Example:
        >>> import gymnasium as gym, numpy as np
        >>> from prefenvs.agents.gridded import CHARTS, GridPlanner, GridPolicies, task_dynamics
        >>> from prefenvs.agents.reward_models import quadratic_features, random_weights
        >>> env = gym.make("prefenvs/Pendulum-v0", oracle="regret")
        >>> features = quadratic_features(env.observation_space, env.action_space)
        >>> actions = np.linspace(env.action_space.low, env.action_space.high, 3)
        >>> planner = GridPlanner(CHARTS["Pendulum"], task_dynamics("Pendulum"), actions, features, gamma=0.9)
        >>> starts = random_weights(5, len(features), np.random.default_rng(0))
        >>> model = FeatureRegret(features, GridPolicies(planner, starts), starts=starts)   # for fit_linear
        >>> model.psi(torch.tensor([[1.0, 0.0, 0.0]])).shape
        torch.Size([5, 1, 14])
    """

    def __init__(
        self,
        features: Features,
        psi: SuccessorFeatures,
        members: int = 1,
        temperature: float = TEMPERATURE,
        starts: np.ndarray | None = None,
    ) -> None:
        """Start from w = 0, where V~ is the mean over the policies.

        Args:
            features: d features of steps.
            psi: of the same features, for a set of policies.
            members: M, vectors that are learned beside each other.
            temperature: T, in units of return.
            starts: (R, d) reward vectors, the best of which `fit_linear` begins with; by default 0.

        Raises:
            ValueError: if T is not positive.
        """
        super().__init__(features, members)
        check_temperature(temperature)
        self.psi, self.temperature = psi, temperature
        if starts is not None:
            self.starts = torch.as_tensor(starts, dtype=self.weights.dtype)

    def refresh(self) -> None:
        """Let the set of policies take up those that are good for the present reward vectors."""
        self.psi.add(self.weights.detach())

    def values(self, psi: Tensor) -> Tensor:
        """(M, n) V~ of (P, n, d) successor features."""
        policies, n, dims = psi.shape
        values = (self.weights @ psi.reshape(-1, dims).T).reshape(-1, policies, n)
        return soft_maximum(values, self.temperature)

    def read(self, segments: TorchSegments) -> tuple[Tensor, ...]:
        """(n, d) discounted sums of features, (P, 2 n, d) successor features of both ends, (n,) gamma^n."""
        rows, length = torch.arange(len(segments.mask), device=self.device), segments.mask.sum(1)
        ends = torch.cat([segments.observations[:, 0], segments.observations[rows, length]])
        gamma = self.psi.gamma
        return self.collected(segments, gamma), self.psi(ends).to(self.weights.dtype), gamma ** length.double()

    def forward(self, read: tuple[Tensor, ...]) -> Tensor:
        """(M, n) minus the regret of each segment under each member, in units of return."""
        collected, psi, discount = read
        first, last = self.values(psi).chunk(2, 1)
        return self.weights @ collected.T + discount * last - first
