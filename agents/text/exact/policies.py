"""What policies do on an enumerable task, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from prefenvs.metrics.kl_frontier import kl_divergence
from prefenvs.metrics.over_optimisation import OptimisationCurve, gold_at_kl, peak_to_final_drop
from prefenvs.tasks.text.enumerable import EnumerableText, all_completions
from prefenvs.tasks.text.lm import LanguageModel

Table = TypeVar("Table", np.ndarray, Tensor)


@torch.no_grad()
def completion_probabilities(policy: LanguageModel, task: EnumerableText) -> np.ndarray:
    """(prompts, C) float64 probability of each of `task.completions()` after each prompt; rows sum to 1."""
    device = next(policy.parameters()).device  # type: ignore[attr-defined]
    prompts = torch.as_tensor(task.language.prompt_tokens, device=device)
    listed = torch.as_tensor(task.completions(), device=device)
    n, count = len(prompts), len(listed)
    logps = policy.logprobs(prompts.repeat_interleave(count, 0), listed.repeat(n, 1))
    return logps.double().sum(-1).reshape(n, count).exp().cpu().numpy()


def tree_logprobs(logits: Tensor, steps: int) -> Tensor:
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


def memoryless_tree(logps: np.ndarray, steps: int) -> Tensor:
    """(prompts, N, V) float32 for `tree_logprobs`, with the same (prompts, V) logits after each beginning."""
    beginnings = sum((logps.shape[1] - 1) ** t for t in range(steps))
    return torch.tensor(logps, dtype=torch.float32)[:, None].repeat(1, beginnings, 1)


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


def standardised(law: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Rewards (prompts, C) with mean 0 and variance 1 under a policy, (prompts, C) probabilities, and even prompts."""
    weight = law / len(law)
    centred = rewards - (weight * rewards).sum()
    return centred / np.sqrt((weight * centred**2).sum())


def share_of_best(law: Table, rewards: Table, reference: Table) -> float:
    """Expected reward of a policy, 0 for the reference and 1 for the best completion of each prompt; even prompts.

    All are (prompts, C), two of probabilities and one of rewards.
    """
    mean, floor = ((p * rewards).sum(1).mean() for p in (law, reference))
    best = rewards[range(len(rewards)), rewards.argmax(1)].mean()
    return float((mean - floor) / (best - floor))


class ExactCurve:
    """A callback of `learn`: what a policy has along its training, exactly.

    Example:
        >>> import gymnasium as gym
        >>> from prefenvs.agents.text.rloo import RLOO
        >>> from prefenvs.tasks.text.enumerable import TextBandit
        >>> from prefenvs.tasks.text.lm import Tabular
        >>> task = TextBandit()
        >>> policy = Tabular.of(task.language)
        >>> curve = ExactCurve(policy, task, every=2, gold=task.reward_table())
        >>> envs = gym.make_vec("prefenvs/TextBandit-v0", num_envs=64, view="completion", evaluation=True)
        >>> [row["iteration"] for row in RLOO(policy, envs).learn(64 * 4, curve) and curve.rows]
        [0, 2, 4]
    """

    def __init__(self, policy: Any, task: EnumerableText, every: int, **tables: np.ndarray) -> None:
        """Note the policy as it is now, and later every so many iterations.

        Args:
            policy: a LanguageModel that is trained in place.
            task: whose completions are listed.
            every: iterations between notes.
            **tables: (prompts, C) rewards by name, whose means are noted.
        """
        self.policy, self.task, self.every, self.tables = policy, task, every, tables
        self.reference = completion_probabilities(policy, task)
        """(prompts, C) probabilities at the beginning."""
        self.rows: list[dict[str, float]] = []
        """`iteration`, `kl` to the beginning in nats and each table's mean, over prompts evenly."""
        self._iterations = 0
        self._note()

    def __call__(self, *_: Any) -> bool:
        """Count an iteration."""
        self._iterations += 1
        if self._iterations % self.every == 0:
            self._note()
        return True

    def table(self, kls: Sequence[float]) -> list[dict[str, float]]:
        """The rows, each with the run's `drop` of gold from its peak and its `gold at` given KLs in nats."""
        kl, gold = (np.array([row[key] for row in self.rows]) for key in ("kl", "gold"))
        matched = gold_at_kl(OptimisationCurve(kl, gold), np.array(kls)).tolist()
        own = {"drop": float(peak_to_final_drop(gold))}
        own |= {f"gold at {at}": value for at, value in zip(kls, matched, strict=True)}
        return [{**row, **own} for row in self.rows]

    def _note(self) -> None:
        law = completion_probabilities(self.policy, self.task)
        means = {name: float((law * table).sum(1).mean()) for name, table in self.tables.items()}
        kl = float(kl_divergence(law, self.reference).mean())
        self.rows.append({"iteration": self._iterations, "kl": kl, **means})
