"""What reward models of steps share: members beside each other that reward steps and score segments."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from prefenvs.segments import TorchSegments

FITTED = {
    "device": "property: where the weights are",
    "members": "members(obs, act, next_obs=None): (M, B) rewards, divided by scale",
    "reward": "reward(obs, act, next_obs=None): (B,) mean of the members",
    "segment_members": "segment_members(segments): (M, n) scores, before scaling",
    "encode": "encode(obs, act, next_obs=None): (..., in) what forward reads",
    "observe": "observe(inputs): looks at (B, in) inputs before each fit, and may do nothing",
    "forward": "forward(inputs): (M, B) rewards before scaling, of (B, in) or (orders, B, in)",
    "orders": "in how many orders a fit goes through the data: M, or 1",
    "scale": "() float buffer: set to the root mean square of the reward after each fit, with scale_reward",
    "trained": "() bool buffer: set after the first fit",
}
"""Members that a reward model needs for `PreferenceCallback` to train it; a `RewardEnsemble` has them."""


class StepRewardModel(nn.Module):
    """M reward models of steps; a subclass fills in `device`, `members` and `segment_members`.

    A step is what was seen, what was done and `next_obs`, what it led to: at an episode's end the terminal observation.

    To be trained by `PreferenceCallback` it also has the other members of FITTED.
    """

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


def check_fitted(model: nn.Module) -> None:
    """Refuse a reward model that `PreferenceCallback` could not train.

    Raises:
        TypeError: naming the members that it lacks.
    """
    lacking = [f"  {name}: {meaning}" for name, meaning in FITTED.items() if _lacks(model, name)]
    if lacking:
        raise TypeError("\n".join([f"{type(model).__name__} cannot be trained from preferences. It lacks", *lacking]))


def _lacks(model: nn.Module, name: str) -> bool:
    if name in ("scale", "trained"):
        return not isinstance(getattr(model, name, None), Tensor)
    own, first = (getattr(owner, name, None) for owner in (type(model), StepRewardModel))
    if name in ("encode", "members", "reward") and hasattr(model, name) and (name == "reward" or own is not first):
        return not takes(getattr(model, name), 3)
    return not hasattr(model, name) if own is None else own is first


def takes(method: Any, count: int) -> bool:
    """Whether a method can be called with so many arguments."""
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    return True
