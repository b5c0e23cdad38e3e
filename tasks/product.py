"""Products of float32 matrices on the CPU by the quicker of the two libraries that torch holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_WORTH = 2**20
"""Multiplications from which oneDNN is quicker. A rule of sizes, not of timings: the same program, the same numbers."""
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def is_large(like: Tensor, multiplications: int) -> bool:
    """Whether a product of so many multiplications, with tensors like this one, goes to oneDNN.

    torch.mm calls MKL, which on other processors than Intel's computes with half of the vector's width: on an AMD EPYC
    of Zen 5 at 107 GFLOP/s a core, oneDNN at 216. A call of oneDNN takes 10 us more.
    """
    worth = multiplications >= _WORTH and _ONEDNN is not None
    return worth and like.dtype == torch.float32 and like.device.type == "cpu"


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
