"""Shapings of a reward, (n,) to (n,), none of which turns the order of two rewards of a prompt around.

s is the logistic function. Most are those compared in Fu et al. 2025, arXiv:2502.18770.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.reward_transforms.context import NOTHING, RewardContext

_SIGMOID_FIT = (0.2287885117782605, -0.01013091205649198, 0.0002026691698321839)
"""Coefficients of x, x^3 and x^5, least squares at 100 even points of [-5, 5]; of x^0 1/2, of even powers 0."""


def identity(rewards: torch.Tensor, context: RewardContext = NOTHING) -> torch.Tensor:
    """The reward as it is."""
    return rewards


def centre(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """Reward less the mean of the prompt's references: r - mean_m ref_m."""
    return rewards - context.need_references().mean(-1)


def clip(rewards: torch.Tensor, context: RewardContext, *, width: float = 1.0) -> torch.Tensor:
    """Reward held within `width` running standard deviations of the running mean."""
    seen = context.need_running()
    reach = width * seen.std
    return torch.minimum(torch.maximum(rewards, seen.mean - reach), seen.mean + reach)


def min_max(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """(r - low) / (high - low) of the running range; 0 while that is a point."""
    seen = context.need_running()
    width = seen.high - seen.low
    return torch.where(width > 0, (rewards - seen.low) / torch.where(width > 0, width, 1.0), 0.0)


def mean_std(rewards: torch.Tensor, context: RewardContext, *, eps: float = 1e-8) -> torch.Tensor:
    """Running z-score, (r - mean) / (std + eps)."""
    seen = context.need_running()
    return (rewards - seen.mean) / (seen.std + eps)


def lsc(rewards: torch.Tensor, context: RewardContext, *, quantile: float = 0.85) -> torch.Tensor:
    """Log-sigmoid centred: log s(r - ref), ref the quantile of a normal law fitted to the prompt's reference rewards.

    Wang et al. 2024, arXiv:2402.00742; the normal fit and the 0.85 as in Fu et al. 2025, arXiv:2502.18770. The sum over
    several rewards is the log-probability that all are good.

    Args:
        rewards: (n,).
        context: With references (n, M); M = 1 has no spread and is used as it is.
        quantile: In (0, 1).

    Returns:
        (n,) in nats, below 0.
    """
    references = context.need_references()
    spread = references.std(-1) if references.shape[-1] > 1 else torch.zeros_like(references[:, 0])
    deviations = 2**0.5 * torch.erfinv(torch.full_like(spread, 2 * quantile - 1))
    return logsigmoid(rewards - (references.mean(-1) + deviations * spread))


def par(rewards: torch.Tensor, context: RewardContext, *, slope: float = 1.0) -> torch.Tensor:
    """Preference as reward: mean_m s(k (r - ref_m)), the chance that y beats a reference response (Bradley-Terry).

    Fu et al. 2025, arXiv:2502.18770; k = 1 and M = 10 there, of which one is said to be enough. In (0, 1).
    """
    return _against_references(rewards, context, lambda apart: (slope * apart).sigmoid())


def slow_then_fast(rewards: torch.Tensor, context: RewardContext, *, shift: float = 3.0) -> torch.Tensor:
    """mean_m s(r - ref_m - 3): a sigmoid that is still flat where training starts. Fu et al. 2025, arXiv:2502.18770."""
    return _against_references(rewards, context, lambda apart: (apart - shift).sigmoid())


def sigmoid(rewards: torch.Tensor, context: RewardContext = NOTHING, *, slope: float = 1.0) -> torch.Tensor:
    """s(k r), not centred. In (0, 1)."""
    return (slope * rewards).sigmoid()


def tanh(rewards: torch.Tensor, context: RewardContext = NOTHING) -> torch.Tensor:
    """The hyperbolic tangent of r, not centred. In (-1, 1)."""
    return rewards.tanh()


def centred_tanh(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """mean_m tanh(r - ref_m). In (-1, 1)."""
    return _against_references(rewards, context, torch.tanh)


def polynomial(rewards: torch.Tensor, context: RewardContext = NOTHING) -> torch.Tensor:
    """Least-squares polynomial of degree 5 of the sigmoid over [-5, 5], held at 0 below and 1 above; not centred.

    As in Fu et al. 2025, arXiv:2502.18770.
    """
    squares = rewards.clamp(-5.0, 5.0).square()  # so that the branch not taken cannot overflow
    linear, cubic, quintic = _SIGMOID_FIT
    inside = 0.5 + rewards * (linear + squares * (cubic + squares * quintic))
    return torch.where(rewards.abs() < 5, inside, (rewards > 0).to(rewards.dtype))


def centred_polynomial(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """mean_m of `polynomial` at r - ref_m."""
    return _against_references(rewards, context, polynomial)


def saturate(rewards: torch.Tensor, context: RewardContext = NOTHING, *, ceiling: float) -> torch.Tensor:
    """min(r, c): nothing is gained beyond the ceiling c. Moskovitz et al. 2023 (PPO-SAT), arXiv:2310.04373."""
    return rewards.clamp(max=ceiling)


def _against_references(
    rewards: torch.Tensor, context: RewardContext, function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """(n,) mean over references of a function of r - ref_m."""
    return function(rewards.unsqueeze(-1) - context.need_references()).mean(-1)
