"""Rewards and answers that are tables over the completions of an enumerable task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from prefenvs.agents.text.preference_pairs import PreferencePairs
from prefenvs.tasks.text.enumerable import EnumerableText
from prefenvs.teacher import Teacher, choose, draws_needed


class TableReward(nn.Module):
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
        super().__init__()
        self._size = task.language.vocab_size
        self.register_buffer("rewards", torch.as_tensor(rewards))
        self.register_buffer("_prompt", self._places(torch.as_tensor(task.language.prompt_tokens)))
        self.register_buffer("_completion", self._places(torch.as_tensor(task.completions())))
        self.rewards: Tensor
        self._prompt: Tensor
        self._completion: Tensor

    def forward(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) rewards of completions (n, T) of prompts (n, P)."""
        return self.rewards[self._prompt[self._code(prompts)], self._completion[self._code(completions)]]

    def _places(self, listed: Tensor) -> Tensor:
        """(V^t,) which of the listed (m, t) has a code; -1 for none."""
        places = torch.full((self._size ** listed.shape[1],), -1)
        places[self._code(listed)] = torch.arange(len(listed))
        return places

    def _code(self, tokens: Tensor) -> Tensor:
        return (tokens * self._size ** torch.arange(tokens.shape[1], device=tokens.device)).sum(1)


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
    both = draw_two(law[prompt], rng)
    return prompt, *answered(both, scores[prompt[:, None], both], teacher, rng.random((n, draws_needed(2))))


def answered(both: np.ndarray, scores: np.ndarray, teacher: Teacher, uniforms: np.ndarray) -> np.ndarray:
    """(2, n) the chosen and the rejected of each of (n, 2) completions, by a teacher who sees their (n, 2) scores."""
    return np.take_along_axis(both, np.argsort(-choose(teacher, scores, uniforms), axis=1), 1).T


def some_responses(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """(prompts, count) numbers of different responses to each prompt, of (prompts, C): those that pairs may show."""
    return rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)[:, :count]


def listed_pairs(task: EnumerableText, prompt: np.ndarray, chosen: np.ndarray, rejected: np.ndarray) -> PreferencePairs:
    """Pairs of (n,) numbers, as `draw_answered_pairs` gives them, in the tokens that learners read."""
    shown, listed = torch.as_tensor(task.language.prompt_tokens), torch.as_tensor(task.completions())
    return PreferencePairs(shown[prompt], listed[chosen], listed[rejected], torch.ones(len(prompt)))


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
