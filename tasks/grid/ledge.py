"""A windy ledge: bad luck on the first half makes the gamble of the second half worth it."""

from __future__ import annotations

from prefenvs.tasks.grid.env import GridTask
from prefenvs.tasks.grid.world import GridWorld, build_grid

WEIGHTS = {"gas": -1.0, "goal": 10.0, "roadblock": -5.0, "water": -5.0}
"""Reward of one unit of each feature; integers, so that laws of the return stay exact."""

LEDGE_MAP = (
    "##.....",
    "##.###.",
    "##.###.",
    "##.vvvG",
    "##.www#",
    ".v.####",
    "#r#####",
)
"""7 x 7 cells, start at the left. The only way leads over one windy cell above a roadblock; then either three windy
cells above the water lead to the goal in 4 moves, or the way around in 10."""


def ledge_world(gamma: float = 1.0) -> GridWorld:
    """A map of ours for risk: a step that ends in a windy cell is blown one row down with probability 1/8.

    With probability 1/8 the first windy cell costs -6 in place of -1, and a step back. From the fork (row 3, column 2)
    the way around pays 1 for sure. The short-cut pays 7 with probability (7/8)^3, and -5, -6 or -7 for falling into the
    water: 2.74 in the mean. To do well in the worst quarter of outcomes one goes around after good luck, which is then
    above that quarter, and takes the short-cut after bad luck: what to do in one state depends on what was earned. A
    companion of `prefenvs.tasks.grid.windy`, for distributional dynamic programming (Pires et al. 2025, Optimizing
    Return Distributions with Distributional Dynamic Programming, arXiv:2501.13028).

    Args:
        gamma: Discount a step.

    Returns:
        The map with its MDP.
    """
    return build_grid(LEDGE_MAP, WEIGHTS, gamma, starts=[(5, 0)])


class GridLedge(GridTask):
    """The windy ledge, see `ledge_world`."""

    def __init__(self, gamma: float = 1.0, render_mode: str | None = None) -> None:
        super().__init__(ledge_world(gamma), render_mode)
