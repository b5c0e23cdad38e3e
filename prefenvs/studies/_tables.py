"""Means over seeds of what tables hold, for the summary and the figure of a study's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prefenvs.studies._check import Tables


def seed_mean(values: Mapping[int, float]) -> float:
    """Mean of a number a seed, such as `per_seed` gives."""
    return float(np.mean(list(values.values())))


def at_end(tables: Tables, arm: str, column: str, **where: Any) -> dict[int, float]:
    """A column of the last row that has the values of `where`, by seed.

    Raises:
        ValueError: if a seed has no such row.
    """
    return {seed: float(values[0, -1]) for seed, values in _runs(tables, arm, (column,), where).items()}


def curve(tables: Tables, arm: str, *columns: str, **where: Any) -> np.ndarray:
    """(columns, rows) means over seeds, row by row, of the rows that have the values of `where`.

    Raises:
        ValueError: if a seed has no such row, or another number of them than the first seed.
    """
    runs = _runs(tables, arm, columns, where)
    lengths = {seed: values.shape[1] for seed, values in runs.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arm {arm!r} has no mean row by row: rows by seed are {lengths}.")
    return np.mean(list(runs.values()), axis=0)


def _runs(tables: Tables, arm: str, columns: tuple[str, ...], where: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """(columns, rows) by seed."""
    found = {}
    for seed, table in tables[arm].items():
        rows = [row for row in table if all(row[key] == value for key, value in where.items())]
        if not rows:
            raise ValueError(f"seed {seed} of arm {arm!r} has no row with {where or 'anything in it'}.")
        found[seed] = np.array([[row[column] for row in rows] for column in columns], dtype=float)
    return found
