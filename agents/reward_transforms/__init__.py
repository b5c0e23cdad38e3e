"""What is done to a reward before a policy is trained on it: shaping, aggregation over an ensemble, steps.

Every entry of REWARD_TRANSFORMS is called as `transform(rewards, context, **options)`. The context holds what some of
them compare with; those that need nothing are called without it. `rewards` is (n,), of n responses, where a docstring
does not say (M, n), of an ensemble's members, or (n, K), of the steps of a process reward.

    >>> import torch
    >>> from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext
    >>> context = RewardContext(references=torch.tensor([[0.5, 1.0]]))
    >>> round(float(REWARD_TRANSFORMS["par"](torch.tensor([1.2]), context)), 4)
    0.609

`REWARD_TRANSFORMS["mine"] = mine` adds one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from prefenvs.agents.reward_transforms import ensembles, shaping, steps
from prefenvs.agents.reward_transforms.context import RewardContext as RewardContext
from prefenvs.agents.reward_transforms.context import RunningRewards as RunningRewards

REWARD_TRANSFORMS: dict[str, Callable[..., torch.Tensor]] = {
    "centre": shaping.centre,
    "centred_polynomial": shaping.centred_polynomial,
    "centred_tanh": shaping.centred_tanh,
    "clip": shaping.clip,
    "clip_steps": steps.clip_steps,
    "delta_steps": steps.delta_steps,
    "identity": shaping.identity,
    "log_steps": steps.log_steps,
    "lsc": shaping.lsc,
    "mean": ensembles.mean,
    "mean_minus_std": ensembles.mean_minus_std,
    "mean_std": shaping.mean_std,
    "median": ensembles.median,
    "min_max": shaping.min_max,
    "par": shaping.par,
    "polynomial": shaping.polynomial,
    "saturate": shaping.saturate,
    "sigmoid": shaping.sigmoid,
    "slow_then_fast": shaping.slow_then_fast,
    "tanh": shaping.tanh,
    "uncertainty_weighted": ensembles.uncertainty_weighted,
    "worst_case": ensembles.worst_case,
}
"""Reward transforms by name, all called as `transform(rewards, context, **options)`."""

OF_MEMBERS = {"mean", "mean_minus_std", "median", "uncertainty_weighted", "worst_case"}
"""Names of those that make (n,) of the rewards (M, n) of an ensemble's members."""
OF_STEPS = {"clip_steps", "delta_steps", "log_steps"}
"""Names of those that make (n, K) of step qualities (n, K), called with `mask=` (n, K)."""
