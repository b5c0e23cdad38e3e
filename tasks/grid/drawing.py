"""Pictures of a grid world with the agent in it: text, and pixels in plain numpy."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.grid.world import GridWorld

CELL = 32
"""Side of a cell in pixels."""
SAND, MUD, WALL, AGENT, INK, LINE = (
    (236, 232, 220),
    (168, 128, 92),
    (72, 72, 80),
    (30, 96, 210),
    (20, 20, 20),
    (205, 200, 188),
)
"""Colours, (red, green, blue) in [0, 255]."""
_GROUNDS = {"m": MUD, "C": MUD, "R": MUD, "#": WALL, "w": (96, 160, 220), "v": (214, 230, 240)}
_SHEEP = ("disc", (252, 252, 252))
_COIN = ("disc", (240, 190, 40))
_BLOCK = ("diamond", (225, 90, 40))
_ITEMS = {
    "G": ("square", (60, 160, 80)),
    "S": _SHEEP,
    "c": _COIN,
    "C": _COIN,
    "r": _BLOCK,
    "R": _BLOCK,
    "L": ("square", (160, 90, 190)),
    "v": ("arrow", (110, 150, 180)),
}


def draw_text(world: GridWorld, state: int) -> str:
    """The map as lines of letters, the agent's cell in brackets."""
    cell = int(world.cell_of_state[state])
    marked = [
        f"[{letter}]" if row * world.shape[1] + column == cell else f" {letter} "
        for row, letters in enumerate(world.rows)
        for column, letter in enumerate(letters)
    ]
    width = world.shape[1]
    return "\n".join("".join(marked[i : i + width]).rstrip() for i in range(0, len(marked), width))


def draw_pixels(world: GridWorld, state: int) -> np.ndarray:
    """The map as an image, the agent a blue disc with a dark rim.

    Returns:
        (height * CELL, width * CELL, 3) uint8.
    """
    image = np.concatenate([np.concatenate([_tile(letter) for letter in row], axis=1) for row in world.rows])
    row, column = divmod(int(world.cell_of_state[state]), world.shape[1])
    tile = image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]  # a view
    tile[_shape("disc", 0.62)] = INK
    tile[_shape("disc", 0.50)] = AGENT
    return image


def _tile(letter: str) -> np.ndarray:
    """(CELL, CELL, 3) uint8 picture of a kind of cell, with a thin line on its upper and left edge."""
    tile = np.empty((CELL, CELL, 3), np.uint8)
    tile[:] = _GROUNDS.get(letter, SAND)
    if letter in _ITEMS:
        shape, colour = _ITEMS[letter]
        tile[_shape(shape, 0.85)] = INK
        tile[_shape(shape, 0.75)] = colour
    tile[0], tile[:, 0] = LINE, LINE
    return tile


def _shape(name: str, size: float) -> np.ndarray:
    """(CELL, CELL) bool, the pixels of a centred shape that fills `size` of the cell's half-width."""
    axis = (np.arange(CELL) + 0.5) / CELL * 2 - 1  # (CELL,) in (-1, 1)
    x, y = np.abs(axis)[None, :], axis[:, None]
    if name == "disc":
        return x**2 + y**2 <= size**2
    if name == "diamond":
        return x + np.abs(y) <= size
    if name == "arrow":  # points down, the way the wind blows
        return (2 * x + y <= size) & (y >= -size)
    return np.maximum(x, np.abs(y)) <= size
