"""Derivatives of a product equal autograd's."""

import pytest
import torch
from torch.nn import functional as F

from prefenvs.agents.fused import DifferentiableLinear


@pytest.mark.parametrize(("rows", "inner", "columns"), [(64, 8, 4), (64, 4, 8), (300, 64, 64), (1000, 20, 64)])
def test_derivatives_equal_autograds(rows, inner, columns):
    rng = torch.Generator().manual_seed(0)
    shapes, slope = ((rows, inner), (columns, inner), (columns,)), 0.01
    arguments = [torch.randn(shape, generator=rng, requires_grad=True) for shape in shapes]
    pull = torch.randn(rows, columns, generator=rng)
    expected = torch.autograd.grad(F.leaky_relu(F.linear(*arguments), slope), arguments, pull)
    found = torch.autograd.grad(DifferentiableLinear.apply(*arguments, slope), arguments, pull)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
