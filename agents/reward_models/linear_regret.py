"""Linear rewards of finite problems, learned by partial return or by regret."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from prefenvs.agents.reward_models.losses import bradley_terry_loss
from prefenvs.error import unknown_name
from prefenvs.making import make_task
from prefenvs.segments import Label, Query, TorchSegments
from prefenvs.tasks import TASKS
from prefenvs.tasks.grid.solvers import policies_for_weights, successor_features
from prefenvs.tasks.grid.tabular import TabularMDP

TEMPERATURE = 0.001
"""T of the softmax over input policies, in units of return. Knox et al. 2022, released code."""
GAMMA = 0.999
"""Discount of planning in tasks that have none. Ibid."""
REFRESHES = 5
"""How often the regret model takes up policies for what it has learned so far. Ours: with 100 random policies alone,
64% of the noiseless labels of the delivery grid agree with its true weights, since no policy of the set suits them."""


class LinearReward(nn.Module):
    """M reward vectors w over the features of a finite problem; a segment is worth its partial return.

    reward(s, a, s') = w . phi(s, a, s'), score(segment) = sum_t w . phi_t. Linear Bradley-Terry, the partial return
    model that Knox et al. 2022, arXiv:2206.02231, compare with. A constant added to all rewards changes no score
    difference between segments of one length, so the labels do not say whether going on pays.
    """

    supports = frozenset({"reward", "members", "segment", "prefer", "loss"})

    def __init__(self, mdp: TabularMDP, members: int = 1) -> None:
        """Start from w = 0.

        Args:
            mdp: dynamics and features; its true weights are not read.
            members: M, vectors that are learned beside each other, each from labels of its own.

        Raises:
            ValueError: if the problem has no features.
        """
        super().__init__()
        mean = mdp.expected_features()  # raises if there are none
        assert mdp.features is not None
        self.weights = nn.Parameter(torch.zeros(members, mean.shape[-1], dtype=torch.float64))
        self.register_buffer("features", torch.tensor(mdp.features))  # (S, A, S, d)
        self.register_buffer("mean_features", torch.tensor(mean))  # (S, A, d)
        self.register_buffer("starts", torch.zeros(1, mean.shape[-1], dtype=torch.float64))  # (R, d)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.features: Tensor
        self.mean_features: Tensor
        self.starts: Tensor
        self.trained: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.device

    def members(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(M, B) each member's reward of B steps; without `next_obs` its mean over what may follow."""
        obs, act = obs.long(), act.long()
        phi = self.mean_features[obs, act] if next_obs is None else self.features[obs, act, next_obs.long()]
        return self.weights @ phi.T

    def reward(
        self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None, context: dict[str, Tensor] | None = None
    ) -> Tensor:
        """(B,) mean reward of the members."""
        return self.members(obs, act, next_obs).mean(0)

    def segment_members(self, segments: TorchSegments) -> Tensor:
        """(M, n) each member's score of each segment, in units of reward."""
        states, actions = segments.observations.long(), segments.actions.long()
        phi = self.features[states[:, :-1], actions, states[:, 1:]]  # (n, T, d)
        return self.weights @ (phi * segments.mask[..., None]).sum(1).T

    def forward(self, segments: TorchSegments) -> Tensor:
        """The same as `segment_members`."""
        return self.segment_members(segments)

    def refresh(self) -> None:
        """Bring up to date what depends on the reward vectors; called now and then while they are learned."""

    def segment(self, segments: TorchSegments, context: dict[str, Tensor] | None = None) -> Tensor:
        """(n,) mean of the members' scores."""
        return self.segment_members(segments).mean(0)

    def prefer(self, query: Query) -> Tensor:
        """(n, k, k) logit that segment i is preferred to j: the difference of their scores."""
        scores = self.segment(query.segments.torch(self.device)).reshape(query.n, query.k)
        return scores[:, :, None] - scores[:, None, :]

    def loss(self, query: Query, label: Label) -> Tensor:
        """(n,) Bradley-Terry loss a query, the mean over members, in nats."""
        scores = self.segment_members(query.segments.torch(self.device)).reshape(-1, query.n, query.k)
        target = torch.as_tensor(label.choice, dtype=scores.dtype, device=scores.device)
        return bradley_terry_loss(scores, target.expand_as(scores)).mean(0)


class LinearRegret(LinearReward):
    """The same reward vectors, but a segment is worth minus its regret under the reward that is being learned.

    score(segment) = sum_t A~(s_t, a_t), A~ = Q~ - V~, with V~(s) = sum_i p_i(s) w . psi_i(s), p(s) = softmax_i(w .
    psi_i(s) / T) over the successor features psi_i of a set of input policies, and Q~(s, a) = E[w . phi + gamma
    V~(s')]. Knox et al. 2022, arXiv:2206.02231, sec. 5 and app. (T = 0.001). V~ is a mean of values of policies, so
    V~ <= V*, and equal as T -> 0 where an optimal policy is among them. It is differentiated, never held constant:
    a constant V~ carries nothing of the labels, and what is left to learn from are partial returns.

    Example:
        >>> import numpy as np
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
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}, expected above 0; near 0 is the maximum over policies.")
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
        return ((values / self.temperature).softmax(1) * values).sum(1)

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

    def segment_members(self, segments: TorchSegments) -> Tensor:
        """(M, n) minus the regret of each segment under each member, in units of return."""
        advantages = self.advantages()
        taken = segments.observations[:, :-1].long() * advantages.shape[-1] + segments.actions.long()  # (n, T)
        happened = segments.mask.to(advantages.dtype)
        return F.embedding_bag(taken, advantages.flatten(1).T, per_sample_weights=happened, mode="sum").T


def random_weights(count: int, dims: int, rng: np.random.Generator) -> np.ndarray:
    """(count, dims) reward vectors of wide range: normal numbers, each times a magnitude log-uniform in [1, 100].

    What is paid by the step and what is paid once differ by orders of magnitude where either decides what is best.
    """
    return rng.standard_normal((count, dims)) * 100 ** rng.random((count, dims))


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


def fit_linear(
    model: LinearReward,
    segments: TorchSegments,
    choice: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    steps: int = 500,
    lr: float = 0.1,
) -> Tensor:
    """Fit the members of a model by full-batch Adam, with a rate that falls linearly to 0.

    Each member begins at that of the model's starts which explains its labels best. `REFRESHES` times on the way the
    model takes up the policies that are best for what it has learned.

    Args:
        model: trained in place.
        segments: n * k windows; query i shows windows i * k to i * k + k - 1.
        choice: (n, k) labels, or (M, n, k) labels of each member's own; rows of nan (skips) weigh nothing.
        counts: (M,) how many of the queries, from the first, each member sees; by default all.
        steps: gradient steps.
        lr: first rate.

    Returns:
        (M,) mean loss of each member before the last step, in nats.

    Raises:
        ValueError: if `choice` does not fit the model or the segments.
    """
    members, (n, k) = len(model.weights), choice.shape[-2:]
    if choice.shape not in ((n, k), (members, n, k)) or n * k != len(segments.mask):
        raise ValueError(
            f"choice has shape {choice.shape}, expected (n, k) or (M, n, k) with M = {members} members and n * k = "
            f"{len(segments.mask)} segments."
        )
    seen = np.full(members, n) if counts is None else counts
    share = (np.arange(n) < seen[:, None]) / seen[:, None]  # (M, n)
    target = torch.as_tensor(choice * share[..., None], device=model.device).nan_to_num(0.0)  # (M, n, k)

    def scores(weights: Tensor) -> Tensor:
        """(R, n, k) of R reward vectors."""
        return functional_call(model, {"weights": weights}, (segments,)).reshape(-1, n, k)

    with torch.no_grad():
        loss = -target.flatten(1) @ scores(model.starts).log_softmax(-1).flatten(1).T  # (M, R)
        model.weights.copy_(model.starts[loss.argmin(1)])
    optimizer = torch.optim.Adam([model.weights], lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in range(steps):
        if step % math.ceil(steps / REFRESHES) == 0:
            model.refresh()
        optimizer.zero_grad(set_to_none=True)
        loss = bradley_terry_loss(scores(model.weights), target).sum(-1)  # (M,)
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    model.trained.fill_(True)
    return loss.detach()
