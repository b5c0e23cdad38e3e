"""Labelled queries a learner holds, and fitting a reward model to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.reward_models.ensemble import RewardEnsemble
from prefenvs.agents.reward_models.losses import bradley_terry_loss
from prefenvs.segments import Label, Query


class AnsweredQueries:
    """Answered queries that a reward model is fitted to; skipped ones are left out, some held out.

    A subclass says what it keeps of a query and how a model judges that.
    """

    fields: tuple[str, ...]
    """Names of the tensors (N, ...) that are kept, `choice` among them."""
    choice: Tensor
    """(N, k) answers."""

    def __init__(self, held_out_every: int | None = 10) -> None:
        """Start empty; `held_out_every` queries one is kept from training, with None none is."""
        self.held_out_every = held_out_every
        for name in self.fields:
            setattr(self, name, torch.zeros(0))

    def __len__(self) -> int:
        return len(self.choice)

    def segment_lengths(self) -> Tensor:
        """(N, k) steps, or tokens, of each segment."""
        raise NotImplementedError

    def add(self, model: Any, query: Query, label: Label) -> None:
        """Append the answered questions of a query."""
        raise NotImplementedError

    def begin(self, model: Any) -> None:
        """What a fit does first."""

    def losses(self, model: Any, index: Tensor) -> tuple[Tensor, Tensor]:
        """(M, b) losses in nats and (M, b, k) predicted sums of the queries at `index`, (b,) or (orders, b)."""
        raise NotImplementedError

    def finish(self, model: Any) -> Tensor:
        """What a fit does last, without gradients; (M, N, k) predicted sums of all queries."""
        raise NotImplementedError

    def append(self, new: tuple[Tensor, ...]) -> None:
        """Add rows of each field, in the order of `fields`."""
        for name, value in zip(self.fields, new, strict=True):
            setattr(self, name, torch.cat([getattr(self, name), value]) if len(self) else value)

    def split(self) -> tuple[Tensor, Tensor]:
        """Indices to train on and indices held out."""
        index = torch.arange(len(self), device=self.choice.device)
        if self.held_out_every is None:
            return index, index[:0]
        held = index % self.held_out_every == self.held_out_every - 1
        return index[~held], index[held]

    def state(self) -> dict[str, np.ndarray]:
        """The data as named arrays."""
        return {name: getattr(self, name).cpu().numpy() for name in self.fields}

    def load_state(self, state: dict[str, np.ndarray], device: torch.device) -> None:
        """Put back what `state` gave."""
        for name in self.fields:
            setattr(self, name, torch.as_tensor(state[name], device=device))


class PreferenceData(AnsweredQueries):
    """Answered queries about segments of steps, as inputs of a RewardEnsemble."""

    fields = ("inputs", "mask", "choice")  # choice last: it tells whether there are rows
    inputs: Tensor  # (N, k, T, in)
    mask: Tensor  # (N, k, T)

    def __init__(self, held_out_every: int | None = 10, *, scale_reward: bool = True) -> None:
        """Start empty; without `scale_reward` a fit leaves the model's scale as it is."""
        super().__init__(held_out_every)
        self.scale_reward = scale_reward

    def segment_lengths(self) -> Tensor:
        """(N, k) steps of each segment."""
        return self.mask.sum(-1)

    def add(self, model: RewardEnsemble, query: Query, label: Label) -> None:
        """Append the answered questions of a query."""
        segments = query.segments.torch(model.device)
        inputs = model.encode(segments.observations[:, :-1], segments.actions, segments.observations[:, 1:])
        answered = torch.as_tensor(~label.skipped, device=model.device)
        shape = (query.n, query.k, query.segments.steps)
        self.append(
            (
                inputs.reshape(*shape, -1)[answered],
                segments.mask.reshape(shape)[answered].float(),
                torch.as_tensor(label.choice, dtype=torch.float32, device=model.device)[answered],
            )
        )

    def begin(self, model: RewardEnsemble) -> None:
        """Standardize the model's inputs by what happened, if it asks for that."""
        model.observe(self.inputs.reshape(-1, self.inputs.shape[-1])[self.mask.reshape(-1) > 0])

    def losses(self, model: RewardEnsemble, index: Tensor) -> tuple[Tensor, Tensor]:
        """(M, b) Bradley-Terry losses in nats and (M, b, k) predicted sums; see `sums`."""
        sums = self.sums(model, index)
        return bradley_terry_loss(sums, self.choice[index]), sums

    def sums(self, model: RewardEnsemble, index: Tensor) -> Tensor:
        """(M, b, k) predicted sums of the queries at `index`, (b,) for all members or (M, b) one row a member."""
        inputs, mask = self.inputs[index], self.mask[index]  # (..., b, k, T, in)
        lead = inputs.shape[:-4]
        flat = inputs.reshape(*lead, -1, inputs.shape[-1])
        return (model(flat).reshape(-1, *inputs.shape[-4:-1]) * mask).sum(-1)

    def finish(self, model: RewardEnsemble) -> Tensor:
        """Set the model's scale to the root mean square of its reward over what happened; (M, N, k) sums of all."""
        rewards = model(self.inputs.reshape(-1, self.inputs.shape[-1]))  # (M, N * k * T)
        if self.scale_reward:
            happened = rewards.mean(0)[self.mask.reshape(-1) > 0]
            # Not centred: the level of the reward is what makes going on, or ending, pay.
            model.scale.copy_(happened.square().mean().sqrt().clamp_min(1e-6))
        return (rewards.reshape(-1, *self.mask.shape) * self.mask).sum(-1)


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
    length_accuracy: float = float("nan")
    """What preferring the longest segment scores on the held-out queries (on all where none is held out), equal lengths
    at chance: a model no better, or no better than the reverse, may know nothing but length."""


def accuracy(sums: Tensor, choice: Tensor) -> float:
    """Share of queries, ties left out, whose preferred segment has the greatest mean predicted sum; nan if all tie.

    Args:
        sums: (M, n, k).
        choice: (n, k).
    """
    clear = choice.max(-1).values > 0.99
    right = (sums.mean(0).argmax(-1) == choice.argmax(-1))[clear]
    return float(right.float().mean()) if len(right) else float("nan")


def length_accuracy(lengths: Tensor, choice: Tensor) -> float:
    """Share of queries, ties left out, whose preferred segment is the longest, k equally long ones counting 1 / k.

    Args:
        lengths: (n, k).
        choice: (n, k).
    """
    clear = choice.max(-1).values > 0.99
    longest = (lengths == lengths.amax(-1, keepdim=True)).float()
    right = (longest / longest.sum(-1, keepdim=True) * choice).sum(-1)[clear]
    return float(right.mean()) if len(right) else float("nan")


def fit(
    model: Any,
    optimizer: torch.optim.Optimizer,
    data: AnsweredQueries,
    *,
    rng: torch.Generator,
    epochs: int = 100,
    batch: int = 64,
    stop_accuracy: float = 0.97,
) -> FitReport:
    """Train on all data; each member sees its own order. Stops early once the members' training accuracy is enough.

    Args:
        model: trained in place; what `data` holds is for it, and `data.begin` and `data.finish` say what else is set,
            as the units of its inputs and of its reward.
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
    data.begin(model)
    mean_loss, epoch, learned = 0.0, 0, False
    while epoch < epochs and not learned:
        epoch += 1
        orders = torch.stack([torch.randperm(len(train), generator=rng) for _ in range(model.orders)]).to(train.device)
        tally = torch.zeros(3, dtype=torch.float64, device=train.device)  # loss, right answers, answers without ties
        for start in range(0, len(train), batch):
            index = train[orders[:, start : start + batch]]
            losses, sums = data.losses(model, index)
            optimizer.zero_grad(set_to_none=True)
            losses.mean(-1).sum().backward()
            optimizer.step()
            choice = data.choice[index].expand_as(sums)  # one order may serve several members
            clear = choice.max(-1).values > 0.99
            right = (sums.argmax(-1) == choice.argmax(-1)) & clear
            tally += torch.stack([count.detach().sum().double() for count in (losses, right, clear)])
        loss_sum, right_count, clear_count = tally.tolist()  # the one wait for the device in an epoch
        mean_loss = loss_sum / (len(losses) * len(train))
        learned = clear_count > 0 and right_count / clear_count >= stop_accuracy
    with torch.no_grad():
        sums = data.finish(model)
        model.trained.fill_(True)
    judged = held if len(held) else train
    return FitReport(
        epoch,
        mean_loss,
        accuracy(sums[:, train], data.choice[train]),
        accuracy(sums[:, held], data.choice[held]) if len(held) else float("nan"),
        length_accuracy(data.segment_lengths()[judged], data.choice[judged]),
    )
