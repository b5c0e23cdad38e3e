"""Hand-written training steps of small networks: the numbers of autograd and torch's optimisers, in less time."""

from prefenvs.agents.fused.adam import FusedAdam, adam_marks, covers_adam
from prefenvs.agents.fused.capture import Captured, addresses
from prefenvs.agents.fused.mlp import MLP, linear_layers, parameters_of, write_gradients
from prefenvs.agents.fused.product import DifferentiableLinear

__all__ = [
    "MLP",
    "Captured",
    "DifferentiableLinear",
    "FusedAdam",
    "adam_marks",
    "addresses",
    "covers_adam",
    "linear_layers",
    "parameters_of",
    "write_gradients",
]
