"""A multi-layer perceptron forwards and backwards without autograd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from prefenvs.agents.fused import torch_kernels

ACTIVATIONS = (nn.ReLU, nn.Tanh)
"""Activations whose derivative is a function of their output, so that only outputs need be kept."""


class MLP:
    """The layers of an `nn.Sequential` run into buffers that are made once, with the derivatives written out.

    At the widths of control tasks the graph that autograd builds, the memory that it takes and gives back for each
    intermediate, and finding tensors in modules cost as much as the arithmetic. Parameters stay those of the layers;
    their gradients go to `grad`.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        activation: type[nn.Module],
        *,
        activate_last: bool = False,
        kernels: ModuleType = torch_kernels,
    ) -> None:
        """Run `layers` with `activation` between them, and after the last if `activate_last`.

        `kernels` are `torch_kernels`, or `numpy_kernels` where they cover the layers: inputs and outputs are then
        arrays of numpy.
        """
        self.layers, self.kernels = list(layers), kernels
        self._relu = activation is nn.ReLU
        self._activated = [True] * (len(layers) - 1) + [activate_last]
        self._activations = [(0.0 if on and self._relu else 1.0, on and not self._relu) for on in self._activated]
        self._rooms: dict[int, tuple[list[Any], list[Any]]] = {}
        self.device: torch.device | None = None
        self.prepare()

    def prepare(self, *, backward: bool = True) -> None:
        """Begin a stretch of calls: look up anew parameters, which may have moved, and for `backward` gradients."""
        array, pairs = self.kernels.array, [parameters_of([layer]) for layer in self.layers]
        self.weights = [(array(weight), array(bias)) for weight, bias in pairs]
        grads = [(weight.grad, bias.grad) for weight, bias in pairs] if backward else []
        self.gradients = [(None, None) if w is None or b is None else (array(w), array(b)) for w, b in grads]
        device = pairs[0][0].device
        if device != self.device:
            self._rooms.clear()
            self.device = device

    def forward(self, x: Any) -> Any:
        """(B, out) outputs of (B, in) inputs. They, and what `backward` needs, are kept until the next call."""
        outputs, self._grads = self._rooms.get(len(x)) or self._make_room(x)
        self._inputs = [x]
        y = x
        for (weight, bias), (slope, tanh), out in zip(self.weights, self._activations, outputs, strict=True):
            y = self.kernels.linear(y, weight, bias, slope=slope, out=out)
            self._inputs.append(self.kernels.tanh_(y) if tanh else y)
        return y

    def backward(self, grad: Any, *, weights: bool = True, inputs: slice | None = None) -> Any | None:
        """Carry the gradient of a loss from the outputs back.

        Args:
            grad: (b, out) gradient by the first b outputs of the last `forward`, b <= B; overwritten.
            weights: write the gradients by the parameters to their `grad`.
            inputs: columns of the input whose gradient is wanted.

        Returns:
            (b, columns) gradient by the inputs if `inputs` is given.
        """
        rows = len(grad)
        kept, room = self._inputs, self._grads
        if rows < len(kept[0]):
            kept, room = [part[:rows] for part in kept], [part[:rows] for part in room]
        backward_ = self.kernels.relu_backward_ if self._relu else self.kernels.tanh_backward_
        for i in reversed(range(len(self.weights))):
            if self._activated[i]:
                backward_(grad, kept[i + 1])
            if weights:
                by_weight, by_bias = self.gradients[i]
                write_gradients(by_weight, by_bias, grad, kept[i], self.kernels)
            if i:
                grad = self.kernels.linear(grad, self.weights[i][0].T, out=room[i - 1])
        return None if inputs is None else (self.weights[0][0][:, inputs].T @ grad.T).T  # see by_weight

    def _make_room(self, x: Any) -> tuple[list[Any], list[Any]]:
        """Buffers for the outputs of all layers and the gradients by all but the last, for so many rows."""
        sizes = [layer.out_features for layer in self.layers]
        outputs, grads = ([self.kernels.empty(x, len(x), n) for n in ns] for ns in (sizes, sizes[:-1]))
        self._rooms[len(x)] = outputs, grads
        return self._rooms[len(x)]


def write_gradients(by_weight: Any, by_bias: Any, grad: Any, inputs: Any, kernels: ModuleType = torch_kernels) -> None:
    """Write a layer's gradients to `by_weight` and `by_bias`, from (B, out) at its outputs and the (B, in) inputs."""
    found = kernels.by_weight(grad, inputs, out=by_weight)
    if found is not by_weight:
        by_weight[:] = found
    kernels.sum_rows(grad, out=by_bias)


def linear_layers(network: Iterable[nn.Module]) -> tuple[list[nn.Linear], type[nn.Module]] | None:
    """The layers and the activation of an `nn.Sequential`, or of a list, that `MLP` can run; None for any other."""
    if type(network) is not list and (type(network) is not nn.Sequential or hooked([network])):
        return None
    modules = list(network)
    layers, kinds = modules[::2], {type(module) for module in modules[1::2]}
    if not layers or len(kinds) > 1 or not kinds <= set(ACTIVATIONS) or hooked(modules):
        return None
    for layer in layers:
        if type(layer) is not nn.Linear:
            return None
        for p in layer._parameters.values():
            if p is None or p.dtype != torch.float32 or not p.requires_grad or p._backward_hooks:
                return None
    return layers, kinds.pop() if kinds else nn.ReLU


def hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether one of these runs a hook, or a `forward` of its own, beside what its class does."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks or "forward" in vars(m)
        for m in modules
    )


def parameters_of(layers: Iterable[nn.Module]) -> list[Any]:
    """Weights and biases in the order of the layers; a bias that a layer lacks is None."""
    return [parameter for layer in layers for parameter in layer._parameters.values()]  # attributes are slow
