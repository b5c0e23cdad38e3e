"""The Decoder reading one sequence on the CPU, a token at a time, in numpy.

With one row it is calls that cost and the stream of weights, not arithmetic, and numpy's cost less than torch's
(benchmarks/text_generation.py). Arrays share their memory with the tensors of the model; softmax and GELU stay torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from prefenvs.tasks.text.lm.decoder import Block, Decoder

Normalise = Callable[[np.ndarray], np.ndarray]
"""From a stream (width,) to the normalised stream, valid until the next call."""


def serves(decoder: Decoder, rows: int) -> bool:
    """Whether `reader` can read that many rows by this model."""
    return rows == 1 and decoder.words.device.type == "cpu" and decoder.words.dtype == torch.float32


def reader(decoder: Decoder, cache: Tensor, begun: Tensor) -> Callable[[Tensor | None, int], Tensor]:
    """`Decoder._reader` of one row.

    Args:
        decoder: on the CPU, of float32.
        cache: (layers, S, 3, heads, width / heads) queries, keys and values of each position; see `Block.remember`.
        begun: (1, width) stream of the prompt's last position before the last block.
    """
    blocks: Any = decoder.blocks
    steps = [_stepper(block, kept) for block, kept in zip(blocks, cache, strict=True)]
    words, positions = _array(decoder.words), _array(decoder.positions)
    normalise, x = _normaliser(decoder.norm), np.empty(decoder.width, np.float32)

    def read(token: Tensor | None, at: int) -> Tensor:
        if token is None:
            x[:] = begun[0].numpy()
        else:
            np.add(words[int(token.item())], positions[at], x)
        for step in steps if token is not None else steps[-1:]:
            step(x, at)
        return torch.from_numpy(words.dot(normalise(x))[None])

    return read


def _stepper(block: Block, cache: Tensor) -> Callable[[np.ndarray, int], None]:
    """`Block.forward` of one more position, in place of its stream (width,)."""
    length, _, heads, size = cache.shape
    layers: Any = (block.attention_in, block.attention_out, block.mlp_in, block.mlp_out)
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = ((_array(layer.weight), _array(layer.bias)) for layer in layers)
    norm1, norm2 = _normaliser(block.attention_norm), _normaliser(block.mlp_norm)
    kept, scale = _array(cache), np.array(size**-0.5, np.float32)
    joint, queries = kept.reshape(length, -1), kept[:, 0, :, :, None]  # (S, 3 * width), (S, heads, size, 1)
    keys, values = kept[:, 1].transpose(1, 0, 2), kept[:, 2].transpose(1, 2, 0)  # (heads, S, size), (heads, size, S)
    scores = torch.full((heads, length), -torch.inf)  # the softmax gives nothing to positions that are not scored yet
    weights, wide = torch.empty_like(scores), torch.empty(len(b3))
    score, weight, hidden = scores.numpy()[..., None], weights.numpy()[..., None], wide.numpy()
    read, out = np.empty((heads, size, 1), np.float32), np.empty(heads * size, np.float32)
    flat = read.reshape(-1)
    add, multiply, matmul, softmax = np.add, np.multiply, np.matmul, torch.softmax
    gelu: Any = F.gelu  # whose `out` its annotations do not know

    def step(x: np.ndarray, at: int) -> None:
        row, query, end = joint[at], queries[at], at + 1
        add(w1.dot(norm1(x), row), b1, row)
        multiply(query, scale, query)
        matmul(keys[:, :end], query, score[:, :end])
        softmax(scores, -1, out=weights)
        matmul(values[:, :, :end], weight[:, :end], read)
        add(x, w2.dot(flat, out), x)
        add(x, b2, x)
        add(w3.dot(norm2(x), hidden), b3, hidden)
        gelu(wide, approximate="tanh", out=wide)
        add(x, w4.dot(hidden, out), x)
        add(x, b4, x)

    return step


def _normaliser(norm: Any) -> Normalise:
    gain, bias, eps, width = _array(norm.weight), _array(norm.bias), norm.eps, norm.weight.numel()
    average, y = np.full(width, 1 / width, np.float32), np.empty(width, np.float32)
    mean, scale = np.empty((), np.float32), np.empty((), np.float32)
    subtract, multiply, add, sqrt = np.subtract, np.multiply, np.add, math.sqrt

    def normalise(x: np.ndarray) -> np.ndarray:
        average.dot(x, mean)  # into an array, because numpy is slow with its own scalars
        subtract(x, mean, y)
        y.dot(y, scale)
        scale[()] = 1 / sqrt(scale.item() / width + eps)
        multiply(y, scale, y)
        multiply(y, gain, y)
        return add(y, bias, y)

    return normalise


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy(force=True)
