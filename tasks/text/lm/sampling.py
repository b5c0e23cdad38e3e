"""Drawing tokens, and their log-probabilities: one path for every language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Draws = torch.Generator | Tensor
"""Where tokens are drawn from: a generator, or (T, n, 1) numbers in [0, 1) that were drawn from one before."""
SCORED = 2**18
"""Logits that are kept until the log-probabilities of their tokens are computed, all in one call."""

LOOK_EVERY = {"cpu": 1}
"""Tokens after which `draw_completions` looks whether all have ended, by kind of device; 8 where a look has to wait."""


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
        """(n, T, V) logits that predict each token of the completions; see `writable`."""

    def logprobs(self, prompts: Tensor, completions: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) log pi(y_t | x, y_<t) in nats, the end token's too; 0 on what follows it."""

    def sample(self, prompts: Tensor, max_new_tokens: int, rng: Draws, temperature: float = 1.0) -> Completions:
        """Draw a completion of each prompt; `temperature` 0 takes the likeliest token."""


def completion_mask(completions: Tensor, eos: int, pad: int) -> Tensor:
    """(n, T) bool, True on the tokens of completions: up to and including the first `eos`, before any other padding."""
    ends = completions == eos
    return (ends | (completions == pad)).cumsum(1) <= ends  # nothing ended it yet, or this is the first and `eos`


def writable(logits: Tensor, eos: int, pad: int) -> Tensor:
    """Logits (..., V) in which padding is no word: -inf for `pad`, unless it is `eos` too.

    Written, it would end a completion for nothing, since what follows the end has log-probability 0.
    """
    if pad == eos:
        return logits
    return logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) == pad, -torch.inf)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """(..., T) log-probability of tokens (..., T) under a softmax of logits (..., T, V) / temperature."""
    if temperature == 0.0:
        return torch.where(tokens == logits.argmax(-1), 0.0, -torch.inf)
    scaled = logits if temperature == 1.0 else logits / temperature
    return scaled.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def draw_completions(
    next_logits: Callable[[Tensor | None, int], Tensor],
    n: int,
    max_new_tokens: int,
    eos: int,
    pad: int,
    rng: Draws,
    temperature: float = 1.0,
) -> Completions:
    """Write n completions a token at a time, until all have ended or T tokens are written.

    Args:
        next_logits: given the last tokens (n, 1), None at first, and how many there are, new logits (n, V) of the next.
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
        drawn = rng if isinstance(rng, Tensor) else _draws(max_new_tokens, n, rng)
        kept: list[Tensor] = []
        seen: list[Tensor] = []  # logits of the last tokens, which are not scored yet
        scores: list[Tensor] = []
        token, done = None, False
        while not done:
            logits = writable(next_logits(token, t := len(kept)).float(), eos, pad)
            if not kept:
                draws, may_end = drawn.to(logits.device).unbind(0), 0 <= eos < logits.shape[-1]
                over = torch.zeros(n, 1, dtype=torch.bool, device=logits.device)
                look = LOOK_EVERY.get(logits.device.type, 8)
            token = _draw(logits, draws[t], temperature)
            kept.append(token)
            seen.append(logits)
            if may_end:
                over = over | (token == eos)
            done = t + 1 == max_new_tokens or (may_end and (t + 1) % look == 0 and bool(over.all()))
            if done or len(seen) * logits.numel() >= SCORED:
                scores.append(token_logprobs(torch.stack(seen, 1), torch.cat(kept[-len(seen) :], 1), temperature))
                seen.clear()
        short = (0, max_new_tokens - len(kept))
        tokens = F.pad(torch.cat(kept, 1), short, value=pad)
        mask = completion_mask(tokens, eos, pad)
        logprobs = F.pad(torch.cat(scores, 1), short)
    with torch.inference_mode(False):  # because a learner could not differentiate through what is made there
        return Completions(torch.where(mask, tokens, pad), mask.clone(), torch.where(mask, logprobs, 0.0))


def sample_in_parts(
    model: LanguageModel,
    prompts: Tensor,
    max_new_tokens: int,
    rng: torch.Generator,
    temperature: float = 1.0,
    rows: int | None = None,
) -> Completions:
    """`model.sample` of `rows` prompts at a time, None for all: the same draws, so the same tokens up to rounding."""
    if rows is None or len(prompts) <= rows:
        return model.sample(prompts, max_new_tokens, rng, temperature)
    draws = _draws(max_new_tokens, len(prompts), rng).split(rows, 1)
    parts = [
        model.sample(some, max_new_tokens, drawn, temperature)
        for some, drawn in zip(prompts.split(rows), draws, strict=True)
    ]
    return Completions(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Completions)))


def in_parts(function: Callable[..., Tensor], rows: int | None, *tensors: Tensor) -> Tensor:
    """(n, ...) what `function` makes of tensors (n, ...), of `rows` of them at a time; None for all."""
    if rows is None or len(tensors[0]) <= rows:
        return function(*tensors)
    return torch.cat([function(*part) for part in zip(*(tensor.split(rows) for tensor in tensors), strict=True)])


def _draws(max_new_tokens: int, n: int, rng: torch.Generator) -> Tensor:
    return torch.rand(max_new_tokens, n, 1, generator=rng, device=rng.device)


def _draw(logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """(n, 1) tokens by inverting the distribution function at draws (n, 1) in [0, 1)."""
    if temperature == 0.0:
        return logits.argmax(-1, keepdim=True)
    cumulated = (logits if temperature == 1.0 else logits / temperature).softmax(-1).cumsum(-1)
    # Against the last sum, not 1, so that rounding never lets a draw fall beyond the last possible token.
    return torch.searchsorted(cumulated, draws * cumulated.narrow(1, -1, 1), right=True)
