"""Derivatives written by hand equal autograd's, and a fused Adam step equals torch's."""

import itertools

import pytest
import torch
from torch import nn

from prefenvs.agents.fused import MLP, FusedAdam, covers_adam, linear_layers, numpy_kernels, torch_kernels


def network(*sizes, activation=nn.ReLU, last=False):
    modules = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*(modules if last else modules[:-1]))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("last", [True, False], ids=["activated", "linear"])
@pytest.mark.parametrize("sizes", [(5, 1), (3, 16, 7), (23, 32, 32, 2)])
@pytest.mark.parametrize("kernels", [torch_kernels, numpy_kernels], ids=["torch", "numpy"])
def test_outputs_and_gradients_equal_autograds(activation, last, sizes, kernels):
    torch.manual_seed(0)
    net = network(*sizes, activation=activation, last=last)
    layers, found = linear_layers(net)
    assert found is (activation if len(net) > 1 else nn.ReLU)
    mlp = MLP(layers, activation, activate_last=last, kernels=kernels)
    same = {"rtol": 0, "atol": 0} if kernels is torch_kernels else {"rtol": 1e-6, "atol": 1e-6}
    x, pull = torch.randn(12, sizes[0], requires_grad=True), torch.randn(8, sizes[-1])
    net(x)[:8].backward(pull)  # a loss of the first 8 rows
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    with torch.no_grad():
        mlp.prepare()
        torch.testing.assert_close(torch.as_tensor(mlp.forward(kernels.array(x))), net(x), **same)
        for parameter in net.parameters():
            parameter.grad.fill_(7.0)
        by_inputs = torch.as_tensor(mlp.backward(kernels.array(pull.clone()), inputs=slice(1, None)))
        for parameter, gradient in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(by_inputs, x.grad[:8, 1:], rtol=1e-5, atol=1e-5)
        mlp.forward(kernels.array(x))
        mlp.backward(kernels.array(torch.randn_like(pull)), weights=False)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3}])
def test_fused_steps_equal_adams_and_leave_its_state(settings):
    torch.manual_seed(0)
    nets = [network(4, 8, 2), network(4, 8, 2)]
    nets[1].load_state_dict(nets[0].state_dict())
    theirs, ours = (torch.optim.Adam(net.parameters(), lr=0.01, **settings) for net in nets)
    fused = FusedAdam(ours)
    for step in range(6):
        gradients = [torch.randn_like(parameter) for parameter in nets[0].parameters()]
        for net in nets:
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
        theirs.step()
        if step == 3:
            ours.step()  # its own step in between
        else:
            fused.prepare()
            with torch.no_grad():
                fused.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(theirs.state[a][name], ours.state[b][name], rtol=1e-5, atol=1e-7)


def test_only_what_is_computed_the_same_way_is_covered():
    net = network(3, 4, 1)
    parameters = list(net.parameters())
    assert covers_adam(torch.optim.Adam(net.parameters()), parameters)
    assert not covers_adam(torch.optim.AdamW(net.parameters()), parameters)
    assert not covers_adam(torch.optim.Adam(net.parameters(), maximize=True), parameters)
    assert not covers_adam(torch.optim.Adam(parameters[:2]), parameters)
    others = [
        nn.Sequential(),
        nn.Sequential(nn.Linear(3, 4, bias=False)),
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 1)),
        network(3, 4, 1).double(),
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))),
    ]
    assert [linear_layers(other) for other in others] == [None] * len(others)
    net[0].register_forward_hook(lambda *_: None)
    assert linear_layers(net) is None


def test_numpy_covers_small_float32_layers_on_the_cpu():
    layers = [nn.Linear(17, 64), nn.Linear(64, 64)]
    assert numpy_kernels.cover(layers, 64)
    assert not numpy_kernels.cover(layers, 65)
    assert not numpy_kernels.cover([nn.Linear(2, 2).double()], 1)
    assert not numpy_kernels.cover([nn.Linear(2, 2, device="meta")], 1)
