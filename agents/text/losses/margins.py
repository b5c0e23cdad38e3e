"""Losses of the margin D alone: how much more the policy than the reference prefers the chosen response.

D = log pi(y_w)/ref(y_w) - log pi(y_l)/ref(y_l), all sums over tokens; z = beta D; s is the logistic function.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.text.losses.pairs import PairLogps


def dpo(pairs: PairLogps, *, beta: float | torch.Tensor = 0.1) -> torch.Tensor:
    """Direct preference optimisation: -log s(z).

    Rafailov et al. 2023, eq. 7, arXiv:2305.18290.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: Weight of the KL penalty whose optimum the loss inverts; a number, or (n,) one a pair.

    Returns:
        (n,) loss a pair in nats; log 2 at D = 0.
    """
    return -logsigmoid(beta * pairs.margin)


def dpo_norm(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """DPO of log-ratios a token: -log s(beta (a_w / |y_w| - a_l / |y_l|)). Lambert et al. 2024, arXiv:2411.15124."""
    return -logsigmoid(beta * _mean_margin(pairs))


def cdpo(pairs: PairLogps, *, beta: float = 0.1, flip: float = 0.1) -> torch.Tensor:
    """Conservative DPO, the cross-entropy to smoothed labels: -(1 - eps) log s(z) - eps log s(-z).

    Mitchell 2023, "A note on DPO with noisy preferences"; as compared in Chowdhury et al. 2024, arXiv:2403.00409.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: As in DPO.
        flip: eps in [0, 1/2), the probability that a label is wrong. 0 gives DPO.

    Returns:
        (n,) in nats.
    """
    z = beta * pairs.margin
    return -(1 - flip) * logsigmoid(z) - flip * logsigmoid(-z)


def robust_dpo(pairs: PairLogps, *, beta: float = 0.1, flip: float = 0.1) -> torch.Tensor:
    """The loss whose expectation over flips is DPO's clean one: (-(1 - eps) log s(z) + eps log s(-z)) / (1 - 2 eps).

    Chowdhury et al. 2024, arXiv:2403.00409. Unbounded below in D, unlike `cdpo`.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: As in DPO.
        flip: eps in [0, 1/2), the probability that a label is wrong. 0 gives DPO.

    Returns:
        (n,) in nats.
    """
    z = beta * pairs.margin
    return (-(1 - flip) * logsigmoid(z) + flip * logsigmoid(-z)) / (1 - 2 * flip)


def hinge(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Hinge on the log-ratios: max(0, 1 - z). Liu et al. 2023 (RSO), arXiv:2309.06657; `slic_hf` has none of ref."""
    return torch.relu(1 - beta * pairs.margin)


def ipo(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Identity preference optimisation on *summed* log-ratios: (D - 1 / (2 beta))^2.

    Azar et al. 2023, eq. 17, arXiv:2310.12036, with beta for the paper's tau. `ipo_norm` is the variant of public code.
    """
    return (pairs.margin - 1 / (2 * beta)) ** 2


def ipo_norm(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """IPO with each log-ratio divided by its tokens: (a_w / |y_w| - a_l / |y_l| - 1 / (2 beta))^2. See `ipo`."""
    return (_mean_margin(pairs) - 1 / (2 * beta)) ** 2


def exo(pairs: PairLogps, *, beta: float = 0.1, smoothing: float = 1e-3) -> torch.Tensor:
    """Exact optimisation, the reverse KL of the pair's law to smoothed labels.

    s(z) (log s(z) - log(1 - eps)) + s(-z) (log s(-z) - log eps). Ji et al. 2024, arXiv:2402.00856.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: As in DPO.
        smoothing: eps in (0, 1), the law's mass on the rejected response.

    Returns:
        (n,) in nats, at least 0.
    """
    z = beta * pairs.margin
    chosen, rejected = z.sigmoid(), (-z).sigmoid()
    return chosen * (logsigmoid(z) - math.log1p(-smoothing)) + rejected * (logsigmoid(-z) - math.log(smoothing))


def discopop(pairs: PairLogps, *, beta: float = 0.1, temperature: float = 0.05) -> torch.Tensor:
    """Blend of logistic and exponential loss that a language model found: (1 - k) (-log s(z)) + k exp(-z).

    k = s(z / t). Lu et al. 2024, arXiv:2406.08414, "log-ratio modulated loss". Not convex. Returns (n,) in nats.
    """
    z = beta * pairs.margin
    exponential = (z / temperature).sigmoid()
    # s(z / t) exp(-z) = exp(log s(z / t) - z) stays finite where exp(-z) alone would overflow, since t < 1
    return (1 - exponential) * -logsigmoid(z) + (logsigmoid(z / temperature) - z).exp()


def odpo(pairs: PairLogps, *, beta: float = 0.1, scale: float = 1.0) -> torch.Tensor:
    """DPO with an offset that grows with how much better the chosen response is: -log s(z - alpha log(r_w - r_l)).

    Amini et al. 2024, arXiv:2402.10571.

    Args:
        pairs: n pairs, with reference log-probabilities and scores r_w > r_l; other pairs give nan.
        beta: As in DPO.
        scale: alpha. 0 gives DPO.

    Returns:
        (n,) in nats.
    """
    offset = (pairs.need("chosen_score") - pairs.need("rejected_score")).log()
    return -logsigmoid(beta * pairs.margin - scale * offset)


def beta_dpo(
    pairs: PairLogps, *, beta: float = 0.1, scale: float = 0.6, usual_reward_margin: float | torch.Tensor = 0.0
) -> torch.Tensor:
    """DPO whose beta follows the batch: beta_batch = beta (1 + alpha (M - M0)), M the mean of beta D over the batch.

    Wu et al. 2024, arXiv:2407.08639, without its filter of pairs. No gradient flows through beta_batch. M0 is a
    running mean that the caller keeps with `updated_reward_margin`.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: beta at M = M0.
        scale: alpha; the paper's 0.6. 0 gives DPO.
        usual_reward_margin: M0 in nats.

    Returns:
        (n,) in nats.
    """
    return dpo(pairs, beta=adaptive_beta(pairs, beta=beta, scale=scale, usual_reward_margin=usual_reward_margin))


def adaptive_beta(
    pairs: PairLogps, *, beta: float, scale: float, usual_reward_margin: float | torch.Tensor
) -> torch.Tensor:
    """() beta_batch of `beta_dpo`, detached; floored at 1e-3, as at M far under M0 the formula turns negative."""
    reward_margin = beta * pairs.margin.detach().mean()
    return (beta * (1 + scale * (reward_margin - usual_reward_margin))).clamp(min=1e-3)


def updated_reward_margin(
    usual_reward_margin: float | torch.Tensor, pairs: PairLogps, *, beta: float = 0.1, momentum: float = 0.9
) -> torch.Tensor:
    """() M0 of `beta_dpo` after one more batch: m M0 + (1 - m) mean(beta D). Wu et al. 2024, arXiv:2407.08639."""
    return momentum * usual_reward_margin + (1 - momentum) * beta * pairs.margin.detach().mean()


def aot(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Stochastic dominance of the policy's margins over the reference's: -log s(beta (sorted pi - sorted ref margins)).

    Margins are log pi(y_w) - log pi(y_l) and the same of ref, each sorted over the batch, so a row is a quantile and
    not a pair. Melnyk et al. 2024 (paired), arXiv:2406.05882.

    Returns:
        (n,) in nats, one a quantile from the lowest.
    """
    policy = pairs.policy_chosen - pairs.policy_rejected
    reference = pairs.need("reference_chosen") - pairs.need("reference_rejected")
    return -logsigmoid(beta * (policy.sort().values - reference.sort().values))


def _mean_margin(pairs: PairLogps) -> torch.Tensor:
    """(n,) a_w / |y_w| - a_l / |y_l|."""
    return pairs.chosen_ratio / pairs.need("chosen_tokens") - pairs.rejected_ratio / pairs.need("rejected_tokens")
