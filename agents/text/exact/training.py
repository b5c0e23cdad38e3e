"""Training with all pairs, or the exact expectation, in each step, of policies that are tables over completions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prefenvs.agents.text.exact.policies import tree_logprobs
from prefenvs.agents.text.losses import PairLogps
from prefenvs.agents.text.policy_losses import ppo_token_loss


def descent(
    optimizer: torch.optim.Optimizer, table: Callable[[], Tensor], loss: Callable[[Tensor], Tensor], steps: int
) -> Iterator[Tensor]:
    """Follow the gradient of a loss of a table.

    Args:
        optimizer: of what the table is made from.
        table: gives it as it is now, with gradients, say (prompts, C) log-probabilities.
        loss: of the table, ().
        steps: how many.

    Yields:
        The table without gradients before the first step and after each: steps + 1 of them.
    """
    for _ in range(steps):
        now = table()
        yield now.detach()
        optimizer.zero_grad()
        loss(now).backward()
        optimizer.step()
    yield table().detach()


def descend(*arguments: Any) -> Tensor:
    """The last table of a `descent`."""
    return deque(descent(*arguments), maxlen=1).pop()


class SharedTable(nn.Module):
    """A table (prompts, C) of float64 logits by a network of two tanh layers, which all prompts share.

    Unlike free logits it spills over: what one response gains, responses that were not trained on gain or lose.
    """

    def __init__(self, shape: tuple[int, ...], width: int, rng: torch.Generator) -> None:
        """Draw weights of both layers and of the head for (prompts, C); its offsets begin at 0."""
        super().__init__()
        prompts, responses = shape
        sizes = ((prompts, width, 1.0), (width, width, width**-0.5), (width, responses, width**-0.5))
        weights = [sd * torch.randn(n, m, generator=rng, dtype=torch.float64) for n, m, sd in sizes]
        self.weights = nn.ParameterList([*weights, torch.zeros(responses, dtype=torch.float64)])

    def forward(self) -> Tensor:
        """(prompts, C) logits."""
        first, second, head, offset = self.weights
        return (first.tanh() @ second).tanh() @ head + offset

    def fit(self, loss: Callable[[Tensor], Tensor], steps: int, rate: float) -> SharedTable:
        """Lower a loss () of the logits by Adam."""
        descend(torch.optim.Adam(self.parameters(), lr=rate), self, loss, steps)
        return self


@dataclass(frozen=True, eq=False)
class TablePairs:
    """n pairs of completions by their numbers, which a loss reads from tables of one policy or of several.

    Example:
        >>> import torch
        >>> reference = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> first, second = torch.tensor([0]), torch.tensor([1])
        >>> pairs = TablePairs(reference, prompt=torch.tensor([0]), chosen=first, rejected=second)
        >>> pairs.read(torch.tensor([[0.6, 0.3, 0.1]]).log()).margin.exp()  # (0.6 / 0.5) / (0.3 / 0.3)
        tensor([1.2000])
    """

    reference: Tensor
    """(prompts, C) log-probabilities in nats."""
    prompt: Tensor
    """(n,)."""
    chosen: Tensor
    """(n,), or (policies, n) where each policy has other labels."""
    rejected: Tensor
    """As `chosen`."""
    tokens: Tensor | None = None
    """(C,) number of tokens of each completion; None where all have one."""

    def read(self, logps: Tensor) -> PairLogps:
        """What losses read of tables (prompts, C), or (policies, prompts, C), whose rows then follow one another."""
        sides = (self.chosen, self.rejected)
        now, before = ([self._at(table, side) for side in sides] for table in (logps, self.reference))
        if self.tokens is None:
            return PairLogps(*now, *before, *map(torch.ones_like, before))
        return PairLogps(*now, *before, *(self.tokens[side].flatten() for side in sides))

    def mean_loss(self, loss: Callable[..., Tensor], **options: Any) -> Callable[[Tensor], Tensor]:
        """The mean of a pair loss over the pairs, as a function of (prompts, C) log-probabilities."""
        return lambda logps: loss(self.read(logps), **options).mean()

    def _at(self, table: Tensor, side: Tensor) -> Tensor:
        each = torch.arange(len(table))[:, None]
        return (table[each, self.prompt, side] if table.dim() == 3 else table[self.prompt, side]).flatten()


class ExactPPO:
    """The loss of PPO in exact expectation over all completions, with a penalty of the KL to a reference.

    Schulman et al. 2017, eq. 7, arXiv:1707.06347. The policy that writes is renewed every few calls, and its baseline
    is its own mean.
    """

    def __init__(self, reward: Tensor, reference: Tensor, beta: float, steps: float) -> None:
        """Pay `reward` (prompts, C) less beta log pi/ref, `reference` (prompts, C) log-probabilities in nats.

        Args:
            reward: in its own unit.
            reference: in nats.
            beta: in units of reward a nat.
            steps: calls until the policy that writes is renewed; infinite for never.
        """
        self.reward, self.reference, self.beta, self.steps = reward, reference, beta, steps
        self._calls = 0

    def __call__(self, logps: Tensor) -> Tensor:
        """() mean over prompts, of (prompts, C) log-probabilities."""
        if self._calls % self.steps == 0:
            self._old = logps.detach()
            paid = self.reward - self.beta * (self._old - self.reference)
            self._advantage = paid - (self._old.exp() * paid).sum(1, keepdim=True)
        self._calls += 1
        return (self._old.exp() * ppo_token_loss(logps, self._old, self._advantage)).sum(1).mean()


def train_grid(
    loss: Callable[..., Tensor],
    options: Mapping[str, Any],
    start: Tensor,
    length: int,
    pairs: Sequence[np.ndarray],
    tokens: np.ndarray,
    *,
    steps: int,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Tables trained by a pair loss with each setting of a grid on each kind of labels, all of them as one batch.

    Args:
        loss: an entry of PAIR_LOSSES.
        options: its options, numbers, or tuples of as many settings.
        start: (prompts, N, V) float32 logits that all begin at, which is the reference; see `tree_logprobs`.
        length: of the longest completions, in tokens.
        pairs: (n,) prompts, and the (kinds, n) numbers of the chosen and of the rejected completions.
        tokens: (C,) of each completion.
        steps: of Adam, with all pairs.
        rate: of Adam.

    Returns:
        (kinds, settings, prompts, C) log-probabilities in nats, and (kinds, settings) mean changes of the chosen ones.
    """
    prompt, *sides = pairs
    kinds, settings = len(sides[0]), max(len(values) for values in options.values() if isinstance(values, tuple))
    given = {
        key: torch.tensor(values).tile(kinds).repeat_interleave(len(prompt)) if isinstance(values, tuple) else values
        for key, values in options.items()
    }
    chosen, rejected = (torch.tensor(side.repeat(settings, axis=0)) for side in sides)  # (policies, n)
    reference = tree_logprobs(start, length)
    held = TablePairs(reference, torch.tensor(prompt), chosen, rejected, torch.tensor(tokens))
    logits = start.repeat(kinds * settings, 1, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=rate, fused=True)
    logps = descend(
        optimizer, lambda: tree_logprobs(logits, length), lambda table: loss(held.read(table), **given).sum(), steps
    )
    changes = held.read(logps).chosen_ratio.reshape(kinds, settings, -1).mean(-1)
    return logps.reshape(kinds, settings, *reference.shape), changes
