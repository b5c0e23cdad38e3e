"""Losses without a reference policy.

m_w = log pi(y_w), the sum over tokens; mean_w = m_w / |y_w|; s is the logistic function.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.text.losses.pairs import PairLogps


def sft(pairs: PairLogps) -> torch.Tensor:
    """(n,) negative log-likelihood of the chosen response, summed over tokens: -m_w, in nats."""
    return -pairs.policy_chosen


def sft_norm(pairs: PairLogps) -> torch.Tensor:
    """(n,) negative log-likelihood of the chosen response a token: -mean_w, in nats a token."""
    return -pairs.chosen_mean


def simpo(pairs: PairLogps, *, beta: float = 2.0, margin: float = 1.0) -> torch.Tensor:
    """Simple preference optimisation on mean log-probabilities: -log s(beta mean_w - beta mean_l - gamma).

    Meng et al. 2024, arXiv:2405.14734.

    Args:
        pairs: n pairs, with token counts.
        beta: Scale of the reward, a token.
        margin: gamma >= 0 in nats, by how much chosen rewards should exceed; the paper's 0.5 to 1.6.

    Returns:
        (n,) in nats.
    """
    return -logsigmoid(beta * (pairs.chosen_mean - pairs.rejected_mean) - margin)


def alpha_po(pairs: PairLogps, *, beta: float = 2.0, margin: float = 1.0, alpha: float = 0.25) -> torch.Tensor:
    """SimPO with the reward (1 - p^-alpha) / alpha of the mean likelihood p = exp(mean).

    Gupta et al. 2025, arXiv:2501.03884.

    Args:
        pairs: n pairs, with token counts.
        beta: As in SimPO.
        margin: As in SimPO.
        alpha: Not 0, where the limit is SimPO.

    Returns:
        (n,) in nats.

    Raises:
        ValueError: if alpha is 0.
    """
    if alpha == 0:
        raise ValueError("alpha=0.0, expected another number: the limit is log p, which is the loss 'simpo'.")

    def reward(mean: torch.Tensor) -> torch.Tensor:
        return -torch.expm1(-alpha * mean) / alpha

    return -logsigmoid(beta * (reward(pairs.chosen_mean) - reward(pairs.rejected_mean)) - margin)


def cpo(pairs: PairLogps, *, beta: float = 0.1, nll_weight: float = 1.0) -> torch.Tensor:
    """Contrastive preference optimisation: -log s(beta (m_w - m_l)) - lambda m_w, all *sums* over tokens.

    Xu et al. 2024, arXiv:2401.08417. DPO with a uniform reference, and imitation of the chosen response.
    Returns (n,) in nats.
    """
    return -logsigmoid(beta * (pairs.policy_chosen - pairs.policy_rejected)) + nll_weight * sft(pairs)


def cpo_norm(pairs: PairLogps, *, beta: float = 0.1, nll_weight: float = 1.0) -> torch.Tensor:
    """CPO whose imitation is a mean over tokens, its margin still a sum: -log s(beta (m_w - m_l)) - lambda mean_w."""
    return -logsigmoid(beta * (pairs.policy_chosen - pairs.policy_rejected)) + nll_weight * sft_norm(pairs)


def orpo(pairs: PairLogps, *, odds_weight: float = 0.1) -> torch.Tensor:
    """Odds-ratio preference optimisation: -mean_w - lambda log s(log odds_w - log odds_l), odds = p / (1 - p).

    p = exp(mean). Hong et al. 2024, arXiv:2403.07691.

    Args:
        pairs: n pairs, with token counts; mean log-probabilities under 0.
        odds_weight: lambda.

    Returns:
        (n,) in nats.
    """

    def log_odds(mean: torch.Tensor) -> torch.Tensor:
        # log(1 - e^m) as log(-expm1(m)), exact where p is near 1; a mean of 0 would give infinite odds
        return mean - torch.log(-torch.expm1(mean.clamp(max=-torch.finfo(mean.dtype).eps)))

    log_odds_ratio = log_odds(pairs.chosen_mean) - log_odds(pairs.rejected_mean)
    return sft_norm(pairs) - odds_weight * logsigmoid(log_odds_ratio)


def slic_hf(pairs: PairLogps, *, margin: float = 1.0, nll_weight: float = 0.1) -> torch.Tensor:
    """Sequence likelihood calibration: max(0, delta - m_w + m_l) - lambda m_w, *sums* over tokens.

    Zhao et al. 2023, arXiv:2305.10425; its regularisation target is here the chosen response. Returns (n,) in nats.
    """
    return torch.relu(margin - pairs.policy_chosen + pairs.policy_rejected) + nll_weight * sft(pairs)


def rrhf(pairs: PairLogps, *, nll_weight: float = 1.0) -> torch.Tensor:
    """Rank responses by mean log-probability and imitate the best: max(0, mean_l - mean_w) - lambda m_w.

    Yuan et al. 2023, arXiv:2304.05302, of two responses. The rank term is a mean over tokens, the imitation a sum.
    """
    return torch.relu(pairs.rejected_mean - pairs.chosen_mean) + nll_weight * sft(pairs)
