"""A multi-layer perceptron forwards and backwards without autograd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prefenvs.agents.fused.product import by_weight
from prefenvs.tasks.product import linear

ACTIVATIONS = (nn.ReLU, nn.Tanh)
"""Activations whose derivative is a function of their output, so that only outputs need be kept."""

_RELU_BACKWARD = torch.ops.aten.threshold_backward.grad_input
_TANH_BACKWARD = torch.ops.aten.tanh_backward.grad_input


class MLP:
    """The layers of an `nn.Sequential` run into buffers that are made once, with the derivatives written out.

    At the widths of control tasks the graph that autograd builds, the memory that it takes and gives back for each
    intermediate, and finding tensors in modules cost as much as the arithmetic. Parameters stay those of the layers;
    their gradients go to `grad`.
    """

    def __init__(
        self, layers: Sequence[nn.Linear], activation: type[nn.Module], *, activate_last: bool = False
    ) -> None:
        """Run `layers` with `activation` between them, and after the last if `activate_last`."""
        self.layers = list(layers)
        self._relu = activation is nn.ReLU
        self._activated = [True] * (len(layers) - 1) + [activate_last]
        self._rooms: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self.prepare()

    def prepare(self) -> None:
        """Begin a stretch of calls: look the parameters up anew, which may have moved to another device."""
        self._tensors = [(layer.weight, layer.weight.t(), layer.bias) for layer in self.layers]
        device = self._tensors[0][0].device
        if any(outputs[0].device != device for outputs, _ in self._rooms.values()):
            self._rooms.clear()

    def forward(self, x: Tensor) -> Tensor:
        """(B, out) outputs of (B, in) inputs. They, and what `backward` needs, are kept until the next call."""
        outputs, self._grads = self._rooms.get(x.shape[0]) or self._make_room(x)
        self._inputs = [x]
        for i, (weight, _, bias) in enumerate(self._tensors):
            relu = self._activated[i] and self._relu
            y = linear(self._inputs[i], weight, bias, slope=0.0 if relu else 1.0, out=outputs[i])
            self._inputs.append(y.tanh_() if self._activated[i] and not relu else y)
        return y

    def backward(self, grad: Tensor, *, weights: bool = True, inputs: slice | None = None) -> Tensor | None:
        """Carry the gradient of a loss from the outputs back.

        Args:
            grad: (b, out) gradient by the first b outputs of the last `forward`, b <= B; overwritten.
            weights: write the gradients by the parameters to their `grad`.
            inputs: columns of the input whose gradient is wanted.

        Returns:
            (b, columns) gradient by the inputs if `inputs` is given.
        """
        rows = grad.shape[0]
        kept, room = self._inputs, self._grads
        if rows < kept[0].shape[0]:
            kept, room = [part[:rows] for part in kept], [part[:rows] for part in room]
        for i in reversed(range(len(self._tensors))):
            weight, weight_t, bias = self._tensors[i]
            if self._activated[i]:
                self._through_activation(grad, kept[i + 1])
            if weights:
                write_gradients(weight, bias, grad, kept[i])
            if i:
                grad = linear(grad, weight_t, out=room[i - 1])
        return None if inputs is None else (self._tensors[0][0][:, inputs].t() @ grad.t()).t()  # see by_weight

    def _through_activation(self, grad: Tensor, output: Tensor) -> None:
        if self._relu:
            _RELU_BACKWARD(grad, output, 0.0, grad_input=grad)
        else:
            _TANH_BACKWARD(grad, output, grad_input=grad)

    def _make_room(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Buffers for the outputs of all layers and the gradients by all but the last, for so many rows."""
        outputs = [x.new_empty(len(x), layer.out_features) for layer in self.layers]
        self._rooms[len(x)] = outputs, [torch.empty_like(output) for output in outputs[:-1]]
        return self._rooms[len(x)]


def write_gradients(weight: Tensor, bias: Tensor, grad: Tensor, inputs: Tensor) -> None:
    """Write a layer's gradients to its parameters' `grad`, from (B, out) at its outputs and the (B, in) inputs."""
    assert weight.grad is not None
    found = by_weight(grad, inputs, out=weight.grad)
    if found is not weight.grad:
        weight.grad.copy_(found)
    torch.sum(grad, 0, out=bias.grad)


def linear_layers(network: Iterable[nn.Module]) -> tuple[list[nn.Linear], type[nn.Module]] | None:
    """The layers and the activation of an `nn.Sequential` that `MLP` can run; None for any other."""
    modules = list(network)
    layers, kinds = modules[::2], {type(module) for module in modules[1::2]}
    if not layers or len(kinds) > 1 or not kinds <= set(ACTIVATIONS):
        return None
    if any(type(layer) is not nn.Linear or layer.bias is None for layer in layers):
        return None
    if any(p.dtype != torch.float32 or not p.requires_grad for p in parameters_of(layers)):
        return None
    if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
        return None
    return layers, kinds.pop() if kinds else nn.ReLU  # type: ignore[return-value]


def parameters_of(layers: Iterable[Any]) -> list[Tensor]:
    """Weights and biases in the order of the layers."""
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
