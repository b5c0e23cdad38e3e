"""Losses of k responses to one prompt, ranked or scored.

`rewards` are beta a, a = log pi/ref summed over tokens, or another score that the policy implies. Functions for loops
of your own; of two responses `infonca` is the pair loss of that name, and `plackett_luce` is DPO.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def plackett_luce(rewards: torch.Tensor, ranking: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of a ranking, the best first: -sum_j log softmax(rewards of those left)_j.

    Rafailov et al. 2023, app. A.3, arXiv:2305.18290 (DPO on rankings); the softmaxes of PRO, Song et al. 2023,
    arXiv:2306.17492.

    Args:
        rewards: (n, k) implied rewards in nats.
        ranking: (n, k) int, the responses' indices from best to worst.

    Returns:
        (n,) in nats; log k! where all rewards are equal.
    """
    ordered = rewards.gather(-1, ranking)
    left = ordered.flip(-1).logcumsumexp(-1).flip(-1)  # over the ones not placed yet
    return (left - ordered).sum(-1)


def infonca(rewards: torch.Tensor, scores: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Cross-entropy between softmaxes of scores and of implied rewards. Chen et al. 2024, arXiv:2402.05369.

    Args:
        rewards: (n, k) implied rewards in nats.
        scores: (n, k) scores in their own units.
        temperature: alpha, in units of score.

    Returns:
        (n,) in nats.
    """
    return -((scores / temperature).softmax(-1) * rewards.log_softmax(-1)).sum(-1)


def lambda_loss(rewards: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """LiPO-lambda: logistic loss of each pair, weighted by what exchanging the two would change in the discounted gain.

    sum over i better than j of |2^r_i - 2^r_j| |1 / log(1 + tau_i) - 1 / log(1 + tau_j)| (-log s(s_i - s_j)), tau the
    rank by implied reward. Liu et al. 2024, arXiv:2402.01878. No gradient flows through the weights.

    Args:
        rewards: (n, k) implied rewards s in nats.
        scores: (n, k) scores r, in [0, 1] in the paper.

    Returns:
        (n,).
    """
    place = rewards.detach().argsort(-1, descending=True).argsort(-1) + 1
    discount = 1 / torch.log1p(place.to(rewards.dtype))
    gain = torch.exp2(scores)
    weight = _differences(gain).abs() * _differences(discount).abs()
    better = _differences(scores) > 0
    return (torch.where(better, weight, 0.0) * -logsigmoid(_differences(rewards))).sum((-1, -2))


def _differences(values: torch.Tensor) -> torch.Tensor:
    """(n, k, k) values_i - values_j."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)
