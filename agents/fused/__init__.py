"""Hand-written training steps of small networks: the numbers of autograd and torch's optimisers, in less time."""

from prefenvs.agents.fused.adam import FusedAdam, covers_adam
from prefenvs.agents.fused.capture import Captured, addresses, side_by_side
from prefenvs.agents.fused.mlp import MLP, hooked, linear_layers, parameters_of, write_gradients
from prefenvs.agents.fused.product import DifferentiableLinear

__all__ = [
    "MLP",
    "Captured",
    "DifferentiableLinear",
    "FusedAdam",
    "addresses",
    "covers_adam",
    "hooked",
    "linear_layers",
    "parameters_of",
    "side_by_side",
    "write_gradients",
]
