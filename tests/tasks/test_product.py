"""Either library gives the product, whatever the strides, and the rule between them looks at sizes alone."""

import pytest
import torch

from prefenvs.tasks import product
from prefenvs.tasks.product import is_large, linear

SIZES = [(64, 64, 64), (256, 256, 256), (256, 23, 256), (2048, 256, 1), (1, 300, 5000)]


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("slope", [1.0, 0.0, 0.01])
@pytest.mark.parametrize(("rows", "inner", "columns"), SIZES)
def test_a_product_equals_that_of_doubles(rows, inner, columns, slope, turned):
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, inner, generator=rng), torch.randn(columns, inner, generator=rng)
    bias = torch.randn(columns, generator=rng)
    x, weight = (part.t().contiguous().t() if turn else part for part, turn in zip((x, weight), turned, strict=True))
    for added in (bias, None):
        expected = x.double() @ weight.double().t() + (0.0 if added is None else added)
        expected = torch.where(expected < 0, slope * expected, expected).float()
        found = linear(x, weight, added, slope=slope)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        assert torch.equal(found, linear(x, weight, added, slope=slope, out=torch.empty(rows, columns)))


def test_small_products_doubles_and_builds_without_onednn_are_left_to_torch(monkeypatch):
    x, weight = torch.randn(256, 256), torch.randn(256, 256)
    assert not is_large(x, 2**20 - 1)
    assert not is_large(x.double(), 2**20)
    monkeypatch.setattr(product, "_ONEDNN", None)
    assert not is_large(x, 2**20)
    assert torch.equal(linear(x, weight), x @ weight.t())
