"""The delivery task: a van drives to a goal, past coins, roadblocks, mud and sheep."""

from __future__ import annotations

from collections.abc import Sequence

from prefenvs.tasks.grid.env import GridTask
from prefenvs.tasks.grid.world import GridWorld, build_grid

WEIGHTS = {"gas": -1.0, "goal": 50.0, "sheep": -50.0, "coin": 1.0, "roadblock": -1.0, "mud": -2.0}
"""Reward of one unit of each feature (Knox et al. 2022; mud is the paper's brick)."""

DELIVERY_MAP = (
    "Gmm...#..c",
    "mCm..r....",
    "mmS....S..",
    ".m..c.....",
    "...#..mm..",
    ".r....mmr.",
    "...S..m...",
    "c.......#.",
    "....r.m.S.",
    ".c....mc.r",
)
"""10 x 10 cells, of which 92 are starts. The map is ours and not the paper's, with as many of each object: one goal in
the mud, 4 sheep, 3 houses, 5 coins and 1 in the mud, 5 roadblocks, 14 other cells of mud."""


def delivery_world(rows: Sequence[str] = DELIVERY_MAP, gamma: float = 1.0) -> GridWorld:
    """The delivery task's rules on a map.

    Features and weights of Knox et al. 2022, Models of human preference for learning reward functions,
    arXiv:2206.02231, sec. 4. Entering a blank cell costs gas. A coin or roadblock adds to the gas (0 and -2 in all),
    mud replaces it (-2, with a coin -1, with a roadblock -3), the goal and a sheep replace it and end the episode.
    Houses block; a blocked move pays the gas or mud of the cell it stays in. Coins are not used up. The authors'
    released feature function gives a cell of mud with a coin no features at all, while its reward is -1; here the
    reward equals w . phi on every transition.

    Args:
        rows: A map in the letters of `prefenvs.tasks.grid.world.LEGEND`, such as the paper's.
        gamma: Discount a step; the authors plan with 0.999, the return itself is not discounted.

    Returns:
        The map with its MDP; every cell that neither blocks nor ends is a start, equally likely.
    """
    return build_grid(rows, WEIGHTS, gamma)


class GridDelivery(GridTask):
    """The delivery task on our own map, see `delivery_world`."""

    def __init__(self, gamma: float = 1.0, render_mode: str | None = None) -> None:
        super().__init__(delivery_world(gamma=gamma), render_mode)
