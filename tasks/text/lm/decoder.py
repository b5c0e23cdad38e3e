"""A small language model: GPT-2's architecture, sampled with a preallocated cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefenvs.tasks.text.lm import single_row
from prefenvs.tasks.text.lm.sampling import (
    Completions,
    Draws,
    completion_mask,
    draw_completions,
    token_logprobs,
    writable,
)

Step = Callable[[Tensor, int, Tensor | None], Tensor]
"""From a stream (n, width), its position and a mask of positions to read, or None for all, to the next stream."""
Read = Callable[[Tensor | None, int], Tensor]
"""From tokens (n, 1), None for the prompts' last ones, and their position to logits (n, V) of the next tokens."""


class Block(nn.Module):
    """Attention and a two-layer network, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int, residual_sd: float, rng: torch.Generator) -> None:
        """Draw weights from `rng`; those that write to the stream with standard deviation `residual_sd`."""
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = (
            _linear(width, 3 * width, 0.02, rng),
            _linear(width, width, residual_sd, rng),
        )
        self.mlp_in, self.mlp_out = (
            _linear(width, 4 * width, 0.02, rng),
            _linear(4 * width, width, residual_sd, rng),
        )

    def forward(self, x: Tensor, mask: Tensor | None, cache: Tensor | None = None) -> Tensor:
        """Read a whole stream.

        Args:
            x: (n, L, width).
            mask: bool, broadcast to (n, heads, L, L): which positions each one may attend to; None for all up to it.
            cache: where to keep keys and values, see `remember`.
        """
        n, length, width = x.shape
        joint = (
            self.attention_in(self.attention_norm(x))
            .view(n, length, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        if cache is not None:
            _keep(joint[1:], cache)
        read = F.scaled_dot_product_attention(joint[0], joint[1], joint[2], mask, is_causal=mask is None)
        x = x + self.attention_out(read.transpose(1, 2).reshape(n, length, width))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))

    def remember(self, x: Tensor, cache: Tensor) -> None:
        """Keep the keys and values of a stream (n, L, width): all that later positions need of it in the last block.

        `cache` is (S, 3, n * heads, width / heads): queries, keys and values of each position, S at least L.
        """
        n, length, width = x.shape
        weight, bias = self.attention_in.weight[width:], self.attention_in.bias[width:]
        both = F.linear(self.attention_norm(x), weight, bias).view(n, length, 2, self.heads, width // self.heads)
        _keep(both.permute(2, 0, 3, 1, 4), cache)

    def stepper(self, cache: Tensor) -> Step:
        """`forward` of one more position (n, width), for `cache` and in as few calls as torch allows.

        At batch 1 it is calls that cost, not numbers: products write to where their result is read, and all views that
        do not grow are made once.
        """
        _, _, rows, size = cache.shape
        width, n, shape = self.heads * size, rows // self.heads, (self.heads * size,)
        joint = cache.view(-1, 3, n, width).unbind(0)
        queries = cache[:, 0].unsqueeze(2).unbind(0)  # of each position (n * heads, 1, size)
        keys, values = cache[:, 1].permute(1, 2, 0), cache[:, 2].transpose(0, 1)
        read = cache.new_empty(rows, 1, size)
        flat = read.view(n, width)
        norms = [(norm.weight, norm.bias, norm.eps) for norm in (self.attention_norm, self.mlp_norm)]
        layers: Any = (self.attention_in, self.attention_out, self.mlp_in, self.mlp_out)
        (w1, b1), (w2, b2), (w3, b3), (w4, b4) = ((layer.weight.T, layer.bias) for layer in layers)
        scale = torch.tensor([size**-0.5, 1.0, 1.0], dtype=w1.dtype, device=w1.device)[:, None, None]  # of queries
        w1, b1 = w1.view(width, 3, width).transpose(0, 1) * scale, b1.view(3, 1, width) * scale
        (g1, c1, e1), (g2, c2, e2) = norms

        def step(x: Tensor, at: int, mask: Tensor | None) -> Tensor:
            torch.baddbmm(b1, torch.layer_norm(x, shape, g1, c1, e1).expand(3, n, width), w1, out=joint[at])
            query, seen = queries[at], keys.narrow(2, 0, at + 1)
            scores = torch.bmm(query, seen) if mask is None else torch.baddbmm(mask, query, seen)
            torch.bmm(torch.softmax(scores, -1), values.narrow(1, 0, at + 1), out=read)
            x = torch.addmm(x, flat, w2).add_(b2)
            wide = F.gelu(torch.addmm(b3, torch.layer_norm(x, shape, g2, c2, e2), w3), approximate="tanh")
            return x.addmm_(wide, w4).add_(b4)

        return step


class Decoder(nn.Module):
    """A causal transformer, the network of GPT-2 (Radford et al. 2019): learned positions, norm first, tied words.

    What `sample` says of its tokens and what `logprobs` says of them agree up to the rounding of float32.

    Example:
        >>> import torch
        >>> model = Decoder(vocab_size=5, context=8, layers=1, width=16, heads=2)
        >>> prompts = torch.tensor([[0, 3], [1, 2]])                # the first is shorter, so padded on the left
        >>> written = model.sample(prompts, max_new_tokens=4, rng=torch.Generator().manual_seed(0))
        >>> torch.allclose(written.logprobs, model.logprobs(prompts, written.tokens), atol=1e-5)
        True
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        *,
        layers: int = 2,
        width: int = 128,
        heads: int = 4,
        eos: int = 0,
        pad: int = 0,
        seed: int = 0,
    ) -> None:
        """Make a model with random weights.

        Args:
            vocab_size: V.
            context: tokens it can read, prompt and completion together.
            layers: blocks.
            width: size of the stream.
            heads: of attention.
            eos: token that ends a completion.
            pad: token that pads prompts on the left and completions on the right.
            seed: of the weights.
        """
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.vocab_size, self.context, self.width, self.heads, self.eos, self.pad = (
            vocab_size,
            context,
            width,
            heads,
            eos,
            pad,
        )
        self.words = nn.Parameter(0.02 * torch.randn(vocab_size, width, generator=rng))
        self.positions = nn.Parameter(0.02 * torch.randn(context, width, generator=rng))
        residual_sd = 0.02 / (2 * layers) ** 0.5
        self.blocks = nn.ModuleList(Block(width, heads, residual_sd, rng) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def hidden(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T + 1, width) normalised stream after the prompt and t tokens of the completion, t = 0..T."""
        tokens = torch.cat([prompts, completions], 1)
        self._check_length(tokens.shape[1])
        real = self._real(prompts)
        keys = F.pad(real, (0, completions.shape[1]), value=True)
        x, mask = F.embedding(tokens, self.words) + F.embedding(_places(keys), self.positions), _causal(keys)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x[:, prompts.shape[1] - 1 :])

    def logits(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T, V) logits that predict each token of the completions."""
        return writable(self.hidden(prompts, completions[:, :-1]) @ self.words.T, self.eos, self.pad)

    def logprobs(self, prompts: Tensor, completions: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) log pi(y_t | x, y_<t) in nats, the end token's too; 0 on what follows it."""
        mask = completion_mask(completions, self.eos, self.pad)
        return torch.where(mask, token_logprobs(self.logits(prompts, completions), completions, temperature), 0.0)

    @torch.inference_mode()
    def sample(self, prompts: Tensor, max_new_tokens: int, rng: Draws, temperature: float = 1.0) -> Completions:
        """Draw a completion of each prompt.

        Args:
            prompts: (n, P), left-padded.
            max_new_tokens: T.
            rng: its draws do not depend on when completions end.
            temperature: divides the logits; 0 takes the likeliest token.

        Raises:
            ValueError: for a temperature below 0, or more tokens than `context`.
        """
        self._check_length(prompts.shape[1] + max_new_tokens)
        prompts, real = self._without_shared_padding(prompts)
        n, width = prompts.shape
        length = width + max_new_tokens
        cache = self.words.new_empty(len(self.blocks), length, 3, n * self.heads, self.width // self.heads)
        places = self.positions[None, :length]
        if real is not None:
            places = self.positions[_places(F.pad(real, (0, max_new_tokens), value=True))]
        begun = self._read_prompts(prompts, places, real, cache)
        alone = real is None and single_row.serves(self, n)
        read = single_row.reader(self, cache, begun) if alone else self._reader(cache, begun, places, real)

        def next_logits(token: Tensor | None, t: int) -> Tensor:
            return read(token, width + t - 1)

        return draw_completions(next_logits, n, max_new_tokens, self.eos, self.pad, rng, temperature)

    def _without_shared_padding(self, prompts: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prompts (n, L) without the padding that all begin with, and which positions are real, None if all are."""
        if not bool((prompts[:, 0] == self.pad).any()):
            return prompts, None
        real = self._real(prompts)
        shared = int((~real[:, :-1]).all(0).sum())
        prompts, real = prompts[:, shared:], real[:, shared:]
        return prompts, None if bool(real.all()) else real

    def _read_prompts(self, prompts: Tensor, places: Tensor, real: Tensor | None, cache: Tensor) -> Tensor:
        """Keep what later positions need of prompts (n, L), and return (n, width) their ends before the last block."""
        blocks: list[Any] = list(self.blocks)
        mask = None if real is None else _causal(real)
        x = F.embedding(prompts, self.words) + places[:, : prompts.shape[1]]
        for block, kept in zip(blocks[:-1], cache, strict=False):
            x = block(x, mask, kept)
        blocks[-1].remember(x, cache[-1])
        return x[:, -1]

    def _reader(self, cache: Tensor, begun: Tensor, places: Tensor, real: Tensor | None) -> Read:
        """Reads tokens at a position, after all before it.

        Args:
            cache: (layers, S, 3, n * heads, width / heads) that holds the prompts; see `Block.remember`.
            begun: (n, width) stream of the prompts' last position before the last block.
            places: (n or 1, S, width) what is added to words at each position.
            real: (n, P) which positions of the prompts to read; None for all.
        """
        blocks: list[Any] = list(self.blocks)
        steps = [block.stepper(kept) for block, kept in zip(blocks, cache, strict=True)]
        norm, each_place = (self.norm.weight, self.norm.bias, self.norm.eps), places.unbind(1)
        if real is not None:
            last = real.shape[1] - 1
            unread = torch.zeros_like(real, dtype=places.dtype).masked_fill_(~real, -torch.inf)
            unread = unread.repeat_interleave(self.heads, 0)[:, None]  # (n * heads, 1, P), added to scores

        def read(token: Tensor | None, at: int) -> Tensor:
            x = begun if token is None else torch.embedding(self.words, token.squeeze(1)) + each_place[at]
            mask = None
            if real is not None:  # a prompt's last position reads itself even if it is padding, as in `_causal`
                mask = F.pad(unread[..., : last + (at > last)], (0, max(at - last, 1)))
            for step in steps if token is not None else steps[-1:]:
                x = step(x, at, mask)
            return F.linear(torch.layer_norm(x, (self.width,), *norm), self.words)

        return read

    def _check_length(self, length: int) -> None:
        if length > self.context:
            raise ValueError(f"prompt and completion have {length} tokens, expected at most context={self.context}.")

    def _real(self, prompts: Tensor) -> Tensor:
        """(n, P) bool, True behind the padding on the left."""
        return (prompts != self.pad).cumsum(1) > 0


def _keep(both: Tensor, cache: Tensor) -> None:
    """Write keys and values (2, n, heads, L, size) to the first L positions of a cache (S, 3, n * heads, size)."""
    _, n, heads, length, size = both.shape
    cache[:length, 1:].view(length, 2, n, heads, size).copy_(both.permute(3, 0, 1, 2, 4))


def _places(keys: Tensor) -> Tensor:
    """(n, L) place of each position among the real ones (n, L)."""
    return (keys.cumsum(1) - 1).clamp(min=0)


def _causal(keys: Tensor) -> Tensor:
    """(n, 1, L, L) bool, which of the real positions (n, L) each one may attend to: none behind it, itself always."""
    square = torch.ones(keys.shape[1], keys.shape[1], dtype=torch.bool, device=keys.device)
    itself = torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device)
    return square.tril() & (keys[:, None, None] | itself)


def _linear(inputs: int, outputs: int, sd: float, rng: torch.Generator) -> Any:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        layer.weight.normal_(0.0, sd, generator=rng)
        layer.bias.zero_()
    return layer
