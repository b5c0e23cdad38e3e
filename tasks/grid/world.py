"""From a drawn map to a `TabularMDP`: what each kind of cell pays, blocks and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prefenvs.tasks.grid.tabular import TabularMDP

MOVES: tuple[tuple[int, int], ...] = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""(row, column) displacement of actions 0 to 3: up, down, left, right."""
WIND_DIRECTION = (1, 0)
"""(row, column) displacement of a gust: one row down."""
WIND = 1 / 8
"""Probability that a step that ends in a windy cell is blown on; a power of two, so that products stay exact."""
GROUND = ("gas", "mud")
"""The features of moving itself. A blocked move pays only these, of the cell it stays in."""


@dataclass(frozen=True)
class Cell:
    """What entering a kind of cell does."""

    features: tuple[str, ...] = ()
    """Features collected on entering, one unit each."""
    ends: bool = False
    """Whether the episode ends here."""
    blocks: bool = False
    """Whether it cannot be entered."""
    windy: bool = False
    """Whether a step that ends here is blown one row down with probability `WIND`."""
    or_else: str | None = None
    """A kind of cell that this one turns out to be with probability 1/2, as a state of its own."""


LEGEND: dict[str, Cell] = {
    ".": Cell(("gas",)),
    "m": Cell(("mud",)),  # mud replaces gas
    "c": Cell(("gas", "coin")),  # coin and roadblock add to the ground
    "r": Cell(("gas", "roadblock")),
    "C": Cell(("mud", "coin")),
    "R": Cell(("mud", "roadblock")),
    "G": Cell(("goal",), ends=True),  # goal and sheep replace the ground
    "S": Cell(("sheep",), ends=True),
    "#": Cell(blocks=True),
    "L": Cell(("sheep",), ends=True, or_else="W"),
    "W": Cell(("win",), ends=True),
    "w": Cell(("water",), ends=True),
    "v": Cell(("gas",), windy=True),
}
"""Every kind of cell by its letter on a map."""


@dataclass(frozen=True, eq=False)
class GridWorld:
    """A map and the MDP it stands for.

    State `row * width + column` is the agent in that cell. Walls are states too, which nothing enters. The other
    outcome of a lottery cell is a further state in the same place, so that a reward depends on (s, a, s') alone.
    """

    rows: tuple[str, ...]
    """The map, a letter of `LEGEND` a cell."""
    mdp: TabularMDP
    """Dynamics, rewards and features."""
    cell_of_state: np.ndarray
    """(S,) index of the cell each state is in, row * width + column."""
    goal: np.ndarray
    """(S,) bool, whether the state is the goal."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return len(self.rows), len(self.rows[0])


def build_grid(
    rows: Sequence[str], weights: Mapping[str, float], gamma: float, starts: Sequence[tuple[int, int]] | None = None
) -> GridWorld:
    """The grid world of a map.

    Each move pays for the cell it ends in: the weights of that cell's features, or of its ground alone where the move
    was blocked by a wall or the edge and the agent stays.

    Args:
        rows: The map, a letter of `LEGEND` a cell, all rows of one length.
        weights: Reward of one unit of each feature; their order is that of the MDP's features.
        gamma: Discount a step, in (0, 1].
        starts: (row, column) cells to start in, equally likely; by default every cell that neither blocks nor ends.

    Returns:
        The map with its MDP: 4 actions, `rewards == features @ weights` on every transition.

    Raises:
        ValueError: The map has an unknown letter, rows of different lengths, or a feature without a weight.
    """
    rows = tuple(rows)
    _check_map(rows, weights)
    height, width = len(rows), len(rows[0])
    letters = list("".join(rows))
    twins = [s for s, letter in enumerate(letters) if LEGEND[letter].or_else]  # lottery cells
    twin_of = {s: len(letters) + i for i, s in enumerate(twins)}
    cell_of_state = np.array([*range(len(letters)), *twins])
    kinds = [LEGEND[letter] for letter in letters]
    kinds += [LEGEND[kinds[s].or_else or ""] for s in twins]

    def move(s: int, step: tuple[int, int]) -> int:
        row, column = s // width + step[0], s % width + step[1]
        inside = 0 <= row < height and 0 <= column < width
        return row * width + column if inside and not kinds[row * width + column].blocks else s

    terminal = np.array([kind.ends or kind.blocks for kind in kinds])
    transitions = np.zeros((len(kinds), len(MOVES), len(kinds)))
    features = np.zeros((*transitions.shape, len(weights)))
    column_of = {name: i for i, name in enumerate(weights)}
    for s in np.flatnonzero(~terminal):
        for a, step in enumerate(MOVES):
            for probability, end in _outcomes(move, kinds, twin_of, int(s), step):
                transitions[s, a, end] += probability
                paid = [name for name in kinds[end].features if end != s or name in GROUND]
                features[s, a, end, [column_of[name] for name in paid]] = 1.0
    ended = np.flatnonzero(terminal)
    transitions[ended, :, ended] = 1.0

    start = (~terminal).astype(float)
    if starts is not None:
        start = np.zeros(len(kinds))
        start[[row * width + column for row, column in starts]] = 1.0
    w = np.array(list(weights.values()), dtype=float)
    mdp = TabularMDP(transitions, features @ w, gamma, start / start.sum(), terminal, features, w, tuple(weights))
    return GridWorld(rows, mdp, cell_of_state, np.array(["goal" in kind.features for kind in kinds]))


def _outcomes(
    move: Callable[[int, tuple[int, int]], int],
    kinds: Sequence[Cell],
    twin_of: Mapping[int, int],
    s: int,
    step: tuple[int, int],
) -> Iterator[tuple[float, int]]:
    """Probability and state of each place that a step from `s` can end in: moved, blown on, drawn in the lottery."""
    moved = move(s, step)
    gust = WIND if kinds[moved].windy else 0.0
    for probability, end in ((1 - gust, moved), (gust, move(moved, WIND_DIRECTION))):
        if probability and end in twin_of:
            yield probability / 2, end
            yield probability / 2, twin_of[end]
        elif probability:
            yield probability, end


def _check_map(rows: tuple[str, ...], weights: Mapping[str, float]) -> None:
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"the map has rows of lengths {[len(row) for row in rows]}, expected one length, at least 1.")
    letters = set("".join(rows))
    if letters - LEGEND.keys():
        raise ValueError(f"the map has unknown cells {sorted(letters - LEGEND.keys())}. Expected {''.join(LEGEND)}.")
    kinds = [LEGEND[letter] for letter in letters]
    kinds += [LEGEND[kind.or_else] for kind in kinds if kind.or_else]
    missing = {name for kind in kinds for name in kind.features} - weights.keys()
    if missing:
        raise ValueError(f"weights has no entry for {sorted(missing)}, which the map holds. Add one for each.")
