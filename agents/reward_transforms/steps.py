"""Bounded rewards from the step qualities of a process reward model, (n, K) to (n, K)."""

from __future__ import annotations

import torch

from prefenvs.agents.reward_transforms.context import NOTHING, RewardContext


def clip_steps(
    rewards: torch.Tensor,
    context: RewardContext = NOTHING,
    *,
    threshold: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """min(q_k - eta, 0) of step qualities: a further good step gains nothing.

    Gao et al. 2024, arXiv:2410.15115.

    Args:
        rewards: (n, K) q.
        context: Not read.
        threshold: eta.
        mask: (n, K) 1 at real steps; without it padding with any quality of at least eta counts 0.

    Returns:
        (n, K); 0 at padding.
    """
    clipped = (rewards - threshold).clamp(max=0.0)
    return clipped if mask is None else torch.where(mask.bool(), clipped, 0.0)


def log_steps(
    rewards: torch.Tensor, context: RewardContext = NOTHING, *, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Logarithms of step qualities that are probabilities: their sum is log P(all steps are right).

    Lightman et al. 2023, arXiv:2305.20050, whose score of a solution is the product. More steps never gain.

    Args:
        rewards: (n, K) q in [0, 1].
        context: Not read.
        mask: (n, K) 1 at real steps; without it padding with quality 1 counts 0.

    Returns:
        (n, K) in nats, finite; 0 at padding.
    """
    logs = rewards.clamp_min(torch.finfo(rewards.dtype).tiny).log()
    return logs if mask is None else torch.where(mask.bool(), logs, 0.0)


def delta_steps(
    rewards: torch.Tensor, context: RewardContext = NOTHING, *, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Differences of step qualities (n, K), whose sum is q_1 and whose reward to go is q_k up to the last step but one.

    r_k = q_k - q_{k+1}, r_{K-1} = q_{K-1}, r_K = 0. Gao et al. 2024, arXiv:2410.15115. A single step has reward 0.

    Args:
        rewards: (n, K) q.
        context: Not read.
        mask: (n, K) 1 at real steps, which begin the row; None where all rows have K steps.

    Returns:
        (n, K); 0 at padding.
    """
    steps = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.bool()
    counted = steps & _shifted(steps)  # all steps but each row's last
    kept = torch.where(counted, rewards, 0.0)
    return kept - _shifted(kept)


def _shifted(values: torch.Tensor) -> torch.Tensor:
    """(n, K) the next step's value at each step, 0 after the last."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
