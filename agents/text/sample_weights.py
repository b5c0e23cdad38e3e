"""From samples of a reference policy to its tilted form, pi* = ref exp(r / beta) / Z: accept or weigh them."""

from __future__ import annotations

import torch


def rso_acceptance(rewards: torch.Tensor, *, beta: float, greatest: torch.Tensor | None = None) -> torch.Tensor:
    """Probability that statistical rejection sampling keeps each sample: exp((r - r_max) / beta), at most 1.

    Liu et al. 2023, arXiv:2309.06657. Kept samples follow ref exp(r / beta) / Z exactly if r_max bounds r from above;
    the greatest of the samples themselves, the paper's choice, leaves a bias that falls with N. beta to infinity keeps
    all, beta to 0 the best alone.

    Args:
        rewards: (..., N) of samples for one prompt.
        beta: Weight of the KL penalty, units of reward a nat.
        greatest: (...) r_max; None for the greatest of the samples.

    Returns:
        (..., N) in (0, 1].
    """
    bound = rewards.amax(-1) if greatest is None else greatest
    return ((rewards - bound.unsqueeze(-1)) / beta).clamp(max=0.0).exp()


def rejection_sample(
    rewards: torch.Tensor, *, beta: float, rng: torch.Generator, greatest: torch.Tensor | None = None
) -> torch.Tensor:
    """(..., N) bool, which samples one pass of statistical rejection sampling keeps. See `rso_acceptance`.

    `rng` is on the device of `rewards`. With r_max from the samples the best one is always kept.
    """
    draws = torch.rand(rewards.shape, generator=rng, device=rewards.device, dtype=rewards.dtype)
    return draws < rso_acceptance(rewards, beta=beta, greatest=greatest)


def reward_weights(rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Weights of reward-weighted regression, softmax over the samples of r / beta: fit log pi to them.

    Peters and Schaal 2007. Weighted by these, the samples' log-likelihood has its maximum at ref exp(r / beta) / Z as
    N grows.

    Args:
        rewards: (..., N) of samples for one prompt.
        beta: Units of reward a nat. Towards 0 the best sample alone counts.

    Returns:
        (..., N), summing to 1.
    """
    return (rewards / beta).softmax(-1)
