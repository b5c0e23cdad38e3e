"""The operations of `MLP` on numpy arrays that share the memory of tensors on the CPU.

Calls of numpy and its tanh cost less than torch's, which decides at the widths of PPO's networks
(benchmarks/ppo_loop.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

xp = np
"""The namespace of functions that numpy and torch share."""

_MOST = 2**18
"""Multiplications of a product up to which OpenBLAS, numpy's library, keeps to the calling thread."""


def cover(layers: Iterable[nn.Linear], rows: int) -> bool:
    """Whether so many rows through these layers are small enough, and on the CPU."""
    weights = [layer.weight for layer in layers]
    return all(w.device.type == "cpu" and w.dtype == torch.float32 and rows * w.numel() <= _MOST for w in weights)


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory, as what the other functions take."""
    return tensor.detach().numpy()


def from_numpy(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The values in float32, on a device that is the CPU."""
    return np.asarray(values, np.float32)


def empty(like: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) of memory, of the kind of `like`."""
    return np.empty((rows, columns), like.dtype)


def linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, slope: float = 1.0, out: np.ndarray
) -> np.ndarray:
    """(rows, columns) x @ weight.T + bias in `out`; where `slope` is 0, at least 0."""
    x.dot(weight.T, out)
    if bias is not None:
        out += bias
    return np.maximum(out, 0.0, out=out) if slope == 0.0 else out


def tanh_(x: np.ndarray) -> np.ndarray:
    """The hyperbolic tangent in place."""
    return np.tanh(x, out=x)


def relu_backward_(grad: np.ndarray, output: np.ndarray) -> None:
    """Carry a gradient back through max(x, 0), in place, from the output."""
    grad *= output > 0.0


def tanh_backward_(grad: np.ndarray, output: np.ndarray) -> None:
    """Carry a gradient back through tanh, in place, from the output."""
    slope = output * output
    np.subtract(1.0, slope, out=slope)
    grad *= slope


def by_weight(grad: np.ndarray, inputs: np.ndarray, out: np.ndarray) -> np.ndarray:
    """(columns, inner) gradient by a layer's weight, from the (rows, columns) one by its outputs and its inputs."""
    return grad.T.dot(inputs, out)


def sum_rows(grad: np.ndarray, out: np.ndarray) -> None:
    """Write the sum over the rows to `out`."""
    _ones(len(grad)).dot(grad, out)  # quicker than np.sum


@lru_cache
def _ones(n: int) -> np.ndarray:
    return np.ones(n, np.float32)
