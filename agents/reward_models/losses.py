"""Losses of reward models."""

from __future__ import annotations

import torch
from torch import Tensor


def bradley_terry_loss(partial_returns: Tensor, label: Tensor, margin: Tensor | None = None) -> Tensor:
    """Cross-entropy between the teacher's label and a softmax over partial returns.

    loss_i = - sum_j label_ij * log softmax_j(partial_returns_i). Skipped queries (rows of nan) weigh nothing.
    Christiano et al. 2017, sec. 2.2.3, arXiv:1706.03741, there with k = 2.
    With a margin m the preferred segment has to lead by it, - log s(r_w - r_l - m) for pairs: Touvron et al. 2023,
    eq. 2, arXiv:2307.09288.

    Args:
        partial_returns: (..., n, k) predicted reward summed over time, in units of reward.
        label: (..., n, k) probability that the teacher picks each segment; rows sum to 1 or are nan.
        margin: (..., n) in units of reward; None for 0.

    Returns:
        (..., n) loss a query, in nats.
    """
    if margin is None:
        likelihood = partial_returns.log_softmax(-1)
    else:
        handicap = margin[..., None, None] * torch.eye(label.shape[-1], device=margin.device, dtype=margin.dtype)
        likelihood = (partial_returns.unsqueeze(-2) - handicap).log_softmax(-1).diagonal(dim1=-2, dim2=-1)
    return -(label.nan_to_num(0.0) * likelihood).sum(-1)


def centring_penalty(partial_returns: Tensor, label: Tensor) -> Tensor:
    """Squared sum over the segments of a query, (r_w + r_l)^2: settles the level that Bradley-Terry leaves free.

    Eisenstein et al. 2023, arXiv:2312.09244, there with k = 2. Skipped queries weigh nothing.

    Args:
        partial_returns: (..., n, k).
        label: (..., n, k).

    Returns:
        (..., n) in squared units of reward.
    """
    return torch.where(label.isnan().any(-1), 0.0, partial_returns.sum(-1).square())
