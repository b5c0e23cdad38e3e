"""How far a policy is from its reference, from samples, and controllers that hold it there.

The estimators take log pi(y) - log ref(y) of samples y from pi, a token or a whole response, and have KL(pi || ref) as
their mean or near it. Schulman 2020, "Approximating KL divergence".
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def k1(log_ratios: torch.Tensor) -> torch.Tensor:
    """(...) log pi/ref in nats: unbiased, of either sign."""
    return log_ratios


def k2(log_ratios: torch.Tensor) -> torch.Tensor:
    """(...) (log pi/ref)^2 / 2 in nats: biased where pi and ref are far apart, never negative."""
    return 0.5 * log_ratios.square()


def k3(log_ratios: torch.Tensor) -> torch.Tensor:
    """(...) ref/pi - 1 + log pi/ref in nats: unbiased and never negative; its variance may be large."""
    return torch.expm1(-log_ratios) + log_ratios


KL_ESTIMATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""Estimators of KL(pi || ref) by name: (...) log-ratios of samples from pi to (...) nats."""


def adaptive_kl(coefficient: float, kl: float, *, target: float, samples: int, horizon: int = 10_000) -> float:
    """The KL coefficient after one more batch: multiplied by 1 + clip(KL / target - 1, +-0.2) samples / horizon.

    Ziegler et al. 2019, sec. 2.2, arXiv:1909.08593.

    Args:
        coefficient: beta before, units of reward a nat.
        kl: KL measured on the batch, nats a response.
        target: KL wanted.
        samples: Responses in the batch.
        horizon: Responses over which a constant error of 20% multiplies beta by about e^0.2.

    Returns:
        beta after.
    """
    return coefficient * (1 + _clipped_error(kl, target) * samples / horizon)


def adaptive_kl_per_batch(coefficient: float, kl: float, *, target: float, rate: float = 0.1) -> float:
    """The same a batch, whatever its size: multiplied by 1 + rate clip((KL - target) / target, +-0.2).

    Ramamurthy et al. 2022 (RL4LMs), arXiv:2210.01241. See `adaptive_kl`.
    """
    return coefficient * (1 + rate * _clipped_error(kl, target))


def _clipped_error(kl: float, target: float) -> float:
    return min(max(kl / target - 1, -0.2), 0.2)
