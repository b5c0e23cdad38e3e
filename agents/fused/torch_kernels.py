"""The operations of `MLP` on torch tensors, on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.fused.product import by_weight
from prefenvs.tasks.product import linear

__all__ = [
    "array",
    "by_weight",
    "empty",
    "from_numpy",
    "linear",
    "relu_backward_",
    "sent",
    "sum_rows",
    "tanh_",
    "tanh_backward_",
    "xp",
]

xp = torch
"""The namespace of functions that numpy and torch share."""

_RELU_BACKWARD = torch.ops.aten.threshold_backward.grad_input
_TANH_BACKWARD = torch.ops.aten.tanh_backward.grad_input


def array(tensor: Tensor) -> Tensor:
    """The tensor itself, as what the other functions take."""
    return tensor


def from_numpy(values: np.ndarray, device: torch.device) -> Tensor:
    """The values in float32 on the device."""
    return sent(torch.as_tensor(values, dtype=torch.float32), device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The CPU's tensor on a device; nobody waits until it has reached a GPU, whose later work does."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned copy until then


def empty(like: Tensor, rows: int, columns: int) -> Tensor:
    """(rows, columns) of memory, in the kind and place of `like`."""
    return like.new_empty(rows, columns)


def tanh_(x: Tensor) -> Tensor:
    """The hyperbolic tangent in place."""
    return x.tanh_()


def relu_backward_(grad: Tensor, output: Tensor) -> None:
    """Carry a gradient back through max(x, 0), in place, from the output."""
    _RELU_BACKWARD(grad, output, 0.0, grad_input=grad)


def tanh_backward_(grad: Tensor, output: Tensor) -> None:
    """Carry a gradient back through tanh, in place, from the output."""
    _TANH_BACKWARD(grad, output, grad_input=grad)


def sum_rows(grad: Tensor, out: Tensor) -> None:
    """Write the sum over the rows to `out`."""
    torch.sum(grad, 0, out=out)
