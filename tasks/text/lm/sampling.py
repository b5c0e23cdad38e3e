"""Drawing tokens, and their log-probabilities: one path for every language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Completions:
    """What a language model wrote."""

    tokens: Tensor
    """(n, T) int64, right-padded."""
    mask: Tensor
    """(n, T) bool, True up to and including the end token."""
    logprobs: Tensor
    """(n, T) log-probability in nats of each token under the sampler, its temperature included; 0 on padding."""


class LanguageModel(Protocol):
    """A causal language model; in practice also a `torch.nn.Module`.

    Prompts are (n, P) int64, left-padded with `pad`; completions (n, T) int64, right-padded.
    """

    vocab_size: int
    eos: int
    pad: int
    width: int
    """Size of `hidden`'s last axis."""

    def hidden(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T + 1, width) last stream after the prompt and t tokens of the completion, t = 0..T; for heads on it."""

    def logits(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T, V) logits that predict each token of the completions."""

    def logprobs(self, prompts: Tensor, completions: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) log pi(y_t | x, y_<t) in nats, the end token's too; 0 on what follows it."""

    def sample(
        self, prompts: Tensor, max_new_tokens: int, rng: torch.Generator, temperature: float = 1.0
    ) -> Completions:
        """Draw a completion of each prompt; `temperature` 0 takes the likeliest token."""


def completion_mask(completions: Tensor, eos: int, pad: int) -> Tensor:
    """(n, T) bool, True on the tokens of completions: up to and including the first `eos`, before any other padding."""
    ends = completions == eos
    over = ends | (completions == pad)
    before = over.cumsum(1) - over.long()
    return (before == 0) & (ends | ~over)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """(..., T) log-probability of tokens (..., T) under a softmax of logits (..., T, V) / temperature."""
    if temperature == 0.0:
        return torch.where(tokens == logits.argmax(-1), 0.0, -torch.inf)
    scaled = logits if temperature == 1.0 else logits / temperature
    return scaled.gather(-1, tokens[..., None])[..., 0] - scaled.logsumexp(-1)


def draw_completions(
    next_logits: Callable[[Tensor | None, int], Tensor],
    n: int,
    max_new_tokens: int,
    eos: int,
    pad: int,
    rng: torch.Generator,
    temperature: float = 1.0,
) -> Completions:
    """Write n completions a token at a time, until all have ended or T tokens are written.

    Args:
        next_logits: given the last tokens (n,), None at first, and how many are written, logits (n, V) of the next.
        n: completions.
        max_new_tokens: T.
        eos: token that ends a completion.
        pad: token that fills what is left.
        rng: T draws are taken from it for each completion, used or not.
        temperature: divides the logits; 0 takes the likeliest token.

    Raises:
        ValueError: for a temperature below 0.
    """
    if not temperature >= 0.0:
        raise ValueError(f"temperature={temperature}, expected 0 (the likeliest token) or more.")
    with torch.inference_mode():
        draws = torch.rand(max_new_tokens, n, 1, generator=rng, device=rng.device)
        token, kept, chances, over = None, [], [], None
        for t in range(max_new_tokens):
            logits = next_logits(token, t).float()
            if not kept:
                draws, may_end = draws.to(logits.device), 0 <= eos < logits.shape[-1]
            drawn, chance = _draw(logits, draws[t], temperature)
            kept.append(drawn)
            chances.append(chance)
            token = drawn.squeeze(1)
            if may_end:
                over = token == eos if over is None else over | (token == eos)
                if over.all():
                    break
        short = (0, max_new_tokens - len(kept))
        tokens = F.pad(torch.cat(kept, 1), short, value=pad)
        mask = completion_mask(tokens, eos, pad)
        logprobs = F.pad(torch.cat(chances, 1).log(), short)
    # Clones, because a learner could not differentiate through what was made in inference mode.
    return Completions(torch.where(mask, tokens, pad).clone(), mask.clone(), torch.where(mask, logprobs, 0.0).clone())


def _draw(logits: Tensor, draws: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(n, 1) tokens by inverting the distribution function at draws (n, 1) in [0, 1), and their probabilities."""
    if temperature == 0.0:
        likeliest = logits.argmax(-1, keepdim=True)
        return likeliest, torch.ones_like(likeliest, dtype=logits.dtype)
    chances = (logits if temperature == 1.0 else logits / temperature).softmax(-1)
    cumulated = chances.cumsum(-1)
    # Against the last sum, not 1, so that rounding never lets a draw fall beyond the last possible token.
    drawn = torch.searchsorted(cumulated, draws * cumulated[:, -1:], right=True)
    return drawn, chances.gather(1, drawn)
