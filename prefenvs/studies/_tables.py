"""Reading a study's tables: numbers by seed for its check, means over seeds for its summary and its figure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prefenvs.studies._check import Table, Tables


def per_seed(tables: Tables, arm: str, column: str, **where: Any) -> np.ndarray:
    """(seeds,) mean of a column of an arm's tables over the rows that have the values of `where`, in order of seeds.

    Raises:
        ValueError: if a seed has no such row.
    """
    return np.array([run.mean() for run in runs(tables, arm, column, **where)])


def at_end(tables: Tables, arm: str, column: str, **where: Any) -> np.ndarray:
    """(seeds,) a column of the last row that has the values of `where`, in order of seeds.

    Raises:
        ValueError: if a seed has no such row.
    """
    return np.array([run[-1] for run in runs(tables, arm, column, **where)])


def runs(tables: Tables, arm: str, column: str, **where: Any) -> list[np.ndarray]:
    """A column of each seed's rows that have the values of `where`, (rows,) each, in order of seeds.

    Raises:
        ValueError: if a seed has no such row.
    """
    found = []
    for seed in sorted(tables[arm]):
        rows = [row for row in tables[arm][seed] if all(row[key] == value for key, value in where.items())]
        if not rows:
            raise ValueError(f"seed {seed} of arm {arm!r} has no row with {where or 'anything in it'}.")
        found.append(np.array([row[column] for row in rows], dtype=float))
    return found


def curve(tables: Tables, arm: str, column: str, **where: Any) -> np.ndarray:
    """(rows,) means over seeds, row by row, of the rows that have the values of `where`.

    Raises:
        ValueError: if a seed has no such row, or another number of them than the first seed.
    """
    found = runs(tables, arm, column, **where)
    if len({len(run) for run in found}) != 1:
        raise ValueError(f"arm {arm!r} has no mean row by row: the seeds have {[len(run) for run in found]} rows.")
    return np.mean(found, axis=0)


def means(
    *columns: str, by: Sequence[str] = (), across: str | None = None, last: bool = False
) -> Callable[[Tables], Table]:
    """A `summary`: means over rows and seeds, a row for each arm and each value of the columns `by`.

    Args:
        *columns: what is averaged; by default all numbers.
        by: columns whose values are told apart.
        across: a column whose values are told apart too, beside each other: "gold clean", "gold flipped".
        last: average the last of a seed's rows alone.
    """

    def summary(tables: Tables) -> Table:
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for arm, row in _rows(tables, (*by, *([across] if across else [])), last):
            group = {"arm": arm, **{key: row[key] for key in by}}
            numbers = found.setdefault(tuple(group.items()), {})
            taken = columns or [k for k, v in row.items() if isinstance(v, int | float) and k not in (*by, across)]
            for key in taken:
                numbers.setdefault(f"{key} {row[across]}" if across else key, []).append(row[key])
        return [
            dict(group) | {key: float(np.mean(v)) for key, v in numbers.items()} for group, numbers in found.items()
        ]

    return summary


def _rows(tables: Tables, apart: Sequence[str], last: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of each arm and seed with the arm; the last alone of those that agree in the columns `apart`."""
    for arm, seeds in tables.items():
        for table in seeds.values():
            kept: Mapping[Any, Any] = {tuple(r[k] for k in apart) if last else i: r for i, r in enumerate(table)}
            yield from ((arm, row) for row in kept.values())


def curves(
    *axes: tuple[str, str],
    arms: Sequence[str] = (),
    panels: str | None = None,
    dashed: str = "",
    xscale: str = "linear",
    names: Mapping[str, str] | None = None,
) -> Callable[[Tables, Any], None]:
    """A `draw`: means over seeds, row by row, of one column against another, a line an arm.

    Args:
        *axes: columns (x, y), a panel for each.
        arms: those shown, of those that there are; by default all.
        panels: a column with a panel for each of its values, in place of several `axes`.
        dashed: arms whose name ends so are dashed, in the colour of the arm without it.
        xscale: as matplotlib's.
        names: of columns, where the column's own will not do.
    """

    def draw(tables: Tables, figure: Any) -> None:
        first = next(iter(next(iter(tables.values())).values()))
        values = list(dict.fromkeys(row[panels] for row in first)) if panels else [None]
        shown = list(itertools.product(axes, values))
        columns = 2 if len(shown) == 4 else min(len(shown), 3)
        colours: dict[str, str] = {}
        for place, ((x, y), value) in enumerate(shown):
            panel = figure.add_subplot(-(-len(shown) // columns), columns, place + 1)
            for arm in [arm for arm in arms or tables if arm in tables]:
                where = {} if panels is None else {panels: value}
                plain = arm.removesuffix(dashed).strip() if dashed else arm
                colour = colours.setdefault(plain, f"C{len(colours)}")
                xy = (curve(tables, arm, column, **where) for column in (x, y))
                panel.plot(*xy, "-" if plain == arm else "--", color=colour, label=arm.replace("_", " "))
            panel.set(xscale=xscale, **{f"{k}label": (names or {}).get(c, c) for k, c in (("x", x), ("y", y))})
            panel.set_title(value or "", fontsize="medium")
            panel.tick_params(axis="x", which="minor", labelbottom=False)
        figure.axes[0].legend(frameon=False, fontsize="small")

    return draw


def dots(
    summary: Callable[[Tables], Table], columns: Mapping[str, str], across: str, kinds: Sequence[str]
) -> Callable[[Tables, Any], None]:
    """A `draw`: numbers of a summary made with `across`, a row an arm and a colour a kind, by the first of both.

    Args:
        summary: of the study, with columns such as "gold clean".
        columns: "gold" and what its axis says, a panel each.
        across: title of the legend.
        kinds: "clean" and up to three others.
    """

    def draw(tables: Tables, figure: Any) -> None:
        rows = sorted(summary(tables), key=lambda row: row[f"{next(iter(columns))} {kinds[0]}"])
        panels = figure.subplots(1, len(columns), sharey=True)
        for panel, (column, label) in zip(panels, columns.items(), strict=True):
            for kind, marker in zip(kinds, "os^v", strict=False):
                values = [row[f"{column} {kind}"] for row in rows]
                panel.plot(values, range(len(rows)), marker, markersize=4, label=kind)
            panel.set(xlabel=label)
        panels[0].set_yticks(range(len(rows)), [row["arm"] for row in rows], fontsize=8)
        panels[0].legend(title=across)

    return draw
