"""Labelled queries a learner holds, and fitting an ensemble to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.reward_models.ensemble import RewardEnsemble
from prefenvs.agents.reward_models.losses import bradley_terry_loss
from prefenvs.segments import Label, Query


class PreferenceData:
    """Answered queries as inputs of a reward model; skipped ones are left out. Every tenth is held out for a check."""

    def __init__(self, held_out_every: int = 10) -> None:
        """Start empty; `held_out_every` queries one is kept from training."""
        self.held_out_every = held_out_every
        self.inputs = torch.zeros(0)  # (N, k, T, in)
        self.mask = torch.zeros(0)  # (N, k, T)
        self.choice = torch.zeros(0)  # (N, k)

    def __len__(self) -> int:
        return len(self.choice)

    def add(self, model: RewardEnsemble, query: Query, label: Label) -> None:
        """Append the answered questions of a query."""
        segments = query.segments.torch(model.device)
        inputs = model.encode(segments.observations[:, :-1], segments.actions)
        answered = torch.as_tensor(~label.skipped, device=model.device)
        shape = (query.n, query.k, query.segments.steps)
        new = (
            inputs.reshape(*shape, -1)[answered],
            segments.mask.reshape(shape)[answered].float(),
            torch.as_tensor(label.choice, dtype=torch.float32, device=model.device)[answered],
        )
        old = (self.inputs, self.mask, self.choice)
        self.inputs, self.mask, self.choice = (
            new if not len(self) else (torch.cat(p) for p in zip(old, new, strict=True))
        )

    def split(self) -> tuple[Tensor, Tensor]:
        """Indices to train on and indices held out."""
        index = torch.arange(len(self), device=self.choice.device)
        held = index % self.held_out_every == self.held_out_every - 1
        return index[~held], index[held]

    def sums(self, model: RewardEnsemble, index: Tensor) -> Tensor:
        """(M, b, k) predicted sums of the queries at `index`, (b,) for all members or (M, b) one row a member."""
        inputs, mask = self.inputs[index], self.mask[index]  # (..., b, k, T, in)
        lead = inputs.shape[:-4]
        flat = inputs.reshape(*lead, -1, inputs.shape[-1])
        return (model(flat).reshape(-1, *inputs.shape[-4:-1]) * mask).sum(-1)

    def state(self) -> dict[str, np.ndarray]:
        """The data as named arrays."""
        return {name: getattr(self, name).cpu().numpy() for name in ("inputs", "mask", "choice")}

    def load_state(self, state: dict[str, np.ndarray], device: torch.device) -> None:
        """Put back what `state` gave."""
        for name in ("inputs", "mask", "choice"):
            setattr(self, name, torch.as_tensor(state[name], device=device))


@dataclass(frozen=True)
class FitReport:
    """How a fit went."""

    epochs: int
    loss: float
    """Mean loss of the last epoch, in nats."""
    accuracy: float
    """Share of training queries, ties left out, whose preferred segment has the greatest predicted sum."""
    held_out_accuracy: float
    """The same on held-out queries; nan where there are none."""


def accuracy(sums: Tensor, choice: Tensor) -> float:
    """Share of queries, ties left out, whose preferred segment has the greatest mean predicted sum; nan if all tie.

    Args:
        sums: (M, n, k).
        choice: (n, k).
    """
    clear = choice.max(-1).values > 0.99
    right = (sums.mean(0).argmax(-1) == choice.argmax(-1))[clear]
    return float(right.float().mean()) if len(right) else float("nan")


def fit(
    model: RewardEnsemble,
    optimizer: torch.optim.Optimizer,
    data: PreferenceData,
    *,
    rng: torch.Generator,
    epochs: int = 100,
    batch: int = 64,
    stop_accuracy: float = 0.97,
) -> FitReport:
    """Train on all data; each member sees its own order. Stops early once the members' training accuracy is enough.

    Args:
        model: trained in place, on inputs standardized by what the data show if it asks for that; its `scale` becomes
            the root mean square of its reward over the data.
        optimizer: of the model's parameters.
        data: at least one answered query.
        rng: shuffles.
        epochs: passes over the data at most.
        batch: queries a step.
        stop_accuracy: training accuracy of one epoch at which to stop.

    Raises:
        ValueError: if there is no data.
    """
    if not len(data):
        raise ValueError("no answered query to train on: all were skipped. Ask for more or another teacher.")
    train, held = data.split()
    happened = data.inputs.reshape(-1, data.inputs.shape[-1])[data.mask.reshape(-1) > 0]
    model.observe(happened)
    members = model.weights[0].shape[0]
    loss_sum, epoch, learned = 0.0, 0, False
    while epoch < epochs and not learned:
        epoch += 1
        orders = torch.stack([torch.randperm(len(train), generator=rng) for _ in range(members)]).to(train.device)
        loss_sum, right, clear_count = 0.0, 0.0, 0
        for start in range(0, len(train), batch):
            index = train[orders[:, start : start + batch]]
            sums, choice = data.sums(model, index), data.choice[index]
            losses = bradley_terry_loss(sums, choice)
            optimizer.zero_grad(set_to_none=True)
            losses.mean(-1).sum().backward()
            optimizer.step()
            clear = choice.max(-1).values > 0.99
            right += float(((sums.argmax(-1) == choice.argmax(-1)) & clear).sum())
            clear_count += int(clear.sum())
            loss_sum += float(losses.detach().sum())
        learned = clear_count > 0 and right / clear_count >= stop_accuracy
    with torch.no_grad():
        everything = torch.arange(len(data), device=train.device)
        rewards = model(happened).mean(0)
        # Not centred: the level of the reward is what makes going on, or ending, pay.
        model.scale.copy_(rewards.square().mean().sqrt().clamp_min(1e-6))
        model.trained.fill_(True)
        sums = data.sums(model, everything)
        return FitReport(
            epoch,
            loss_sum / (members * len(train)),
            accuracy(sums[:, train], data.choice[train]),
            accuracy(sums[:, held], data.choice[held]) if len(held) else float("nan"),
        )
