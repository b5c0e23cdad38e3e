"""The `study` verb: runs studies one after another and shows their verdicts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prefenvs.error import PrefenvsError
from prefenvs.studies._pages import cell, draw, estimate_row, record, recordable
from prefenvs.studies._run import conduct


class Asked(Protocol):
    """The flags of the verb."""

    scale: str
    seeds: int | None
    jobs: int
    out: Path
    record: bool
    json: bool


def run_studies(names: Sequence[str], asked: Asked, command: str, progress: bool) -> int:
    """Run studies and print their verdicts; 0 if all claims hold, 1 otherwise. One that fails to run stops no other.

    Raises:
        PrefenvsError: for a single study that did not run, or that may not be recorded.
    """
    if asked.record:
        for name in names:
            recordable(name, asked.scale, None if asked.seeds is None else [])
    results = []
    for name in names:
        try:
            results.append(_one(name, asked, command, progress))
        except PrefenvsError as error:
            if len(names) == 1:
                raise
            print(f"prefenvs: {error}", file=sys.stderr)
    if asked.json:
        shown = [{key: value for key, value in result.items() if key != "tables"} for result in results]
        print(json.dumps(shown[0] if len(names) == 1 else shown, indent=1))
    held = [result["verdict"]["outcome"] == "holds" for result in results]
    return 0 if len(held) == len(names) and all(held) else 1


def show(result: Mapping[str, Any]) -> str:
    """Claim, summary, estimates and verdict, as text."""
    summary, estimates = result["summary"], result["verdict"]["estimates"]
    lines = [
        f"{result['study']}: {result['claim']}",
        "",
        *columns([list(summary[0]), *[list(row.values()) for row in summary]]),
        "",
        *columns([["estimate", "value", "interval", "margin", ""], *map(estimate_row, estimates)]),
        "",
        *([result["verdict"]["note"]] if result["verdict"]["note"] else []),
        f"Verdict: {result['verdict']['outcome']}",
    ]
    if result["scale"] == "smoke":
        lines[-1] += " (at smoke scale, which shows that it runs and decides nothing; see --scale full)"
    return "\n".join(lines)


def columns(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines with aligned columns."""
    text = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    return ["  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in text]


def _one(name: str, asked: Asked, command: str, progress: bool) -> dict[str, Any]:
    folder, result = conduct(
        name, asked.scale, asked.out, seeds=asked.seeds, jobs=asked.jobs, command=command, progress=progress
    )
    try:
        drawn = draw(result, folder / "figure.svg")
    except ImportError as error:
        if asked.record:
            raise
        drawn = False
        print(f"prefenvs: no figure: {error}", file=sys.stderr)
    if not asked.json:
        print(show(result))
        print(f"Tables{' and figure' if drawn else ''} in {folder}.")
    if asked.record:
        print(f"Recorded: {record(folder, result)}", file=sys.stderr)
    return result
