"""Text tasks so small that every completion can be listed: two trees of a few tokens, and a bandit of prompts.

What a learner should converge to is known exactly. For any policy with log-probabilities `log_ref` (prompts, C) over
`task.completions()`, the optimum of E r - beta KL(pi || ref) is ref exp(r / beta) / Z:
`prefenvs.metrics.kl_frontier.exact_kl_policy(exp(log_ref), task.reward_table(), 1 / beta)`, and its value is
beta log Z, `optimal_value` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.language import END, Language


def all_completions(vocab_size: int, steps: int) -> np.ndarray:
    """(C, T) every completion of at most T tokens in the order of the alphabet, token 0 the end, padded with it.

    With w = vocab_size - 1 words these are sum_{t < T} w^t that end and w^T that are cut.
    """
    rows = np.indices((vocab_size,) * steps).reshape(steps, -1).T
    ended = rows == 0
    return rows[(ended[:, 1:] >= ended[:, :-1]).all(1)]


def optimal_value(log_ref: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """(...) beta log Z = beta log sum_y ref(y) exp(r(y) / beta), the greatest E r - beta KL(pi || ref).

    Args:
        log_ref: (..., C) log-probabilities of the completions under the reference policy.
        rewards: (..., C) their rewards.
        beta: weight of the KL, in units of reward a nat.
    """
    exponent = log_ref + rewards / beta
    top = exponent.max(-1, keepdims=True)
    return beta * (top[..., 0] + np.log(np.exp(exponent - top).sum(-1)))


class EnumerableText(TextTask):
    """A task whose completions can be listed; all prompts have the same number of tokens. Success is the best one."""

    has_success = True

    def completions(self) -> np.ndarray:
        """(C, T) every completion."""
        return all_completions(self.language.vocab_size, self.language.max_new_tokens)

    def reward_table(self) -> np.ndarray:
        """(prompts, C) true reward of every completion of every prompt."""
        prompts, tokens = self._every_one()
        return self.rewards(prompts, tokens).reshape(len(self.prompts("all")), -1)

    def factor_tables(self) -> dict[str, np.ndarray]:
        """(prompts, C) of each factor of the true reward."""
        factors = self.factors(*self._every_one())
        return {name: values.reshape(len(self.prompts("all")), -1) for name, values in factors.items()}

    def bigram_counts(self) -> np.ndarray:
        """(prompts, C, V^2) how often each pair of neighbouring tokens is in each completion, after the prompt's last.

        The end counts as none. Column V * before + after.
        """
        prompts, tokens = self._every_one()
        size = self.language.vocab_size
        before = np.concatenate([self.language.prompt_tokens[prompts, -1:], tokens[:, :-1]], 1)
        kinds = np.where(tokens > 0, size * before + tokens, -1)
        counts = (kinds[..., None] == np.arange(size**2)).sum(1).astype(float)
        return counts.reshape(len(self.prompts("all")), -1, size**2)

    def _every_one(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompts (prompts * C,) and completions (prompts * C, T), all of the first prompt first."""
        prompts, listed = self.prompts("all"), self.completions()
        return np.repeat(prompts, len(listed)), np.tile(listed, (len(prompts), 1))

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) the best completion of each prompt (n,)."""
        return self.completions()[self.reward_table().argmax(1)[prompt_ids]]

    @cached_property
    def _best(self) -> np.ndarray:
        return self.reward_table().max(1)

    def _solved(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Whether no completion of the prompt is better."""
        return self.rewards(prompt_ids, tokens) >= self._best[prompt_ids]

    def optimal_values(self) -> TextValues:
        """What the best completion that begins with what is written is worth, exactly, in either view."""
        return TextValues.of(self)


@dataclass(frozen=True)
class TextValues:
    """Exact optimal values of an enumerable task, undiscounted.

    The reward comes with the last token, so the value of a beginning is the reward of the best completion with it.
    """

    prompt_of_code: np.ndarray
    """(V^P,) number of the prompt whose tokens are the digits of a number in base V; -1 for none."""
    best: tuple[np.ndarray, ...]
    """For t = 0..T, (prompts, V^t): reward of the best completion whose first t tokens are the number's digits."""
    vocab_size: int
    prompt_len: int
    gamma: float = 1.0
    source: str = "exact"

    @staticmethod
    def of(task: EnumerableText) -> TextValues:
        """List all completions of `task`."""
        size, steps = task.language.vocab_size, task.language.max_new_tokens
        prompts = task.language.prompt_tokens
        sequences = np.indices((size,) * steps).reshape(steps, -1).T  # also those that go on after the end
        n = len(prompts)
        rewards = task.rewards(np.repeat(np.arange(n), len(sequences)), np.tile(sequences, (n, 1))).reshape(n, -1)
        best = tuple(rewards.reshape(n, size**t, -1).max(-1) for t in range(steps + 1))
        code = np.full(size ** prompts.shape[1], -1)
        code[_digits(prompts, size)] = np.arange(n)
        return TextValues(code, best, size, prompts.shape[1])

    def v(self, observations: Any) -> np.ndarray:
        """(...) reward of the best completion of what is written; 0 once it is finished."""
        prompts, written, lengths = self._read(observations)
        finished = (lengths == len(self.best) - 1) | ((lengths > 0) & (_last(written, lengths) == 0))
        return np.where(finished, 0.0, self._look_up(prompts, written, lengths))

    def q(self, observations: Any, actions: Any) -> np.ndarray:
        """(...) reward of the best completion after a next token (...), or of the completion (..., T)."""
        prompts, written, lengths = self._read(observations)
        actions = np.asarray(actions)
        if actions.ndim > lengths.ndim:
            return self._look_up(prompts, actions, np.full(lengths.shape, actions.shape[-1]))
        written = written.copy()
        np.put_along_axis(written, np.minimum(lengths, written.shape[-1] - 1)[..., None], actions[..., None], -1)
        return self._look_up(prompts, written, np.minimum(lengths + 1, written.shape[-1]))

    def _read(self, observations: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens = np.asarray(observations["tokens"])
        prompts = self.prompt_of_code[_digits(tokens[..., : self.prompt_len], self.vocab_size)]
        lengths = np.asarray(observations["mask"]).sum(-1, dtype=np.int64) - self.prompt_len
        return prompts, tokens[..., self.prompt_len :], np.maximum(lengths, 0)

    def _look_up(self, prompts: np.ndarray, written: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        values = np.zeros(lengths.shape)
        for t, best in enumerate(self.best):
            values = np.where(lengths == t, best[prompts, _digits(written[..., :t], self.vocab_size)], values)
        return values


def _digits(tokens: np.ndarray, base: int) -> np.ndarray:
    """(...) numbers whose digits are the tokens (..., t); 0 where there are none."""
    return (tokens * base ** np.arange(tokens.shape[-1])[::-1]).sum(-1)


def _last(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.take_along_axis(tokens, np.maximum(lengths - 1, 0)[..., None], -1)[..., 0]


class TextEnum(EnumerableText):
    """Up to four letters after a prompt of two: 121 completions of 8 prompts, with a reward that looks ahead.

    `bigrams` pays each pair of neighbours, the prompt's last letter before the first, by a table of the prompt, and
    `finished` pays for ending in time. Greedy choice of the next pair is not optimal.
    """

    factor_names = ("bigrams", "finished")

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        rng = np.random.default_rng(0)
        letters = ("a", "b", "c")
        pairs = np.array([(1 + i // 3, 1 + i % 3) for i in range(8)])
        self._pairs = rng.normal(0.0, 0.8, (len(pairs), 4, 4))  # (prompts, before, after)
        self._pairs[:, :, 0] = 0.0  # the end pays by itself
        self._chain = rng.dirichlet(np.full(4, 2.0), (len(pairs), 4))  # how demonstrations go on
        self._last = pairs[:, -1]
        super().__init__(Language((END, *letters), pairs, 4, self._demonstrate), view, render_mode)

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts = rng.integers(len(self._last), size=n)
        tokens, before = np.zeros((n, 4), np.int64), self._last[prompts]
        for t in range(4):
            odds = self._chain[prompts, before].cumsum(1)
            drawn = (odds[:, :3] <= rng.random((n, 1))).sum(1)
            tokens[:, t] = before = np.where((t > 0) & (before == 0), 0, drawn)
        return prompts, tokens

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        before = np.concatenate([self._last[prompt_ids][:, None], tokens[:, :-1]], 1)
        bigrams = self._pairs[prompt_ids[:, None], before, tokens]
        return {"bigrams": (bigrams * mask).sum(1), "finished": 0.5 * (tokens == 0).any(1)}


class TextLength(EnumerableText):
    """Up to five letters, where length is free: 364 completions of 8 prompts, what is good is short or long alike.

    `content` pays each letter that the prompt wants, or charges for one that it does not, the first time it is said;
    `flow` is the *mean* worth of neighbours, the prompt's last letter before the first. So a teacher who likes length
    can be pleased at no cost, and a learner who is not fooled has no reason to write more.
    """

    factor_names = ("content", "flow")

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        rng = np.random.default_rng(0)
        pairs = np.array([(1 + i // 3, 1 + i % 3) for i in range(8)])
        self._worth = rng.normal(0.0, 1.0, (len(pairs), 4))  # (prompts, letters), the end's is not used
        self._flow = rng.normal(0.0, 0.5, (len(pairs), 4, 4))  # (prompts, before, after)
        self._last = pairs[:, -1]
        self.demonstration_logprobs = np.log(
            np.concatenate([np.full((len(pairs), 1), 0.3), 0.7 * rng.dirichlet(np.full(3, 3.0), len(pairs))], 1)
        )
        """(prompts, 4) log-probability in nats of each next token in demonstrations, whatever was said before."""
        super().__init__(Language((END, "a", "b", "c"), pairs, 5, self._demonstrate), view, render_mode)

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts, steps = rng.integers(len(self._last), size=n), self.language.max_new_tokens
        tokens = (self.demonstration_logprobs[prompts][:, None] + rng.gumbel(size=(n, steps, 4))).argmax(2)
        return prompts, tokens * np.cumprod(tokens != 0, axis=1)

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        before = np.concatenate([self._last[prompt_ids][:, None], tokens[:, :-1]], 1)
        said = tokens != 0
        flow = (self._flow[prompt_ids[:, None], before, tokens] * said).sum(1) / np.maximum(said.sum(1), 1)
        letters = (tokens[:, :, None] == np.arange(1, 4)).any(1)
        return {"content": (self._worth[prompt_ids, 1:] * letters).sum(1), "flow": flow}


class TextBandit(EnumerableText):
    """One token in answer to one of 40 prompts: 30 arms, one of them to say nothing.

    `topic` is how well an arm suits the prompt, the product of hidden features of both, and `style` the arm's own.
    """

    factor_names = ("topic", "style")

    def __init__(self, view: str = "token", render_mode: str | None = None) -> None:
        rng = np.random.default_rng(0)
        words = (END, *(f"w{i}" for i in range(1, 30)))
        pairs = np.array([(1 + i // 8, 10 + i % 8) for i in range(40)])
        features = rng.normal(size=(40, 4)), rng.normal(size=(30, 4))
        self._topic = features[0] @ features[1].T / np.sqrt(4)  # (prompts, arms), standard deviation about 1
        self._style = rng.normal(0.0, 0.5, 30)
        self.demonstration_logprobs = np.log(rng.dirichlet(np.full(30, 2.0), 40))
        """(prompts, arms) log-probability in nats of each arm in demonstrations, whatever its reward."""
        super().__init__(Language(words, pairs, 1, self._demonstrate), view, render_mode)

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        prompts = rng.integers(40, size=n)
        return prompts, (self.demonstration_logprobs[prompts] + rng.gumbel(size=(n, 30))).argmax(1)[:, None]

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        return {"topic": self._topic[prompt_ids, tokens[:, 0]], "style": self._style[tokens[:, 0]]}
