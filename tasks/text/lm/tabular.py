"""A language model that is a table: it can be any policy at all, so what it converges to is the method's doing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prefenvs.tasks.text.language import Language
from prefenvs.tasks.text.lm.sampling import (
    Completions,
    Draws,
    completion_mask,
    draw_completions,
    token_logprobs,
    writable,
)

LARGEST = 1_000_000
"""Entries that the look-up of prompts may have."""


class Tabular(nn.Module):
    """Free logits of the next token after every prompt and every beginning of a completion; for enumerable tasks.

    `hidden` is one-hot over prompts and beginnings, so that a linear head on it is a table too.

    Example:
        >>> import torch
        >>> from prefenvs.tasks.text import language_of
        >>> language = language_of("TextEnum")
        >>> model = Tabular.of(language)
        >>> prompts = torch.from_numpy(language.prompt_tokens)
        >>> written = model.sample(prompts, max_new_tokens=4, rng=torch.Generator().manual_seed(0))
        >>> torch.equal(written.logprobs, model.logprobs(prompts, written.tokens))
        True
    """

    def __init__(
        self,
        prompt_tokens: object,
        vocab_size: int,
        max_new_tokens: int,
        *,
        sd: float = 1.0,
        eos: int = 0,
        pad: int = 0,
        seed: int = 0,
    ) -> None:
        """Make a table of random logits.

        Args:
            prompt_tokens: (m, P) every prompt it will be given.
            vocab_size: V.
            max_new_tokens: T.
            sd: standard deviation of the logits; 0 for the uniform policy.
            eos: token that ends a completion.
            pad: token that pads.
            seed: of the logits.

        Raises:
            ValueError: if there are too many prompts or beginnings to list.
        """
        super().__init__()
        prompts = torch.as_tensor(prompt_tokens)
        self.vocab_size, self.eos, self.pad, self.steps = vocab_size, eos, pad, max_new_tokens
        self.prompt_len = prompts.shape[1]
        begun = [vocab_size**t for t in range(max_new_tokens + 1)]
        self.width = len(prompts) * sum(begun)
        if max(vocab_size**self.prompt_len, self.width * vocab_size) > LARGEST:
            raise ValueError(
                f"{len(prompts)} prompts of {self.prompt_len} tokens and completions of {max_new_tokens}, out of "
                f"{vocab_size} words, are too many to list. Use a Decoder."
            )
        numbers = torch.full((vocab_size**self.prompt_len,), -1)
        numbers[self._code(prompts)] = torch.arange(len(prompts))
        self.register_buffer("numbers", numbers)  # of the prompt with a code
        self.numbers: Tensor
        self.offsets = [sum(begun[:t]) for t in range(max_new_tokens + 2)]
        rng = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(sd * torch.randn(len(prompts), self.offsets[-2], vocab_size, generator=rng))

    @classmethod
    def of(cls, language: Language, **settings: Any) -> Tabular:
        """A table for every prompt and completion of a task's language; settings are those of the constructor."""
        return cls(language.prompt_tokens, language.vocab_size, language.max_new_tokens, **settings)

    def hidden(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T + 1, width) one-hot of the prompt and the t tokens of the completion, t = 0..T."""
        number, begun = self._beginnings(prompts, completions)
        places = number[:, None] * self.offsets[-1] + begun
        return self.table.new_zeros(*places.shape, self.width).scatter_(2, places[..., None], 1.0)

    def logits(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T, V) logits that predict each token of the completions."""
        number, begun = self._beginnings(prompts, completions[:, :-1])
        return writable(self.table[number[:, None], begun], self.eos, self.pad)

    def logprobs(self, prompts: Tensor, completions: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) log pi(y_t | x, y_<t) in nats, the end token's too; 0 on what follows it."""
        mask = completion_mask(completions, self.eos, self.pad)
        return torch.where(mask, token_logprobs(self.logits(prompts, completions), completions, temperature), 0.0)

    @torch.no_grad()
    def sample(self, prompts: Tensor, max_new_tokens: int, rng: Draws, temperature: float = 1.0) -> Completions:
        """Draw a completion of each prompt; see `Decoder.sample`."""
        number = self._number(prompts)
        code = torch.zeros_like(number)

        def next_logits(token: Tensor | None, t: int) -> Tensor:
            nonlocal code
            code = code if token is None else code * self.vocab_size + token.squeeze(1)
            return self.table[number, self.offsets[t] + code]

        return draw_completions(next_logits, len(prompts), max_new_tokens, self.eos, self.pad, rng, temperature)

    def _beginnings(self, prompts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) numbers of the prompts, (n, t + 1) places in the table of the first 0..t tokens (n, t)."""
        code = torch.zeros_like(tokens[:, :1]).sum(1)
        places = [code]
        for t in range(tokens.shape[1]):  # over time: each code goes on from the one before
            code = code * self.vocab_size + tokens[:, t]
            places.append(self.offsets[t + 1] + code)
        return self._number(prompts), torch.stack(places, 1)

    def _number(self, prompts: Tensor) -> Tensor:
        number = self.numbers[self._code(prompts[:, -self.prompt_len :])]
        if bool((number < 0).any()):
            raise ValueError(f"prompts {prompts[number < 0].tolist()} are none of those that the table was made for.")
        return number

    def _code(self, tokens: Tensor) -> Tensor:
        powers = self.vocab_size ** torch.arange(tokens.shape[1] - 1, -1, -1, device=tokens.device)
        return (tokens * powers).sum(1)
