"""Derivatives of `tasks.product`'s products, by the same two libraries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prefenvs.tasks.product import linear


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
