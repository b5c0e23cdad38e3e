"""Losses of policy gradients over tokens and whole responses. Gradients flow through `logps` and `values` alone."""

from __future__ import annotations

from collections.abc import Callable

import torch


def ppo_token_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> torch.Tensor:
    """Clipped surrogate a token: -min(w A, clip(w, 1 - clip, 1 + clip_high) A), w = pi / pi_old.

    Schulman et al. 2017, arXiv:1707.06347. A wider upper clip is DAPO's, Yu et al. 2025, arXiv:2503.14476.

    Args:
        logps: (n, T) log pi of the sampled tokens, with gradients.
        old_logps: (n, T) of the policy that sampled them.
        advantages: (n, T), or (n, 1) one a response.
        clip: Below 1, and above too if clip_high is None.
        clip_high: Above 1.

    Returns:
        (n, T) loss a token, unreduced: `AGGREGATIONS` reduce it with the mask.
    """
    ratio = (logps - old_logps).exp()
    clipped = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return torch.maximum(-advantages * ratio, -advantages * clipped)


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, *, clip: float | None = 0.2
) -> torch.Tensor:
    """Squared error of the critic, the worse of clipped and free: max((V - R)^2, (V_old + clip(V - V_old) - R)^2) / 2.

    The clipping is of public PPO code, not of the paper; clip=None leaves it out.

    Args:
        values: (n, T), with gradients.
        old_values: (n, T) when the responses were sampled.
        returns: (n, T) what they are fitted to.
        clip: In units of value.

    Returns:
        (n, T) unreduced, in units of value squared.
    """
    free = (values - returns).square()
    if clip is None:
        return 0.5 * free
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum(free, (held - returns).square())


def p3o_separate(
    logps: torch.Tensor, old_logps: torch.Tensor, rewards: torch.Tensor, *, clip: float = 0.2
) -> torch.Tensor:
    """Pairwise PPO that clips each response's own ratio (V1): -sum_i min(R_i w_i, R_i clip(w_i, 1 +- e)) / 2.

    R_1 = r_1 - r_2 = -R_2 and w_i = pi(y_i) / pi_old(y_i) of the whole response. Wu et al. 2023, arXiv:2310.00212.
    A constant added to both rewards changes nothing.

    Args:
        logps: (n, 2) sums over tokens of log pi of two responses to each prompt, with gradients.
        old_logps: (n, 2) of the policy that sampled them.
        rewards: (n, 2) with the KL penalty in them and no gradient, from `advantages.penalised_rewards`.
        clip: e.

    Returns:
        (n,) loss a pair, in units of reward.
    """
    ratio = (logps - old_logps).exp()
    difference = rewards - rewards.flip(-1)
    return -0.5 * torch.minimum(difference * ratio, difference * ratio.clamp(1 - clip, 1 + clip)).sum(-1)


def p3o_joint(
    logps: torch.Tensor, old_logps: torch.Tensor, rewards: torch.Tensor, *, clip: float = 0.2
) -> torch.Tensor:
    """Pairwise PPO that clips the ratio of the two (V2): -stop(w_1 w_2) min(R l, R clip(l, +-e)) / 2.

    R = r_1 - r_2 and l = log w_1 - log w_2. Wu et al. 2023, arXiv:2310.00212. See `p3o_separate` for arguments.
    """
    logs = logps - old_logps
    difference = rewards[:, 0] - rewards[:, 1]
    apart = logs[:, 0] - logs[:, 1]
    clipped = torch.minimum(difference * apart, difference * apart.clamp(-clip, clip))
    return -0.5 * logs.sum(-1).exp().detach() * clipped


def reinforce(logps: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """(n, ...) -A log pi, unreduced: of tokens (n, T) or of whole responses (n,). Advantages carry no gradient."""
    return -advantages.detach() * logps


def sequence_mean(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """() mean over responses of each one's mean over tokens (GRPO, arXiv:2402.03300): long ones weigh less a token.

    Args:
        losses: (n, T) loss a token.
        mask: (n, T) 1 at response tokens.
    """
    return (_counted(losses, mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def token_mean(losses: torch.Tensor, mask: torch.Tensor, *, tokens: torch.Tensor | float | None = None) -> torch.Tensor:
    """() sum over tokens / their number, of this batch (BNPO) or, given as `tokens`, of a larger one (DAPO).

    Yu et al. 2025, arXiv:2503.14476.

    Args:
        losses: (n, T) loss a token.
        mask: (n, T) 1 at response tokens.
        tokens: Response tokens of all minibatches, whose gradients then add up to the whole one's; or that number times
            the share of the responses that are in this one, and the gradients have the whole one's as their mean.
    """
    return _counted(losses, mask).sum() / (mask.sum().clamp(min=1) if tokens is None else tokens)


def fixed_length_mean(losses: torch.Tensor, mask: torch.Tensor, *, max_tokens: int) -> torch.Tensor:
    """() sum over tokens / (n max_tokens), whatever the lengths (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783).

    Args:
        losses: (n, T) loss a token.
        mask: (n, T) 1 at response tokens.
        max_tokens: The length limit, a constant of the run.
    """
    return _counted(losses, mask).sum() / (losses.shape[0] * max_tokens)


AGGREGATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "bnpo": token_mean,
    "dapo": token_mean,
    "dr_grpo": fixed_length_mean,
    "grpo": sequence_mean,
}
"""How losses a token (n, T) become one number, by method; "dapo" is given the `tokens` of the rollout."""


def _counted(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(n, T) losses, 0 where the mask is: what stands at padding is not read. Gradients still need it finite."""
    return torch.where(mask.bool(), losses, 0.0)
