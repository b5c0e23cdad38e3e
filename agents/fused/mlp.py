"""A multi-layer perceptron forwards and backwards without autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.Tanh)
"""Activations whose derivative is a function of their output, so that only outputs need be kept."""


class MLP:
    """The layers of an `nn.Sequential` run into buffers that are made once, with the derivatives written out.

    At the widths of control tasks the graph that autograd builds, and the memory that it takes and gives back for each
    intermediate, cost as much as the arithmetic. Parameters stay those of the layers; their gradients go to `grad`.
    """

    def __init__(
        self, layers: Sequence[nn.Linear], activation: type[nn.Module], *, activate_last: bool = False
    ) -> None:
        """Run `layers` with `activation` between them, and after the last if `activate_last`."""
        self.layers = list(layers)
        self._relu = activation is nn.ReLU
        self._activated = [True] * (len(layers) - 1) + [activate_last]
        self._outputs: list[Tensor] = []
        self._grads: list[Tensor] = []
        self._inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """(B, out) outputs of (B, in) inputs. They, and what `backward` needs, are kept until the next call."""
        self._make_room(x)
        self._inputs = [x, *(output[: len(x)] for output in self._outputs)]
        for i, layer in enumerate(self.layers):
            y = torch.addmm(layer.bias, self._inputs[i], layer.weight.t(), out=self._inputs[i + 1])
            if self._activated[i]:
                y.relu_() if self._relu else y.tanh_()
        return self._inputs[-1]

    def backward(self, grad: Tensor, *, weights: bool = True, inputs: slice | None = None) -> Tensor | None:
        """Carry the gradient of a loss from the outputs back.

        Args:
            grad: (b, out) gradient by the first b outputs of the last `forward`, b <= B; overwritten.
            weights: write the gradients by the parameters to their `grad`.
            inputs: columns of the input whose gradient is wanted.

        Returns:
            (b, columns) gradient by the inputs if `inputs` is given.
        """
        rows = len(grad)
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            if self._activated[i]:
                self._through_activation(grad, self._inputs[i + 1][:rows])
            if weights:
                write_gradients(layer, grad, self._inputs[i][:rows])
            if i:
                grad = torch.mm(grad, layer.weight, out=self._grads[i - 1][:rows])
        return None if inputs is None else (self.layers[0].weight[:, inputs].t() @ grad.t()).t()  # see write_gradients

    def _through_activation(self, grad: Tensor, output: Tensor) -> None:
        if self._relu:
            torch.ops.aten.threshold_backward.grad_input(grad, output, 0.0, grad_input=grad)
        else:
            torch.ops.aten.tanh_backward.grad_input(grad, output, grad_input=grad)

    def _make_room(self, x: Tensor) -> None:
        if not self._outputs or len(self._outputs[0]) < len(x) or self._outputs[0].device != x.device:
            self._outputs = [x.new_empty(len(x), layer.out_features) for layer in self.layers]
            self._grads = [x.new_empty(len(x), layer.out_features) for layer in self.layers[:-1]]


def write_gradients(layer: nn.Linear, grad: Tensor, inputs: Tensor) -> None:
    """Write a layer's gradients to its parameters' `grad`, from (B, out) at its outputs and the (B, in) inputs."""
    weight = layer.weight.grad
    assert weight is not None
    if inputs.shape[1] < grad.shape[1]:  # CPU libraries take twice as long for a narrow right side as for a narrow left
        weight.copy_((inputs.t() @ grad).t())
    else:
        torch.mm(grad.t(), inputs, out=weight)
    torch.sum(grad, 0, out=layer.bias.grad)


def linear_layers(network: nn.Sequential) -> tuple[list[nn.Linear], type[nn.Module]] | None:
    """The layers and the activation of a network that `MLP` can run; None for any other."""
    layers, others = list(network)[::2], list(network)[1::2]
    kinds = {type(module) for module in others}
    plain = all(type(layer) is nn.Linear and layer.bias is not None for layer in layers)
    if not layers or not plain or len(kinds) > 1 or not kinds <= set(ACTIVATIONS):
        return None
    if any(p.dtype != torch.float32 or not p.requires_grad for p in network.parameters()):
        return None
    if any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
        return None
    return [layer for layer in layers if isinstance(layer, nn.Linear)], kinds.pop() if kinds else nn.ReLU
