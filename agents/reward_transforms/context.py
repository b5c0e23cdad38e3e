"""What rewards are compared with: rewards of reference responses, and of all responses so far."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class RunningRewards:
    """Moments and range of all rewards seen so far, as 0-dimensional tensors. `updated` gives the next state.

    >>> import torch
    >>> seen = RunningRewards.of(torch.tensor([1.0, 2.0])).updated(torch.tensor([6.0]))
    >>> float(seen.mean), float(seen.high)
    (3.0, 6.0)
    """

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor
    """Sum of squared distances from the mean."""
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, rewards: torch.Tensor) -> RunningRewards:
        """The state after a first batch (n,), n >= 1."""
        mean = rewards.mean()
        count = torch.full_like(mean, rewards.numel())
        return cls(count, mean, (rewards - mean).square().sum(), rewards.amin(), rewards.amax())

    def updated(self, rewards: torch.Tensor) -> RunningRewards:
        """The state after one more batch (n,): that of all batches at once (Chan et al. 1983)."""
        new = RunningRewards.of(rewards)
        count, apart = self.count + new.count, new.mean - self.mean
        return RunningRewards(
            count=count,
            mean=self.mean + apart * new.count / count,
            squares=self.squares + new.squares + apart.square() * self.count * new.count / count,
            low=torch.minimum(self.low, new.low),
            high=torch.maximum(self.high, new.high),
        )

    @property
    def std(self) -> torch.Tensor:
        """() population standard deviation."""
        return (self.squares / self.count).sqrt()


@dataclass(frozen=True, eq=False)
class RewardContext:
    """What rewards are compared with."""

    references: torch.Tensor | None = None
    """(n, M) rewards of M stored responses of the reference policy to each prompt."""
    running: RunningRewards | None = None
    """All rewards seen so far, the present batch included or not as the caller decides."""

    def need_references(self) -> torch.Tensor:
        """`references`, or a ValueError that says how to give them."""
        if self.references is None:
            raise ValueError(
                "This transform reads rewards of reference responses. Set references= of a learner's config to 1 or "
                "more, or pass RewardContext(references=...), (n, M)."
            )
        return self.references

    def need_running(self) -> RunningRewards:
        """`running`, or a ValueError that says how to give it."""
        if self.running is None:
            raise ValueError(
                "This transform reads running statistics. Pass RewardContext(running=RunningRewards.of(rewards)) and "
                "keep them with .updated(rewards)."
            )
        return self.running


NOTHING = RewardContext()
"""For transforms that read none of it."""
