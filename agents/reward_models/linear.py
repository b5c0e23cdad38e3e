"""What all linear rewards share, and fitting them to labels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from prefenvs.agents.reward_models.losses import bradley_terry_loss
from prefenvs.agents.reward_models.step_model import StepRewardModel
from prefenvs.segments import TorchSegments

TEMPERATURE = 0.001
"""T of the softmax over input policies, in units of return. Knox et al. 2022, released code."""
REFRESHES = 5
"""How often the regret model takes up policies for what it has learned so far. Ours: with 100 random policies alone,
64% of the noiseless labels of the delivery grid agree with its true weights, since no policy of the set suits them."""


class LinearModel(StepRewardModel):
    """M reward vectors w over d features, learned beside each other; the score of a segment is the subclass's own.

    A subclass fills in `step_features` and the two halves of a segment's score: `read`, which does not depend on w and
    is done once, and, where that is no partial return, `forward`, which does and is differentiated.
    """

    def __init__(self, dims: int, members: int) -> None:
        """Start from w = 0 with M = `members` vectors of `dims` numbers."""
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(members, dims, dtype=torch.float64))
        self.register_buffer("starts", torch.zeros(1, dims, dtype=torch.float64))  # (R, d)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.starts: Tensor
        self.trained: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.device

    def step_features(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(B, d) features of B steps."""
        raise NotImplementedError

    def read(self, segments: TorchSegments) -> tuple[Tensor, ...]:
        """What `forward` needs of the segments."""
        raise NotImplementedError

    def forward(self, read: tuple[Tensor, ...]) -> Tensor:
        """(M, n) each member's score of segments that were `read`; here w . sum of features, the partial return."""
        return self.weights @ read[0].T

    def refresh(self) -> None:
        """Bring up to date what depends on the reward vectors; called now and then while they are learned."""

    def members(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(M, B) each member's reward of B steps; without `next_obs` its mean over what may follow."""
        return self.weights @ self.step_features(obs, act, next_obs).T

    def segment_members(self, segments: TorchSegments) -> Tensor:
        """(M, n) each member's score of each segment."""
        return self(self.read(segments))


def soft_maximum(values: Tensor, temperature: float) -> Tensor:
    """(M, n) V~ = sum_i p_i V_i with p = softmax_i(V_i / T), of the values (M, P, n) of P policies."""
    return ((values / temperature).softmax(1) * values).sum(1)


def check_temperature(temperature: float) -> None:
    """Refuse a T that gives no softmax.

    Raises:
        ValueError: if it is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}, expected above 0; near 0 is the maximum over policies.")


def random_weights(count: int, dims: int, rng: np.random.Generator) -> np.ndarray:
    """(count, dims) reward vectors of wide range: normal numbers, each times a magnitude log-uniform in [1, 100].

    What is paid by the step and what is paid once differ by orders of magnitude where either decides what is best.
    """
    return rng.standard_normal((count, dims)) * 100 ** rng.random((count, dims))


def fit_linear(
    model: LinearModel,
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
        return functional_call(model, {"weights": weights}, (read,)).reshape(-1, n, k)

    read = model.read(segments)
    with torch.no_grad():
        loss = -target.flatten(1) @ scores(model.starts).log_softmax(-1).flatten(1).T  # (M, R)
        model.weights.copy_(model.starts[loss.argmin(1)])
    optimizer = torch.optim.Adam([model.weights], lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in range(steps):
        if step % math.ceil(steps / REFRESHES) == 0:
            model.refresh()
            read = model.read(segments)
        optimizer.zero_grad(set_to_none=True)
        loss = bradley_terry_loss(scores(model.weights), target).sum(-1)  # (M,)
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    model.trained.fill_(True)
    return loss.detach()
