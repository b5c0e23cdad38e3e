"""Sums over the tokens of a response that some losses read: forward KL, collision probability, guided log-ratio.

Position t of the logits is the distribution *of* token t, given what stands before it. Padding has mask 0 and counts
nothing.
"""

from __future__ import annotations

import torch


def sequential_kl(reference_logits: torch.Tensor, policy_logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(n,) sum over response tokens of KL(ref || pi) in nats. TDPO, arXiv:2404.11999.

    Args:
        reference_logits: (n, T, V).
        policy_logits: (n, T, V), with gradients.
        mask: (n, T).
    """
    reference, policy = reference_logits.log_softmax(-1), policy_logits.log_softmax(-1)
    ratio = torch.where(reference == -torch.inf, 0.0, reference - policy)  # what ref never writes counts nothing
    return _masked_sum((reference.exp() * ratio).sum(-1), mask)


def log_collision(policy_logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(n,) sum over response tokens of log sum_v pi(v)^2 in nats, detached. WPO, arXiv:2406.11827.

    Args:
        policy_logits: (n, T, V).
        mask: (n, T).
    """
    return _masked_sum((2 * policy_logits.detach().log_softmax(-1)).logsumexp(-1), mask)


def guided_ratio(
    token_logps: torch.Tensor, reference_token_logps: torch.Tensor, guidance: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """(n,) sum over response tokens of g_t (log pi(y_t) - log ref(y_t)) in nats. TGDPO, arXiv:2506.14574.

    Args:
        token_logps: (n, T) log pi of the response's tokens, with gradients.
        reference_token_logps: (n, T) log ref of them.
        guidance: (n, T) g_t, detached here.
        mask: (n, T).
    """
    return _masked_sum(guidance.detach() * (token_logps - reference_token_logps), mask)


def _masked_sum(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(n,) sum of (n, T) values where the mask is 1; what stands at padding is not read.

    Gradients still need it finite.
    """
    return torch.where(mask.bool(), values, 0.0).sum(-1)
