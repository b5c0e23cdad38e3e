"""What a policy does on an enumerable task, exactly: the probability of every completion."""

from __future__ import annotations

import numpy as np
import torch

from prefenvs.tasks.text.enumerable import EnumerableText
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


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(...) sum_y |p(y) - q(y)| / 2 in [0, 1] of distributions (..., C)."""
    return 0.5 * np.abs(p - q).sum(-1)
