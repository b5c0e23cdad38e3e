"""What policies do on an enumerable task, exactly, and rewards and answers that are tables over its completions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefenvs.metrics.kl_frontier import kl_divergence
from prefenvs.metrics.over_optimisation import OptimisationCurve, gold_at_kl, peak_to_final_drop
from prefenvs.tasks.text.enumerable import EnumerableText, all_completions
from prefenvs.tasks.text.lm import LanguageModel
from prefenvs.teacher import Teacher, choose, draws_needed


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


class ExactCurve:
    """A callback of `learn`: what a policy has along its training, exactly.

    Example:
        >>> import gymnasium as gym
        >>> from prefenvs.agents.text.rloo import RLOO
        >>> from prefenvs.tasks.text.enumerable import TextBandit
        >>> from prefenvs.tasks.text.lm import Tabular
        >>> task = TextBandit()
        >>> policy = Tabular(task.language.prompt_tokens, task.language.vocab_size, task.language.max_new_tokens)
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


class TableReward:
    """A reward that is a table over the completions of an enumerable task; learners of text take it as `reward`.

    Example:
        >>> import torch
        >>> from prefenvs.tasks.text.enumerable import TextEnum
        >>> task = TextEnum()
        >>> reward = TableReward(task, task.reward_table())
        >>> prompts = torch.from_numpy(task.language.prompt_tokens[:1])
        >>> bool(float(reward(prompts, torch.from_numpy(task.answers([0])))) == task.reward_table()[0].max())
        True
    """

    def __init__(self, task: EnumerableText, rewards: np.ndarray) -> None:
        """Pay `rewards` (prompts, C), a column for each of `task.completions()`."""
        self.rewards = torch.as_tensor(rewards)
        self._size = task.language.vocab_size
        self._prompt = self._places(torch.as_tensor(task.language.prompt_tokens))
        self._completion = self._places(torch.as_tensor(task.completions()))

    def __call__(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) rewards of completions (n, T) of prompts (n, P)."""
        return self.rewards[self._prompt[self._code(prompts)], self._completion[self._code(completions)]]

    def _places(self, listed: Tensor) -> Tensor:
        """(V^t,) which of the listed (m, t) has a code; -1 for none."""
        places = torch.full((self._size ** listed.shape[1],), -1)
        places[self._code(listed)] = torch.arange(len(listed))
        return places

    def _code(self, tokens: Tensor) -> Tensor:
        return (tokens * self._size ** torch.arange(tokens.shape[1])).sum(1)


def draw_two(law: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) numbers of two outcomes drawn without replacement from each of n distributions (n, C).

    The greatest of log-probability plus Gumbel noise: Kool et al. 2019, arXiv:1903.06059.
    """
    return np.argsort(-(np.log(law) + rng.gumbel(size=law.shape)), axis=1)[:, :2]


def draw_answered_pairs(
    law: np.ndarray, scores: np.ndarray, n: int, teacher: Teacher, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of different completions of a prompt, drawn by a policy and answered by a teacher who sees their scores.

    Args:
        law: (prompts, C) probabilities by which both are drawn, without replacement; prompts are drawn evenly.
        scores: (prompts, C) what the teacher cares about, in its own unit.
        n: pairs.
        teacher: with neither skips nor ties.
        rng: of pairs and answers.

    Returns:
        (n,) prompts, and the (n,) numbers of the chosen and of the rejected completion.
    """
    prompt = rng.integers(len(law), size=n)
    one, other = draw_two(law[prompt], rng).T
    shown = np.stack([scores[prompt, one], scores[prompt, other]], axis=1)
    first = choose(teacher, shown, rng.random((n, draws_needed(2))))[:, 0] == 1
    return prompt, np.where(first, one, other), np.where(first, other, one)


def fit_reward_table(
    prompt: np.ndarray, chosen: np.ndarray, rejected: np.ndarray, features: np.ndarray, *, ridge: float
) -> np.ndarray:
    """The reward of greatest Bradley-Terry likelihood that is linear in features, with a normal prior of each weight.

    It minimises -sum log s(r(x, y_w) - r(x, y_l)) + ridge / 2 sum w^2, r(x, y) = w_x . f(x, y), and cannot see what the
    features do not tell apart. `one_hot(prompts, C)` knows no more of a completion than its own pairs.

    Args:
        prompt: (n,) numbers of the prompts.
        chosen: (n,) numbers of the completions.
        rejected: (n,).
        features: (prompts, C, d) f.
        ridge: inverse variance of the prior, above 0: a completion that always won would have infinite reward.

    Returns:
        (prompts, C) float64 rewards in logits, whose level Bradley-Terry leaves free.
    """
    told = torch.as_tensor(features, dtype=torch.float64)
    rows, apart = torch.as_tensor(prompt), torch.as_tensor(features[prompt, chosen] - features[prompt, rejected])
    weights = torch.zeros(len(told), told.shape[-1], dtype=torch.float64, requires_grad=True)
    settings: dict[str, Any] = {"max_iter": 500, "tolerance_grad": 1e-8, "tolerance_change": 0}
    solver = torch.optim.LBFGS([weights], line_search_fn="strong_wolfe", **settings)

    def closure() -> Tensor:
        solver.zero_grad()
        # Divided by n, so that the solver's tolerance is one of a pair.
        loss = 0.5 * ridge / len(rows) * weights.square().sum() - logsigmoid((apart * weights[rows]).sum(-1)).mean()
        loss.backward()
        return loss

    solver.step(closure)
    return torch.einsum("pcd,pd->pc", told, weights.detach()).numpy()


def one_hot(prompts: int, completions: int) -> np.ndarray:
    """(prompts, C, C) a feature for each completion."""
    return np.tile(np.eye(completions), (prompts, 1, 1))
