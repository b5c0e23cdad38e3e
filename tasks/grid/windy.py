"""A windy grid with a risky short-cut: the best policy depends on how one feels about bad luck."""

from __future__ import annotations

from prefenvs.tasks.grid.env import GridTask
from prefenvs.tasks.grid.world import GridWorld, build_grid

WEIGHTS = {"gas": -1.0, "goal": 10.0, "water": -5.0}
"""Reward of one unit of each feature; integers, so that laws of the return stay exact."""

WINDY_MAP = (
    ".......",
    ".#####.",
    ".#####.",
    "..vvv.G",
    "v#www##",
    "v######",
    ".######",
)
"""7 x 7 cells, start in the lower left corner. Wind blows down, so climbing takes a random time; then either three
windy cells above the water lead to the goal in 6 moves, or the way around in 12."""


def windy_world(gamma: float = 1.0) -> GridWorld:
    """A map of ours for risk: a step that ends in a windy cell is blown one row down with probability 1/8.

    From the fork (row 3, column 0) the short-cut reaches the goal with probability (7/8)^3 and pays 5 then, and -6, -7
    or -8 for falling into the water: 1.068 in the mean. The way around pays -1 for sure. So the mean prefers the
    short-cut, and the worst tenth or quarter of outcomes the way around. Meant for distributional dynamic programming
    (Pires et al. 2025, Optimizing Return Distributions with Distributional Dynamic Programming, arXiv:2501.13028).

    Args:
        gamma: Discount a step.

    Returns:
        The map with its MDP.
    """
    return build_grid(WINDY_MAP, WEIGHTS, gamma, starts=[(6, 0)])


class GridWindy(GridTask):
    """The windy grid, see `windy_world`."""

    def __init__(self, gamma: float = 1.0, render_mode: str | None = None) -> None:
        super().__init__(windy_world(gamma), render_mode)
