"""DPO under a divergence other than the reverse KL: the log-ratio log u, u = pi/ref, is replaced by f'(u).

Wang et al. 2023, arXiv:2309.16240: -log s(beta f'(u_w) - beta f'(u_l)). f'(u) = log u + 1 is DPO itself: constants
cancel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.text.losses.pairs import PairLogps

_GREATEST_LOG_RATIO = 20.0  # exp of it, 5e8, is still exact enough in float32 and its square does not overflow


def forward_kl_dpo(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Forward KL, f'(u) = -1 / u. Wang et al. 2023, arXiv:2309.16240. Returns (n,) in nats.

    Log-ratios under -20 are held there: beyond, exp(-a) swamps float32.
    """
    return _f_dpo(pairs, beta, lambda ratio: -(-ratio).clamp(max=_GREATEST_LOG_RATIO).exp())


def js_dpo(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Jensen-Shannon, f'(u) = log(2 u / (1 + u)) = log s(log u) + log 2.

    Wang et al. 2023, arXiv:2309.16240. Returns (n,) in nats.
    """
    return _f_dpo(pairs, beta, logsigmoid)


def alpha_dpo(pairs: PairLogps, *, beta: float = 0.1, alpha: float = 0.5) -> torch.Tensor:
    """Alpha divergence, f'(u) = u^(alpha - 1) / (alpha - 1). Wang et al. 2023, arXiv:2309.16240.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: Weight of the penalty.
        alpha: Not 1, where the limit is DPO; 0 gives the forward KL. The paper writes 1 - alpha for it.

    Returns:
        (n,) in nats.

    Raises:
        ValueError: if alpha is 1.
    """
    if alpha == 1:
        raise ValueError("alpha=1.0, expected another number: the limit is the reverse KL, which is the loss 'dpo'.")
    power = alpha - 1
    return _f_dpo(pairs, beta, lambda ratio: (power * ratio).clamp(max=_GREATEST_LOG_RATIO).exp() / power)


def chi_po(pairs: PairLogps, *, beta: float = 0.1, bound: float = float("inf")) -> torch.Tensor:
    """Chi-squared mixed with KL, the link phi(u) = u + log u: -log s(clip(beta (phi(u_w) - phi(u_l)), +-bound)).

    Huang et al. 2024, arXiv:2407.13399. One line changed from DPO, and pessimistic enough not to over-optimise.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: Weight of the penalty.
        bound: 2 R_max, twice the greatest reward, in nats; a clipped pair has no gradient.

    Returns:
        (n,) in nats.
    """

    def link(ratio: torch.Tensor) -> torch.Tensor:
        return ratio + ratio.clamp(max=_GREATEST_LOG_RATIO).exp()

    return -logsigmoid((beta * (link(pairs.chosen_ratio) - link(pairs.rejected_ratio))).clamp(-bound, bound))


def _f_dpo(pairs: PairLogps, beta: float, slope: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """(n,) -log s(beta (f'(u_w) - f'(u_l))), with f' as a function of log u."""
    return -logsigmoid(beta * (slope(pairs.chosen_ratio) - slope(pairs.rejected_ratio)))
