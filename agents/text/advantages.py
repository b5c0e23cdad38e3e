"""What a completion or a token did better than expected: of groups of completions to one prompt, and along tokens.

Groups are the last axis: rewards (..., G) of G completions to the same prompt. Everything here is a target and carries
no gradient of its own; pass rewards and values without one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def grpo(rewards: torch.Tensor, *, eps: float = 1e-4) -> torch.Tensor:
    """Rewards standardised in their group, by the sample standard deviation (G - 1): (r - mean) / (std + eps).

    Shao et al. 2024, arXiv:2402.03300. Public code differs in the standard deviation and in eps (1e-4 or 1e-6), which
    changes numbers in the third digit at G = 4; `grpo_population` is the other one.

    Args:
        rewards: (..., G), G >= 2.
        eps: In units of reward; a group of equal rewards has advantage 0.

    Returns:
        (..., G) without unit.

    Raises:
        ValueError: if a group has one completion.
    """
    _need_a_group(rewards)
    return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + eps)


def grpo_population(rewards: torch.Tensor, *, eps: float = 1e-4) -> torch.Tensor:
    """(..., G) GRPO by the population standard deviation (G). See `grpo`."""
    _need_a_group(rewards)
    return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, correction=0, keepdim=True) + eps)


def dr_grpo(rewards: torch.Tensor) -> torch.Tensor:
    """(..., G) rewards centred in their group and not scaled. Liu et al. 2025, arXiv:2503.20783. In units of reward."""
    _need_a_group(rewards)
    return rewards - rewards.mean(-1, keepdim=True)


def rloo(rewards: torch.Tensor) -> torch.Tensor:
    """Reward less the mean of the others': r_i - mean_{j != i} r_j = G / (G - 1) (r_i - mean).

    Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019. The gradient estimate stays unbiased.

    Args:
        rewards: (..., G), G >= 2.

    Returns:
        (..., G) in units of reward.

    Raises:
        ValueError: if a group has one completion.
    """
    _need_a_group(rewards)
    return dr_grpo(rewards) * (rewards.shape[-1] / (rewards.shape[-1] - 1))


GROUP_ADVANTAGES: dict[str, Callable[..., torch.Tensor]] = {
    "dr_grpo": dr_grpo,
    "grpo": grpo,
    "grpo_population": grpo_population,
    "rloo": rloo,
}
"""Advantages in a group of completions by name, (..., G) to (..., G). `GROUP_ADVANTAGES["mine"] = mine` adds one."""


def reinforce_plus_plus(token_rewards: torch.Tensor, mask: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """REINFORCE++: rewards to go, standardised over all tokens of the batch. Hu et al. 2025, arXiv:2501.03262.

    It compares over the batch and not within groups, so it is no entry of GROUP_ADVANTAGES; for loops of your own, with
    `policy_losses.ppo_token_loss`.

    Args:
        token_rewards: (n, T) with the KL penalty and the terminal score in them, from `penalised_token_rewards`.
        mask: (n, T) 1 at response tokens.
        eps: Added to the variance.

    Returns:
        (n, T) without unit; 0 at padding.
    """
    to_go = (token_rewards * mask).flip(-1).cumsum(-1).flip(-1)
    return whitened(to_go, mask, eps=eps)


def whitened(values: torch.Tensor, mask: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """(n, T) values with mean 0 and population variance 1 over the tokens where mask (n, T) is 1; 0 elsewhere."""
    tokens = mask.sum()
    centred = (values - (values * mask).sum() / tokens) * mask
    return centred * (centred.square().sum() / tokens + eps).rsqrt()


def penalised_token_rewards(
    scores: torch.Tensor, logps: torch.Tensor, reference_logps: torch.Tensor, mask: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """The reward of PPO over tokens: -beta (log pi - log ref) at each, and the score. Without gradient.

    Ziegler et al. 2019, arXiv:1909.08593; Ouyang et al. 2022, arXiv:2203.02155.

    Args:
        scores: (n,) reward of the whole response, which comes with its last token, or (n, T) reward of each token.
        logps: (n, T) log pi of the sampled tokens.
        reference_logps: (n, T) log ref of them.
        mask: (n, T) 1 at response tokens, which begin the row; 0 after them.
        beta: Units of reward a nat.

    Returns:
        (n, T) in units of reward; 0 at padding. Its sum over T is score - beta log pi/ref.
    """
    penalty = torch.where(mask.bool(), beta * (logps - reference_logps), 0.0).detach()
    following = torch.nn.functional.pad(mask, (0, 1))[:, 1:]
    last = mask.bool() & ~following.bool()
    paid = torch.where(last, scores.unsqueeze(-1), 0.0) if scores.ndim == 1 else torch.where(mask.bool(), scores, 0.0)
    return paid.detach() - penalty


def penalised_rewards(
    scores: torch.Tensor, logps: torch.Tensor, reference_logps: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """(n,) score - beta log pi/ref of whole responses, detached: the reward of RLOO, P3O and REINFORCE.

    Args:
        scores: (n,) in units of reward.
        logps: (n,) sum over tokens of log pi, of the policy that sampled.
        reference_logps: (n,) the same of the reference.
        beta: Units of reward a nat.
    """
    return (scores - beta * (logps - reference_logps)).detach()


def token_gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float = 1.0, trace: float = 0.95
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantages over the tokens of a response, which ends: nothing is bootstrapped after its last token.

    A_t = sum_k (gamma lambda)^k (r_{t+k} + gamma V_{t+k+1} - V_{t+k}). Schulman et al. 2015, arXiv:1506.02438.

    Args:
        rewards: (n, T).
        values: (n, T) V before each token, in units of reward.
        mask: (n, T) 1 at response tokens, which begin the row; 0 after them.
        gamma: Discount a token; 1 for text.
        trace: lambda in [0, 1].

    Returns:
        Advantages (n, T) and returns (n, T), advantages + values, what the critic is fitted to; both 0 at padding.
    """
    rewards, values = torch.where(mask.bool(), rewards, 0.0), torch.where(mask.bool(), values, 0.0)
    deltas = rewards + gamma * torch.nn.functional.pad(values, (0, 1))[:, 1:] - values
    ahead = torch.zeros_like(rewards[:, 0])
    advantages = []
    for delta in deltas.flip(-1).unbind(-1):  # over time, from the end: each needs the next
        ahead = delta + gamma * trace * ahead
        advantages.append(ahead)
    found = torch.where(mask.bool(), torch.stack(advantages[::-1], dim=-1), 0.0)
    return found, found + values


def _need_a_group(rewards: torch.Tensor) -> None:
    if rewards.shape[-1] < 2:
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)}, expected (..., G) with G >= 2 completions a prompt: one "
            "alone has nothing to be compared with."
        )
