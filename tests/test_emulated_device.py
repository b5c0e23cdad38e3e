"""The emulated device refuses what CUDA refuses, and else computes what the CPU does."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

REFUSED = {
    "a sum": lambda x, host: x + host,
    "a sum on the CPU": lambda x, host: host + x,
    "into the CPU": lambda x, host: host.add_(x),
    "a number into the CPU": lambda x, host: host.sum().add_(x.sum()),
    "a product": lambda x, host: x @ host.T,
    "a product of integers": lambda x, host: x.long() @ x.long().T,
    "a concatenation": lambda x, host: torch.cat([x, host]),
    "a condition": lambda x, host: torch.where(host > 0, x, x),
    "a loss": lambda x, host: nn.functional.mse_loss(x, host),
    "rows to gather": lambda x, host: x.gather(1, host.long()),
    "rows of the CPU": lambda x, host: host[x[:1, 0].long()],
    "values to write": lambda x, host: x.index_put_((torch.tensor([0]),), host[:1]),
    "weights": lambda x, host: nn.Linear(3, 2)(x),
    "numpy": lambda x, host: x.numpy(),
    "an array": lambda x, host: np.asarray(x),
    "a generator": lambda x, host: x.normal_(generator=torch.Generator()),
    "a generator that makes": lambda x, host: torch.rand(2, device=x.device, generator=torch.Generator()),
    "a generator of it": lambda x, host: torch.rand(2, generator=torch.Generator(x.device)),
}
ALLOWED = {
    "numbers of the CPU": lambda x, host: x * host.sum() + torch.tensor(2.0),
    "indices of the CPU": lambda x, host: x[torch.tensor([1, 0])],
    "masks of the CPU": lambda x, host: x[host[:, 0] > 0],
    "writing a number": lambda x, host: x.index_put_((torch.tensor([0]),), torch.tensor(5.0)),
    "copies": lambda x, host: x.copy_(host) + host.to(x.device),
    "views": lambda x, host: x.T[1:].unfold(1, 2, 1).reshape(-1).add_(1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cuda_refuses_is_refused(emulated, case):
    with pytest.raises((RuntimeError, TypeError, NotImplementedError), match=r"device|CPU|cpu|CUDA"):
        REFUSED[case](torch.arange(6.0, device=emulated).reshape(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("case", ALLOWED)
def test_what_cuda_computes_is_computed(emulated, case):
    x, host = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    got = ALLOWED[case](x.to(emulated), host)
    assert got.device.type == emulated
    assert torch.equal(got.cpu(), ALLOWED[case](x, host))


def test_a_network_learns_as_on_the_cpu(emulated):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LayerNorm(18), nn.Linear(18, 3))
    models, x = (ours, copy.deepcopy(ours).to(emulated)), torch.randn(4, 1, 5, 5)
    for model in models:
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            model(x.to(model[0].weight.device)).square().mean().backward()
            optimizer.step()
    for own, other in zip(*(model.parameters() for model in models), strict=True):
        assert other.device.type == emulated
        torch.testing.assert_close(other.cpu(), own, atol=1e-5, rtol=1e-4)


def test_it_draws_the_same_numbers_from_the_same_seed_and_not_the_cpus(emulated):
    draws = [(torch.manual_seed(0), torch.rand(3, device=emulated).cpu())[1] for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], (torch.manual_seed(0), torch.rand(3))[1])
