"""Features of steps that a reward is linear in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """d named features of a step."""

    names: tuple[str, ...]
    """d names."""
    function: Callable[[Tensor, Tensor], Tensor]
    """(..., obs) observations and (..., act) actions to (..., d) features, each of the order of 1."""

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, obs: Tensor, act: Tensor) -> Tensor:
        """(..., d) features of steps, float64."""
        return self.function(obs.double(), act.double())


def quadratic_features(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Features:
    """All products of one or two entries of (observation, action), each entry scaled to [-1, 1] by its space.

    With m entries d = m + m (m + 1) / 2. There is no constant: where segments have one length and episodes do not
    end, it changes no preference and no policy.

    Raises:
        ValueError: for spaces that are not bounded Boxes with one axis.
    """
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ValueError(f"{name}={space}, expected a bounded Box with one axis. Make Features(names, function).")
    assert isinstance(observation_space, gym.spaces.Box)
    assert isinstance(action_space, gym.spaces.Box)
    low, high = (
        torch.tensor(np.concatenate([getattr(space, end) for space in (observation_space, action_space)])).double()
        for end in ("low", "high")
    )
    entries = [f"o{i}" for i in range(observation_space.shape[0])] + [f"a{i}" for i in range(action_space.shape[0])]
    first, second = torch.triu_indices(len(entries), len(entries))

    def quadratic(obs: Tensor, act: Tensor) -> Tensor:
        x = torch.cat([obs, act], -1)
        x = 2 * (x - low.to(x.device)) / (high - low).to(x.device) - 1
        return torch.cat([x, x[..., first] * x[..., second]], -1)

    pairs = [f"{entries[i]} {entries[j]}" for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    return Features((*entries, *pairs), quadratic)
