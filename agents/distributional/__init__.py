"""Optimising the return's distribution: functionals of laws, exact dynamic programming with a stock, a deep agent."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prefenvs.agents.distributional.baselines import best_markov_cvar, nested_cvar, stepwise
from prefenvs.agents.distributional.exact import Solution, evaluate, markov, policy_iteration, value_iteration
from prefenvs.agents.distributional.functionals import (
    FUNCTIONALS,
    CVaR,
    Excess,
    ExpectedUtility,
    Goal,
    Homeostasis,
    Mean,
    MeanVariance,
    OptimisticCVaR,
    Shortfall,
    Target,
    check_optimisable,
    make_functional,
)
from prefenvs.agents.distributional.stock_graph import StockGraph, truncation
from prefenvs.agents.distributional.tails import (
    TailSolution,
    best_cvar,
    best_optimistic_cvar,
    cvar_of,
    shortfall_graph,
)

if TYPE_CHECKING:
    from prefenvs.agents.distributional.quantile_dqn import QuantileDQN as QuantileDQN
    from prefenvs.agents.distributional.stock import StockWrapper as StockWrapper

_LAZY = {"QuantileDQN": "quantile_dqn", "StockWrapper": "stock"}  # these need torch

__all__ = [
    "FUNCTIONALS",
    "CVaR",
    "Excess",
    "ExpectedUtility",
    "Goal",
    "Homeostasis",
    "Mean",
    "MeanVariance",
    "OptimisticCVaR",
    "QuantileDQN",
    "Shortfall",
    "Solution",
    "StockGraph",
    "StockWrapper",
    "TailSolution",
    "Target",
    "best_cvar",
    "best_markov_cvar",
    "best_optimistic_cvar",
    "check_optimisable",
    "cvar_of",
    "evaluate",
    "make_functional",
    "markov",
    "nested_cvar",
    "policy_iteration",
    "shortfall_graph",
    "stepwise",
    "truncation",
    "value_iteration",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"prefenvs.agents.distributional.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'prefenvs.agents.distributional' has no attribute {name!r}")
