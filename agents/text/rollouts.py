"""Completions that a policy writes in an environment, where they are recorded and can be asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefenvs.segments import Segments
from prefenvs.tasks.text.language import Language
from prefenvs.tasks.text.lm import LanguageModel, sample_in_parts


@dataclass(frozen=True, eq=False)
class Written:
    """n completions, one of each environment of a batch."""

    prompt_ids: np.ndarray
    """(n,) int64."""
    prompts: Tensor
    """(n, P) int64, left-padded."""
    tokens: Tensor
    """(n, T) int64, right-padded."""
    mask: Tensor
    """(n, T) bool, True up to and including the end token."""
    segments: Segments
    """The same as a learner may ask about them: n windows of one step."""
    rewards: Tensor
    """(n,) float32 what the environment paid: the true reward through the evaluation door, else 0."""


def write(
    envs: Any,
    language: Language,
    policy: LanguageModel,
    prompt_ids: np.ndarray,
    rng: torch.Generator,
    temperature: float = 1.0,
    rows: int | None = None,
) -> Written:
    """Let a policy complete prompts.

    Args:
        envs: from `gym.make_vec("prefenvs/...", num_envs=n, view="completion")`.
        language: of the task.
        policy: draws the completions.
        prompt_ids: (n,) numbers of the prompts.
        rng: of the draws.
        temperature: divides the policy's logits.
        rows: completions that are written at a time; None for all.
    """
    device = next(policy.parameters()).device  # type: ignore[attr-defined]
    prompts = torch.as_tensor(language.prompt_tokens[prompt_ids], device=device)
    written = sample_in_parts(policy, prompts, language.max_new_tokens, rng, temperature, rows)
    before, _ = envs.reset(options={"prompt_id": prompt_ids})
    actions = written.tokens.cpu().numpy()
    after, rewards, terminated, truncated, infos = envs.step(actions)
    ids = infos.get("segment_id", np.zeros((len(actions), 3), np.int64))
    task = getattr(envs.unwrapped, "task_name", "")
    segments = Segments.of_step(before, actions, after, terminated, truncated, ids, task)
    paid = torch.as_tensor(rewards, dtype=torch.float32, device=device)
    return Written(prompt_ids, prompts, written.tokens, written.mask, segments, paid)


def written_for(
    policy: LanguageModel, language: Language, prompt_ids: np.ndarray, count: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(m count, P) prompts and (m count, T) completions of (m,) prompts by a policy on the CPU, `count` of each."""
    prompts = torch.as_tensor(language.prompt_tokens[prompt_ids]).repeat_interleave(count, 0)
    return prompts, policy.sample(prompts, language.max_new_tokens, rng).tokens


def prompts_of(observations: Any, language: Language) -> np.ndarray:
    """(n, P) left-padded prompts, or (P,) of one, of what a text task shows after a reset.

    Args:
        observations: `tokens` and `mask` (n, P + T) or (P + T,).
        language: of the task.
    """
    tokens, mask = np.asarray(observations["tokens"]), np.asarray(observations["mask"]).astype(bool)
    behind = (~mask).sum(-1, keepdims=True)
    at = np.arange(tokens.shape[-1]) - behind
    moved = np.where(at >= 0, np.take_along_axis(tokens, np.maximum(at, 0), -1), language.pad)
    return moved[..., -language.prompt_tokens.shape[1] :]
