"""What policies do on an enumerable task, exactly: the probability of every completion."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from prefenvs.tasks.text.enumerable import EnumerableText, all_completions
from prefenvs.tasks.text.lm import LanguageModel


@torch.no_grad()
def completion_probabilities(policy: LanguageModel, task: EnumerableText) -> np.ndarray:
    """(prompts, C) float64 probability of each of `task.completions()` after each prompt; rows sum to 1."""
    device = next(policy.parameters()).device  # type: ignore[attr-defined]
    prompts = torch.as_tensor(task.language.prompt_tokens, device=device)
    listed = torch.as_tensor(task.completions(), device=device)
    n, count = len(prompts), len(listed)
    logps = policy.logprobs(prompts.repeat_interleave(count, 0), listed.repeat(n, 1))
    return logps.double().sum(-1).reshape(n, count).exp().cpu().numpy()


def tree_logprobs(logits: torch.Tensor, steps: int) -> torch.Tensor:
    """Log-probability of every completion under tables of next-token logits, any number of policies at once.

    One pass from the root to the leaves, with gradients; what `Tabular` computes for the completions that it is given.

    Args:
        logits: (..., N, V) of the token after each beginning without an end, shorter ones first and in the order of the
            alphabet, N = sum_{t < T} (V - 1)^t. Token 0 is the end. Leading axes are policies, prompts.
        steps: T.

    Returns:
        (..., C) in nats, of `all_completions(V, T)`.
    """
    logps, words = logits.log_softmax(-1), logits.shape[-1] - 1
    written, ended, first = logps.new_zeros(*logps.shape[:-2], 1), [], 0
    for t in range(steps):  # from each beginning of t words to those of t + 1
        longer = written[..., None] + logps[..., first : first + words**t, :]
        first += words**t
        ended.append(longer[..., 0])
        written = longer[..., 1:].flatten(-2)
    return torch.cat([*ended, written], -1)[..., _breadth_first(words + 1, steps)]


@cache
def _breadth_first(vocab_size: int, steps: int) -> np.ndarray:
    """(C,) place of each listed completion among all of them ordered by their number of words."""
    listed, words = all_completions(vocab_size, steps), vocab_size - 1
    lengths = (listed != 0).sum(1)
    shorter = np.cumsum([0, *(words**t for t in range(steps))])[lengths]
    powers = lengths[:, None] - 1 - np.arange(steps)
    return shorter + np.where(listed != 0, (listed - 1) * words ** np.maximum(powers, 0), 0).sum(1)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(...) sum_y |p(y) - q(y)| / 2 in [0, 1] of distributions (..., C)."""
    return 0.5 * np.abs(p - q).sum(-1)
