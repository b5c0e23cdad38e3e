"""Random problems: two families of grid worlds, and sparse MDPs without a map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prefenvs.tasks.grid.env import GridTask
from prefenvs.tasks.grid.tabular import TabularMDP
from prefenvs.tasks.grid.world import GridWorld, build_grid

HEIGHTS, WIDTHS = (3, 6, 10, 15), (5, 6, 10)
"""Cells; one of each is drawn."""
SHEEP_SHARES, BAD_SHARES, GOOD_SHARES = (0.0, 0.1, 0.3), (0.0, 0.1, 0.5, 0.8), (0.0, 0.1, 0.2)
"""Share of the cells that hold a sheep, a roadblock (mildly bad), a coin (mildly good)."""
GOAL_REWARDS, SHEEP_REWARDS, GOOD_REWARDS = (0, 1, 5, 10, 50), (-5, -10, -50, -100), (1,)
"""Weights of goal, sheep and coin."""
BAD_REWARDS, MUD_REWARDS, GAS = (-2, -5, -10), (-1, -2, -3), -1
"""Weights of roadblock, mud and gas."""
LOTTERY_SHARES = (0.05, 0.1, 0.3)
"""Share of the cells of the stochastic family that are lotteries."""
GAMMA = 0.999
"""The authors' discount in planning. It also gives a value to cells whose only way out is worse than staying."""


def random_grid(rng: np.random.Generator, gamma: float = GAMMA) -> GridWorld:
    """A grid world of the deterministic family of Knox et al. 2022, arXiv:2206.02231, sec. 6, by the delivery rules.

    Size, shares and weights are drawn uniformly from the constants above, roadblocks and coins again while the shares
    add up to 1 or more. One goal. As in the authors' code a weight for mud is drawn though no cell is muddy. Unlike
    there, the goal has a cell of its own and never replaces another object.

    Args:
        rng: Draws everything.
        gamma: Discount a step.

    Returns:
        The map with its MDP; every cell that does not end the episode is a start, equally likely.
    """
    height, width = int(rng.choice(HEIGHTS)), int(rng.choice(WIDTHS))
    sheep = rng.choice(SHEEP_SHARES)
    bad = _redraw(rng, BAD_SHARES, sheep)
    good = _redraw(rng, GOOD_SHARES, sheep + bad)
    rows = _scatter(rng, height, width, {"S": sheep, "r": bad, "c": good})
    weights = {
        "gas": GAS,
        "goal": int(rng.choice(GOAL_REWARDS)),
        "sheep": int(rng.choice(SHEEP_REWARDS)),
        "coin": int(rng.choice(GOOD_REWARDS)),
        "roadblock": int(rng.choice(BAD_REWARDS)),
        "mud": int(rng.choice(MUD_REWARDS)),
    }
    return build_grid(rows, weights, gamma)


def random_lottery_grid(rng: np.random.Generator, win: float = 100.0, gamma: float = GAMMA) -> GridWorld:
    """A grid world of the stochastic family of Knox et al. 2022, 5 x 5: entering a sheep's cell is a lottery.

    It ends the episode with -50 or with `win`, each with probability 1/2. The goal pays 50, a move -1.

    Args:
        rng: Draws the map.
        win: Reward of winning. By our choice 100: a win then looks better than the goal, yet the lottery is worth 25 in
            the mean and the goal is the better end wherever a way leads there. From 150 on the lottery is worth more.
        gamma: Discount a step.

    Returns:
        The map with its MDP; winning is a further state in the lottery's cell.
    """
    rows = _scatter(rng, 5, 5, {"L": rng.choice(LOTTERY_SHARES)})
    return build_grid(rows, {"gas": GAS, "goal": 50, "sheep": -50, "win": win}, gamma)


def random_sparse_mdp(
    rng: np.random.Generator, states: int, actions: int, successors: int = 2, terminals: int = 0, gamma: float = 0.9
) -> TabularMDP:
    """A random MDP without a map: each action leads to a few states, rewards are standard normal.

    Args:
        rng: Draws everything.
        states: How many states, S.
        actions: How many actions, A.
        successors: How many states each action can lead to, with probabilities drawn uniformly from the simplex.
        terminals: How many states, the last ones, end the episode.
        gamma: Discount a step.

    Returns:
        The MDP, all of whose other states are equally likely starts.
    """
    order = rng.random((states, actions, states)).argsort(axis=-1)[..., :successors]  # (S, A, successors)
    transitions = np.zeros((states, actions, states))
    np.put_along_axis(transitions, order, rng.dirichlet(np.ones(successors), size=(states, actions)), axis=-1)
    terminal = np.arange(states) >= states - terminals
    rewards = rng.standard_normal((states, actions, states)) * (transitions > 0)
    return TabularMDP(transitions, rewards, gamma, ~terminal / (~terminal).sum(), terminal)


def _redraw(rng: np.random.Generator, shares: tuple[float, ...], taken: float) -> float:
    """A share drawn among those that leave cells free; the same law as drawing again until one does."""
    return float(rng.choice([share for share in shares if share + taken < 1 - 1e-9]))


def _scatter(rng: np.random.Generator, height: int, width: int, shares: Mapping[str, float]) -> list[str]:
    """A map with one goal and, in cells drawn without replacement, `floor(share * cells)` of each letter."""
    cells = height * width
    letters = "G" + "".join(letter * int(share * cells + 1e-9) for letter, share in shares.items())
    board = np.full(cells, ".")
    board[rng.permutation(cells)[: len(letters)]] = list(letters)
    return ["".join(row) for row in board.reshape(height, width)]


class GridRandom(GridTask):
    """A grid drawn from the deterministic family, see `random_grid`.

    Args:
        map_seed: Which map; another number, another map, size and reward.
        gamma: Discount a step.
        render_mode: None, "ansi" or "rgb_array".
    """

    def __init__(self, map_seed: int = 0, gamma: float = GAMMA, render_mode: str | None = None) -> None:
        super().__init__(random_grid(np.random.default_rng(map_seed), gamma), render_mode)


class GridRandomStochastic(GridTask):
    """A grid drawn from the stochastic family, see `random_lottery_grid`.

    Args:
        map_seed: Which map.
        win: Reward of winning a lottery.
        gamma: Discount a step.
        render_mode: None, "ansi" or "rgb_array".
    """

    def __init__(
        self, map_seed: int = 0, win: float = 100.0, gamma: float = GAMMA, render_mode: str | None = None
    ) -> None:
        super().__init__(random_lottery_grid(np.random.default_rng(map_seed), win, gamma), render_mode)
