"""The reward that a language model is trained on: a score of whole completions, aggregated and shaped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reward = Callable[[Tensor, Tensor], Tensor] | Any
"""A reward model with `score(prompts, completions)`, or a function: (n, P) and (n, T) int64 to (n,)."""


@torch.no_grad()
def score(reward: Reward, prompts: Tensor, completions: Tensor) -> Tensor:
    """(n,) reward of completions (n, T) of prompts (n, P), without gradient."""
    return getattr(reward, "score", reward)(prompts, completions).float()
