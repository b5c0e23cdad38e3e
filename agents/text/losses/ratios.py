"""Losses that judge each response by its own log-ratio, so that both are held to a level and not to a difference alone.

a_w = log pi(y_w)/ref(y_w) and a_l likewise, sums over tokens; s is the logistic function.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.text.losses import listwise, unpaired
from prefenvs.agents.text.losses.pairs import PairLogps


def nca(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Noise-contrastive alignment of a pair: -log s(beta a_w) - log s(-beta a_w) / 2 - log s(-beta a_l) / 2.

    Chen et al. 2024, arXiv:2402.05369. It holds the chosen response's likelihood up, which DPO does not.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: Weight of the KL penalty.

    Returns:
        (n,) in nats; 2 log 2 where the policy is the reference.
    """
    chosen, rejected = beta * pairs.chosen_ratio, beta * pairs.rejected_ratio
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def infonca(pairs: PairLogps, *, beta: float = 0.1, temperature: float = 1.0) -> torch.Tensor:
    """Cross-entropy between softmaxes of scores and of implied rewards.

    -sum_k softmax(r / alpha)_k log softmax(beta a)_k with k = 2. Chen et al. 2024, arXiv:2402.05369;
    `listwise.infonca`, which this is, has any k.

    Args:
        pairs: n pairs, with reference log-probabilities and scores.
        beta: Weight of the KL penalty.
        temperature: alpha, in units of score. Towards 0 the loss is DPO's, where chosen scores are greater.

    Returns:
        (n,) in nats.
    """
    scores = torch.stack([pairs.need("chosen_score"), pairs.need("rejected_score")], -1)
    ratios = torch.stack([pairs.chosen_ratio, pairs.rejected_ratio], -1)
    return listwise.infonca(beta * ratios, scores, temperature=temperature)


def bco(pairs: PairLogps, *, beta: float = 0.1, shift: float | torch.Tensor = 0.0) -> torch.Tensor:
    """Binary classifier of good and bad responses: -log s(beta a_w - delta) - log s(-(beta a_l - delta)).

    Jung et al. 2024, arXiv:2404.04656. delta is a running mean of implied rewards that the caller keeps with
    `unpaired.updated_shift`; later public code leaves it out, which is shift=0.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: Weight of the KL penalty.
        shift: delta in nats, without gradient.

    Returns:
        (n,) in nats.
    """
    good = torch.ones_like(pairs.chosen_ratio, dtype=torch.bool)
    chosen = unpaired.bco_unpaired(pairs.chosen_ratio, good, beta=beta, shift=shift)
    return chosen + unpaired.bco_unpaired(pairs.rejected_ratio, ~good, beta=beta, shift=shift)


def kto_pair(pairs: PairLogps, *, beta: float = 0.1, reference_kl: float | torch.Tensor = 0.0) -> torch.Tensor:
    """KTO of the two responses as a desirable and an undesirable one: 2 - s(beta (a_w - z0)) - s(beta (z0 - a_l)).

    Ethayarajh et al. 2024, arXiv:2402.01306. `unpaired.kto` has weights and needs no pairs; z0 is from
    `unpaired.kto_reference_kl`.

    Returns:
        (n,) in (0, 2), without unit; 1 where the policy is the reference and z0 = 0.
    """
    good = torch.ones_like(pairs.chosen_ratio, dtype=torch.bool)
    chosen = unpaired.kto(pairs.chosen_ratio, good, beta=beta, reference_kl=reference_kl)
    return chosen + unpaired.kto(pairs.rejected_ratio, ~good, beta=beta, reference_kl=reference_kl)


def apo_zero(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Anchored preference optimisation, chosen up and rejected down: 1 - s(beta a_w) + s(beta a_l).

    D'Oosterlinck et al. 2024, arXiv:2408.06266. For chosen responses better than the policy's own. In (0, 2), no unit.
    """
    return 1 - (beta * pairs.chosen_ratio).sigmoid() + (beta * pairs.rejected_ratio).sigmoid()


def apo_down(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Anchored preference optimisation, both down and the rejected one more: s(beta a_w) + 1 - s(beta (a_w - a_l)).

    D'Oosterlinck et al. 2024, arXiv:2408.06266. For chosen responses worse than the policy's own. In (0, 2), no unit.
    """
    return (beta * pairs.chosen_ratio).sigmoid() + 1 - (beta * pairs.margin).sigmoid()


def sppo(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Self-play preference optimisation with hard labels: (a_w - 1 / (2 beta))^2 + (a_l + 1 / (2 beta))^2.

    Wu et al. 2024, arXiv:2405.00675, where eta = 1 / beta multiplies P(y wins) - 1/2, here +-1/2. In nats squared.
    """
    return (pairs.chosen_ratio - 0.5 / beta) ** 2 + (pairs.rejected_ratio + 0.5 / beta) ** 2


def cal_dpo(pairs: PairLogps, *, beta: float = 0.001) -> torch.Tensor:
    """DPO of unscaled log-ratios, each pulled to its level: -log s(D) + (a_w - 1/(2 beta))^2 + (a_l + 1/(2 beta))^2.

    Xiao et al. 2024, arXiv:2412.14516. beta sets the level of the calibration alone.
    """
    return -logsigmoid(pairs.margin) + sppo(pairs, beta=beta)


def flex_dpo(pairs: PairLogps, *, beta: float = 0.1, rejected_beta: float = 0.05) -> torch.Tensor:
    """DPO with a smaller beta for the rejected response: -log s(beta a_w - beta_l a_l).

    Yan et al. 2024 (3D-Properties), arXiv:2406.07327. Slows the fall of log pi(y_l), which DPO's gradient hastens by
    1 / pi(y_l). rejected_beta=beta gives DPO.
    """
    return -logsigmoid(beta * pairs.chosen_ratio - rejected_beta * pairs.rejected_ratio)


def aot_unpaired(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Stochastic dominance of chosen over rejected log-ratios: -log s(beta (sorted a_w - sorted a_l)).

    Each side is sorted over the batch, so a row is a quantile and not a pair. Melnyk et al. 2024 (unpaired),
    arXiv:2406.05882.

    Returns:
        (n,) in nats, one a quantile from the lowest.
    """
    return -logsigmoid(beta * (pairs.chosen_ratio.sort().values - pairs.rejected_ratio.sort().values))
