"""Linear rewards of finite problems, learned by partial return or by regret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prefenvs.agents.reward_models.linear import (
    TEMPERATURE,
    LinearModel,
    check_temperature,
    random_weights,
    soft_maximum,
)
from prefenvs.error import unknown_name
from prefenvs.making import make_task
from prefenvs.segments import TorchSegments
from prefenvs.tasks import TASKS
from prefenvs.tasks.grid.solvers import policies_for_weights, successor_features
from prefenvs.tasks.grid.tabular import TabularMDP

GAMMA = 0.999
"""Discount of planning in tasks that have none. Knox et al. 2022, released code."""


class LinearReward(LinearModel):
    """M reward vectors w over the features of a finite problem; a segment is worth its partial return.

    reward(s, a, s') = w . phi(s, a, s'), score(segment) = sum_t w . phi_t. Linear Bradley-Terry, the partial return
    model that Knox et al. 2022, arXiv:2206.02231, compare with. A constant added to all rewards changes no score
    difference between segments of one length, so the labels do not say whether going on pays.
    """

    def __init__(self, mdp: TabularMDP, members: int = 1) -> None:
        """Start from w = 0.

        Args:
            mdp: dynamics and features; its true weights are not read.
            members: M, vectors that are learned beside each other, each from labels of its own.

        Raises:
            ValueError: if the problem has no features.
        """
        mean = mdp.expected_features()  # raises if there are none
        assert mdp.features is not None
        super().__init__(mean.shape[-1], members)
        self.register_buffer("features", torch.tensor(mdp.features))  # (S, A, S, d)
        self.register_buffer("mean_features", torch.tensor(mean))  # (S, A, d)
        self.features: Tensor
        self.mean_features: Tensor

    def step_features(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(B, d) features of B steps; without `next_obs` their mean over what may follow."""
        obs, act = obs.long(), act.long()
        return self.mean_features[obs, act] if next_obs is None else self.features[obs, act, next_obs.long()]

    def read(self, segments: TorchSegments) -> tuple[Tensor, ...]:
        """(n, d) sums of the features of each segment."""
        states, actions = segments.observations.long(), segments.actions.long()
        phi = self.features[states[:, :-1], actions, states[:, 1:]]  # (n, T, d)
        return ((phi * segments.mask[..., None]).sum(1),)


class LinearRegret(LinearReward):
    """The same reward vectors, but a segment is worth minus its regret under the reward that is being learned.

    score(segment) = sum_t A~(s_t, a_t), A~ = Q~ - V~, with V~(s) = sum_i p_i(s) w . psi_i(s), p(s) = softmax_i(w .
    psi_i(s) / T) over the successor features psi_i of a set of input policies, and Q~(s, a) = E[w . phi + gamma
    V~(s')]. Knox et al. 2022, arXiv:2206.02231, sec. 5 and app. (T = 0.001). V~ is a mean of values of policies, so
    V~ <= V*, and equal as T -> 0 where an optimal policy is among them. It is differentiated, never held constant:
    a constant V~ carries nothing of the labels, and what is left to learn from are partial returns.

    Example:
        >>> import numpy as np
        >>> from prefenvs.agents.reward_models import fit_linear
        >>> from prefenvs.tasks.grid.delivery import delivery_world
        >>> from prefenvs.tasks.grid.sampling import random_segments
        >>> mdp, rng = delivery_world().mdp, np.random.default_rng(0)
        >>> model = linear_model("regret", mdp, rng=rng)
        >>> segments = TorchSegments(*map(torch.as_tensor, random_segments(mdp, 200, 3, rng)))
        >>> choice = rng.permuted(np.tile([1.0, 0.0], (100, 1)), axis=1)  # or the label of a teacher
        >>> fit_linear(model, segments, choice, steps=5).shape, model.trained.item()
        (torch.Size([1]), True)
    """

    def __init__(
        self,
        mdp: TabularMDP,
        policies: np.ndarray,
        members: int = 1,
        temperature: float = TEMPERATURE,
        starts: np.ndarray | None = None,
    ) -> None:
        """Start from w = 0, where V~ is the mean over the policies.

        Args:
            mdp: dynamics and features; its true weights are not read.
            policies: (P, S, A) action probabilities, for example from `policies_for_weights`.
            members: M, vectors that are learned beside each other.
            temperature: T, in units of return.
            starts: (R, d) reward vectors, the best of which `fit_linear` begins with; by default 0.

        Raises:
            ValueError: if the problem has no features, or T is not positive.
        """
        super().__init__(mdp, members)
        check_temperature(temperature)
        self.temperature = temperature
        self._mdp = mdp.with_weights(np.zeros(self.weights.shape[1]))
        self.register_buffer("psi", torch.tensor(successor_features(mdp, policies)))  # (P, S, d)
        self.register_buffer("continuing", torch.tensor(mdp.continuing().reshape(-1, mdp.num_states)))  # (S * A, S)
        if starts is not None:
            self.starts = torch.tensor(starts)
        self.psi: Tensor
        self.continuing: Tensor

    def state_values(self) -> Tensor:
        """(M, S) V~ of each state, 0 in terminal ones."""
        values = torch.einsum("md,psd->mps", self.weights, self.psi)
        return soft_maximum(values, self.temperature)

    def advantages(self) -> Tensor:
        """(M, S, A) A~ = Q~ - V~."""
        v = self.state_values()
        q = torch.einsum("md,sad->msa", self.weights, self.mean_features)
        q = q + self._mdp.gamma * (v @ self.continuing.T).reshape(q.shape)
        return q - v[:, :, None]

    @torch.no_grad()
    def refresh(self) -> None:
        """Add the policies that are greedy for the present reward vectors to the input policies."""
        found = policies_for_weights(self._mdp, self.weights.cpu().numpy())
        psi = torch.as_tensor(successor_features(self._mdp, found), device=self.device)
        self.psi = torch.cat([self.psi, psi])

    def read(self, segments: TorchSegments) -> tuple[Tensor, ...]:
        """(n, T) index of the state and action of each step, and (n, T) whether it happened."""
        taken = segments.observations[:, :-1].long() * self.mean_features.shape[1] + segments.actions.long()
        return taken, segments.mask.to(self.weights.dtype)

    def forward(self, read: tuple[Tensor, ...]) -> Tensor:
        """(M, n) minus the regret of each segment under each member, in units of return."""
        taken, happened = read
        advantages = self.advantages().flatten(1).T
        return F.embedding_bag(taken, advantages, per_sample_weights=happened, mode="sum").T


def _linear_regret(mdp: TabularMDP, members: int, policies: int, rng: np.random.Generator) -> LinearRegret:
    """A regret model whose input policies are greedy for random reward vectors, which are also its starts."""
    starts = random_weights(policies, mdp.expected_features().shape[-1], rng)
    return LinearRegret(mdp, policies_for_weights(mdp, starts), members, starts=starts)


LINEAR_MODELS: dict[str, Callable[..., LinearReward]] = {
    "partial_return": lambda mdp, members, policies, rng: LinearReward(mdp, members),
    "regret": _linear_regret,
}
"""Linear reward models by the name of the oracle whose labels they assume."""


def linear_model(
    name: str, task: str | TabularMDP, members: int = 1, *, policies: int = 100, rng: np.random.Generator
) -> LinearReward:
    """An untrained linear reward model of a grid task.

    A task that does not discount is planned in at 0.999 a step, as Knox et al. do: what is learned may pay for walking
    on, and then has no optimum without a discount.

    Args:
        name: one of LINEAR_MODELS.
        task: id or name of a grid task, or a problem with features; true weights are not read.
        members: M, reward vectors learned beside each other.
        policies: P, input policies of the regret model.
        rng: draws these.

    Raises:
        ValueError: for an unknown name, or a task that is no grid.
    """
    if name not in LINEAR_MODELS:
        raise unknown_name("linear model", name, LINEAR_MODELS)
    mdp = task if isinstance(task, TabularMDP) else _problem(task)
    return LINEAR_MODELS[name](replace(mdp, gamma=min(mdp.gamma, GAMMA)), members, policies, rng)


def _problem(task: str) -> TabularMDP:
    name = task.removeprefix("prefenvs/").split("-v")[0]
    if name not in TASKS:
        raise unknown_name("task", task, TASKS)
    base: Any = make_task(TASKS[name])
    if not hasattr(base, "mdp"):
        grids = [known for known, spec in TASKS.items() if spec.entry_point.startswith("prefenvs.tasks.grid")]
        raise ValueError(f"{task} has no finite problem with features; expected one of: {', '.join(grids)}.")
    return base.mdp
