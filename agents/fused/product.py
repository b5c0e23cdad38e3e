"""Products of float32 matrices on the CPU by the quicker of the two libraries that torch holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_WORTH = 2**20
"""Multiplications from which oneDNN is quicker. A rule of sizes, not of timings: the same program, the same numbers."""
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def is_large(like: Tensor, multiplications: int) -> bool:
    """Whether a product of so many multiplications, with tensors like this one, goes to oneDNN.

    torch.mm calls MKL, which on other processors than Intel's computes with half of the vector's width: on an AMD EPYC
    of Zen 5 at 107 GFLOP/s a core, oneDNN at 216. A call of oneDNN takes 10 us more.
    """
    plain = like.device.type == "cpu" and like.dtype == torch.float32
    return plain and multiplications >= _WORTH and _ONEDNN is not None


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, slope: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """(rows, columns) x @ weight.t() + bias, negative values then times `slope`: 0 is ReLU. Without autograd.

    Args:
        x: (rows, inner), of any strides.
        weight: (columns, inner), of any strides.
        bias: (columns,).
        slope: of negative values.
        out: (rows, columns) that may be written to and returned.
    """
    if is_large(x, len(x) * weight.numel()):
        activation = {1.0: "none", 0.0: "relu"}.get(slope, "leaky_relu")
        return _ONEDNN(x, weight, bias, activation, [slope] if activation == "leaky_relu" else [], "")
    y = torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)
    if slope == 0.0:
        return y.relu_()
    return y if slope == 1.0 else F.leaky_relu_(y, slope)


def by_weight(grad: Tensor, inputs: Tensor, out: Tensor | None = None) -> Tensor:
    """(columns, inner) gradient by a layer's weight: grad.t() @ inputs.

    Args:
        grad: (rows, columns) gradient by the layer's outputs.
        inputs: (rows, inner).
        out: (columns, inner) that may be written to and returned.
    """
    if inputs.shape[1] < grad.shape[1]:  # both libraries take two to four times as long for a narrow right side
        return linear(inputs.t(), grad.t()).t()
    return linear(grad.t(), inputs.t(), out=out)


class DifferentiableLinear(torch.autograd.Function):
    """`linear` of four arguments with its derivatives, for a positive slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
        """`linear`, whose output tells the sign of what the slope was put on."""
        y = linear(x, weight, bias, slope=slope)
        ctx.save_for_backward(x, weight, y)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """Gradients by the arguments."""
        x, weight, y = ctx.saved_tensors
        if ctx.slope != 1.0:
            grad = torch.ops.aten.leaky_relu_backward(grad, y, ctx.slope, True)
        by_x = linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        return by_x, by_weight(grad, x), grad.sum(0), None
