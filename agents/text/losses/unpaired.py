"""Losses of single responses with a good-or-bad label or a score, and the state that some of them keep.

a = log pi(y)/ref(y), the sum over tokens, of n responses; s is the logistic function. Functions for loops of your own:

>>> def ratios(prompts, completions):                        # of the suite's language models
...     return (policy.logprobs(prompts, completions) - reference.logprobs(prompts, completions)).sum(-1)
>>> z0 = kto_reference_kl(ratios(prompts, completions.roll(1, 0)))                                   # doctest: +SKIP
>>> kto(ratios(prompts, completions), desirable, reference_kl=z0).mean().backward()                  # doctest: +SKIP
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def kto(
    ratios: torch.Tensor,
    desirable: torch.Tensor,
    *,
    beta: float = 0.1,
    reference_kl: float | torch.Tensor = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """Kahneman-Tversky optimisation: lambda (1 - s(beta (a - z0))) if desirable, lambda (1 - s(beta (z0 - a))) if not.

    Ethayarajh et al. 2024, arXiv:2402.01306.

    Args:
        ratios: (n,) a in nats.
        desirable: (n,) bool, whether the response is a good one.
        beta: Weight of the KL penalty.
        reference_kl: z0 in nats, from `kto_reference_kl`.
        desirable_weight: lambda of desirable responses.
        undesirable_weight: lambda of the others.

    Returns:
        (n,) without unit.
    """
    gain = torch.where(desirable, ratios - reference_kl, reference_kl - ratios)
    loss = 1 - (beta * gain).sigmoid()
    return torch.where(desirable, desirable_weight * loss, undesirable_weight * loss)


def kto_reference_kl(mismatched_ratios: torch.Tensor) -> torch.Tensor:
    """() z0 of KTO: the batch mean of a of responses to *other* prompts, at least 0, detached.

    Args:
        mismatched_ratios: (n,) log pi(y' | x) - log ref(y' | x), y' the response to another prompt of the batch.
    """
    return mismatched_ratios.detach().mean().clamp(min=0.0)


def bco_unpaired(
    ratios: torch.Tensor, desirable: torch.Tensor, *, beta: float = 0.1, shift: float | torch.Tensor = 0.0
) -> torch.Tensor:
    """Binary classifier optimisation: -log s(+-(beta a - delta)), + if desirable. Jung et al. 2024, arXiv:2404.04656.

    Args:
        ratios: (n,) a in nats.
        desirable: (n,) bool.
        beta: Weight of the KL penalty.
        shift: delta in nats, from `updated_shift`.

    Returns:
        (n,) in nats.
    """
    reward = beta * ratios - shift
    return -logsigmoid(torch.where(desirable, reward, -reward))


def updated_shift(
    shift: float | torch.Tensor,
    chosen_ratios: torch.Tensor,
    rejected_ratios: torch.Tensor,
    *,
    beta: float = 0.1,
    momentum: float = 0.9,
) -> torch.Tensor:
    """() delta of BCO after one more batch: m delta + (1 - m) (E beta a_w + E beta a_l) / 2, detached.

    Jung et al. 2024, arXiv:2404.04656. chosen_ratios (n,) and rejected_ratios (n',) are a in nats.
    """
    mean = beta * (chosen_ratios.detach().mean() + rejected_ratios.detach().mean()) / 2
    return momentum * shift + (1 - momentum) * mean


def dro(ratios: torch.Tensor, rewards: torch.Tensor, values: torch.Tensor, *, beta: float = 1.0) -> torch.Tensor:
    """Direct reward optimisation: (r - V - beta a)^2 / 2, for policy and value alike.

    Richemond et al. 2024, arXiv:2405.19107.

    Args:
        ratios: (n,) a in nats.
        rewards: (n,) r of the response.
        values: (n,) V of the prompt, learned.
        beta: Weight of the KL penalty, in units of reward a nat.

    Returns:
        (n,) in units of reward squared; 0 at pi = ref exp(r / beta) / Z, V = beta log Z.
    """
    return 0.5 * (rewards - values - beta * ratios) ** 2


def nash_md(
    logps: torch.Tensor,
    reference_logps: torch.Tensor,
    win_probability: torch.Tensor,
    *,
    beta: float = 0.1,
) -> torch.Tensor:
    """Nash mirror descent, policy-gradient form: -(P(y > y') - 1/2 - beta log pi(y)/mu(y)) log pi(y), y from pi.

    Munos et al. 2023, arXiv:2312.00886. The opponent's y' comes from a mixture of pi and the reference mu, made token
    by token. The bracket is detached, so the gradient is the paper's.

    Args:
        logps: (n,) log pi(y) of the policy's own responses.
        reference_logps: (n,) log mu(y).
        win_probability: (n,) P(y > y') in [0, 1].
        beta: Weight of the KL penalty, the paper's tau.

    Returns:
        (n,) surrogate loss whose gradient counts, not its value.
    """
    advantage = win_probability - 0.5 - beta * (logps - reference_logps)
    return -advantage.detach() * logps
