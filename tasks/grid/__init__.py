"""Grid worlds: tabular Markov decision processes with exact solutions."""

from __future__ import annotations

from typing import Any

from prefenvs.tasks.task import Score, TaskSpec


def _grid(
    name: str,
    module: str,
    horizon: int,
    factors: tuple[str, ...],
    random: tuple[float, float],
    best: float,
    **rest: Any,
) -> TaskSpec:
    """A line of the registry; `random` is mean and deviation of random actions, `best` the optimum's mean."""
    source = "exact, by backward induction: python -m prefenvs.tasks.grid.scores"
    return TaskSpec(
        name,
        f"prefenvs.tasks.grid.{module}:{name}",
        factors,
        horizon,
        has_success=True,
        random_score=Score(*random, source),
        reference_score=Score(best, None, source),
        batched="prefenvs.tasks.grid.batched:BatchedGrid",
        **rest,
    )


_DELIVERY = ("goal", "sheep", "mud", "roadblock", "coin", "gas")
_LOTTERY = ("goal", "win", "sheep", "gas")
_MAP = {"map_seed": 0}

GRID_TASKS: tuple[TaskSpec, ...] = (
    _grid("GridDelivery", "delivery", 100, _DELIVERY, (-74.7441, 38.5206), 40.4457),
    _grid("GridRandom", "random_mdp", 100, _DELIVERY, (-98.5336, 45.0839), 4.0375, kwargs=_MAP),
    _grid(
        "GridRandomStochastic",
        "random_mdp",
        50,
        _LOTTERY,
        (23.8126, 70.6420),
        43.9412,
        kwargs=_MAP,
        deterministic=False,
    ),
    _grid(
        "GridLedge",
        "ledge",
        50,
        ("goal", "water", "roadblock", "gas"),
        (-51.1640, 21.4056),
        -2.0296,
        deterministic=False,
    ),
    _grid("GridWindy", "windy", 50, ("goal", "water", "gas"), (-45.8471, 9.1890), -2.2174, deterministic=False),
)
"""The grid tasks. Importing this imports numpy only."""
