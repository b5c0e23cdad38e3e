"""One reward from those of M members of an ensemble, (M, n) to (n,).

Members must share their zero: Bradley-Terry leaves it free, and a member whose zero is lower is always the worst case.
Centre or standardise each first.
"""

from __future__ import annotations

import torch

from prefenvs.agents.reward_transforms.context import NOTHING, RewardContext


def mean(rewards: torch.Tensor, context: RewardContext = NOTHING) -> torch.Tensor:
    """(n,) mean over the members of (M, n)."""
    return rewards.mean(0)


def median(rewards: torch.Tensor, context: RewardContext = NOTHING) -> torch.Tensor:
    """(n,) median over the members of (M, n), the mean of the middle two where M is even.

    Eisenstein et al. 2023, arXiv:2312.09244.
    """
    return rewards.quantile(0.5, dim=0)


def worst_case(rewards: torch.Tensor, context: RewardContext = NOTHING) -> torch.Tensor:
    """(n,) least over the members of (M, n), WCO. Coste et al. 2023, arXiv:2310.02743."""
    return rewards.amin(0)


def uncertainty_weighted(
    rewards: torch.Tensor, context: RewardContext = NOTHING, *, weight: float = 0.5, unbiased: bool
) -> torch.Tensor:
    """Mean less a multiple of the variance over the members of (M, n), UWO: mean - lambda var.

    Coste et al. 2023, arXiv:2310.02743. Its own code divides by M - 1 in PPO and by M in best-of-n, so say which.

    Args:
        rewards: (M, n); M >= 2 where unbiased.
        context: Not read.
        weight: lambda, per unit of reward: it depends on the scale of the members.
        unbiased: Whether the variance divides by M - 1.

    Returns:
        (n,) in units of reward.
    """
    return rewards.mean(0) - weight * rewards.var(0, correction=int(unbiased))


def mean_minus_std(rewards: torch.Tensor, context: RewardContext = NOTHING, *, weight: float = 1.0) -> torch.Tensor:
    """(n,) mean less `weight` population standard deviations over the members of (M, n).

    Eisenstein et al. 2023, arXiv:2312.09244.
    """
    return rewards.mean(0) - weight * rewards.std(0, correction=0)
