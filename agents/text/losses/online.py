"""Losses of online learning: DPO with a bonus on a third response, which makes the policy optimistic or pessimistic.

The bonus is linear in log pi and unbounded: watch the KL. Its sign decides: minimising +log pi(y) of a response that
the reference would give moves mass to where the reference gives little.
"""

from __future__ import annotations

import torch

from prefenvs.agents.text.losses.margins import dpo
from prefenvs.agents.text.losses.pairs import PairLogps


def xpo(pairs: PairLogps, *, beta: float = 0.1, optimism: float = 1e-5) -> torch.Tensor:
    """Exploratory preference optimisation: DPO + alpha log pi(y), y drawn from the reference.

    Xie et al. 2024, arXiv:2405.21046.

    Args:
        pairs: n pairs, with reference log-probabilities and `policy_sampled` of a response of the reference.
        beta: Weight of the KL penalty.
        optimism: alpha >= 0. 0 gives online DPO.

    Returns:
        (n,) in nats.
    """
    return dpo(pairs, beta=beta) + optimism * pairs.need("policy_sampled")


def selm(pairs: PairLogps, *, beta: float = 0.01, optimism: float = 1e-3) -> torch.Tensor:
    """Self-exploring language models: DPO + alpha beta (log pi(y) - log ref(y)), y from the reference or last policy.

    Zhang et al. 2024, arXiv:2405.19332. optimism=0 gives online DPO. Returns (n,) in nats.
    """
    return vpo(pairs, beta=beta, weight=optimism)


def vpo(pairs: PairLogps, *, beta: float = 0.1, weight: float = 1e-3) -> torch.Tensor:
    """Value-incentivised preference optimisation: DPO + w beta (log pi(y) - log ref(y)), y from a calibration policy.

    Cen et al. 2024, arXiv:2405.19320.

    Args:
        pairs: n pairs, with `policy_sampled` and `reference_sampled`. Offline y may be the chosen response.
        beta: Weight of the KL penalty.
        weight: w = alpha for optimism (online), w = -alpha for pessimism (offline); 0 gives DPO.

    Returns:
        (n,) in nats.
    """
    return dpo(pairs, beta=beta) + weight * beta * (pairs.need("policy_sampled") - pairs.need("reference_sampled"))
