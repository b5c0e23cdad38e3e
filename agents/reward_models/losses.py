"""Losses of reward models."""

from __future__ import annotations

from torch import Tensor


def bradley_terry_loss(partial_returns: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy between the teacher's label and a softmax over partial returns.

    loss_i = - sum_j label_ij * log softmax_j(partial_returns_i). Skipped queries (rows of nan) weigh nothing.
    Christiano et al. 2017, sec. 2.2.3, arXiv:1706.03741, there with k = 2.

    Args:
        partial_returns: (..., n, k) predicted reward summed over time, in units of reward.
        label: (..., n, k) probability that the teacher picks each segment; rows sum to 1 or are nan.

    Returns:
        (..., n) loss a query, in nats.
    """
    return -(label.nan_to_num(0.0) * partial_returns.log_softmax(-1)).sum(-1)
