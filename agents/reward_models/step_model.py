"""What reward models of steps share: members beside each other that reward steps and score segments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prefenvs.segments import TorchSegments


class StepRewardModel(nn.Module):
    """M reward models of steps; a subclass fills in `device`, `members` and `segment_members`."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        raise NotImplementedError

    def members(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(M, B) each member's reward of B steps."""
        raise NotImplementedError

    def segment_members(self, segments: TorchSegments) -> Tensor:
        """(M, n) each member's score of each segment, in logits of a preference."""
        raise NotImplementedError

    def reward(self, obs: Tensor, act: Tensor, next_obs: Tensor | None = None) -> Tensor:
        """(B,) mean reward of the members."""
        return self.members(obs, act, next_obs).mean(0)
