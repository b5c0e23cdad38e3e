"""DPO with a term against what goes wrong in it: collapse of the chosen likelihood, length, drift, stale pairs.

D and z = beta D are the margin of log-ratios and its scaled form, a_w and a_l the log-ratios, s the logistic function.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.text.losses.margins import dpo
from prefenvs.agents.text.losses.pairs import PairLogps
from prefenvs.agents.text.losses.reference_free import sft, sft_norm


def rpo(pairs: PairLogps, *, beta: float = 0.01, eta: float = 0.005) -> torch.Tensor:
    """DPO with the *summed* likelihood of the chosen response: -log s(z) - eta beta log pi(y_w).

    Liu et al. 2024, arXiv:2405.16436: a pessimistic max-min over policy and reward, chosen responses as the baseline.
    `iterative_rpo` is the other objective known as RPO.

    Args:
        pairs: n pairs, with reference log-probabilities.
        beta: Weight of the KL penalty.
        eta: Weight of pessimism, multiplied by beta. 0 gives DPO.

    Returns:
        (n,) in nats.
    """
    return dpo(pairs, beta=beta) + eta * beta * sft(pairs)


def iterative_rpo(pairs: PairLogps, *, beta: float = 0.1, nll_weight: float = 1.0) -> torch.Tensor:
    """DPO with the *mean* likelihood of the chosen response: -log s(z) - alpha log pi(y_w) / |y_w|.

    Pang et al. 2024, arXiv:2404.19733; public code's `rpo_alpha` and "DPO + SFT". nll_weight=0 gives DPO. (n,) in nats.
    """
    return dpo(pairs, beta=beta) + nll_weight * sft_norm(pairs)


def dpop(pairs: PairLogps, *, beta: float = 0.1, penalty: float = 50.0) -> torch.Tensor:
    """DPO-positive, which keeps the chosen response as likely as before: -log s(beta (D - lambda max(0, -a_w))).

    Pal et al. 2024, arXiv:2402.13228. penalty=0 gives DPO. Returns (n,) in nats.
    """
    return -logsigmoid(beta * (pairs.margin - penalty * torch.relu(-pairs.chosen_ratio)))


def r_dpo(pairs: PairLogps, *, beta: float = 0.1, length_weight: float = 0.01) -> torch.Tensor:
    """DPO regularised in length: -log s(z + alpha (|y_w| - |y_l|)).

    Park et al. 2024, arXiv:2403.19159. A longer chosen response is explained by its length already, so it moves the
    policy less.

    Args:
        pairs: n pairs, with reference log-probabilities and token counts.
        beta: Weight of the KL penalty.
        length_weight: alpha in nats a token. 0 gives DPO.

    Returns:
        (n,) in nats.
    """
    longer = pairs.need("chosen_tokens") - pairs.need("rejected_tokens")
    return -logsigmoid(beta * pairs.margin + length_weight * longer)


def tdpo1(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """Token-level DPO: -log s(z - beta (SK_l - SK_w)), SK the forward KL summed along a response.

    Zeng et al. 2024, arXiv:2404.11999. Gradients flow through both SK. Returns (n,) in nats.
    """
    difference = pairs.need("rejected_sequential_kl") - pairs.need("chosen_sequential_kl")
    return -logsigmoid(beta * (pairs.margin - difference))


def tdpo2(pairs: PairLogps, *, beta: float = 0.1, drift_weight: float = 0.5) -> torch.Tensor:
    """Token-level DPO that holds back drift on rejected responses alone: -log s(z - alpha beta (SK_l - stop(SK_w))).

    Zeng et al. 2024, arXiv:2404.11999; alpha is 0.5 there. drift_weight=0 gives DPO. Returns (n,) in nats.
    """
    difference = pairs.need("rejected_sequential_kl") - pairs.need("chosen_sequential_kl").detach()
    return -logsigmoid(beta * (pairs.margin - drift_weight * difference))


def tgdpo(pairs: PairLogps, *, beta: float = 0.1, guidance_weight: float = 0.5) -> torch.Tensor:
    """DPO whose tokens may leave the reference by as much as a guiding reward r_t of theirs allows.

    -log s(sum_t beta (1 + alpha r_t) a_t over y_w - sum_t beta (1 - alpha r_t) a_t over y_l), a_t the log-ratio of y_t.
    Zhu et al. 2025, arXiv:2506.14574, where r_t is beta times the log-ratio of a policy trained before. As the factors
    are constants, only sum_t r_t a_t is needed of the tokens.

    Args:
        pairs: n pairs, with reference log-probabilities and guided ratios.
        beta: As in DPO.
        guidance_weight: alpha. 0 gives DPO; at alpha |r_t| > 1 a factor changes sign.

    Returns:
        (n,) in nats.
    """
    guided = pairs.need("chosen_guided_ratio") + pairs.need("rejected_guided_ratio")
    return -logsigmoid(beta * (pairs.margin + guidance_weight * guided))


def wpo(pairs: PairLogps, *, beta: float = 0.1) -> torch.Tensor:
    """DPO weighted by how much the policy would write the pair itself: -w log s(z). Zhou et al. 2024, arXiv:2406.11827.

    Reads log-probabilities, token counts and log collisions. No gradient flows through w.
    """
    return wpo_weight(pairs) * dpo(pairs, beta=beta)


def wpo_weight(pairs: PairLogps) -> torch.Tensor:
    """(n,) w = min(1, w(y_w) w(y_l)), w(y) = exp(mean_t (log pi(y_t) - log sum_v pi(v)^2)), detached.

    The collision probability sum_v pi(v)^2 is what a sampled token gets on average: w is about 1 for the policy's own
    text.
    Zhou et al. 2024, arXiv:2406.11827, "sampled alignment"; without the bound of 1 in some public code.
    """
    chosen = (pairs.policy_chosen - pairs.need("chosen_log_collision")) / pairs.need("chosen_tokens")
    rejected = (pairs.policy_rejected - pairs.need("rejected_log_collision")) / pairs.need("rejected_tokens")
    return (chosen + rejected).detach().clamp(max=0.0).exp()
