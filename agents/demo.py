"""The demonstration behind `make demo`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

RECORDED_SAC = 3391.8176017378564
"""True return of SB3's SAC with the demo's steps, network and update ratio: the median of the seeds recorded in
docs/results/learning.json by benchmarks/learning.py."""


def run_demo(out: Path, seed: int, *, steps: int | None, full: bool, command: str) -> int:
    """Train PEBBLE on HalfCheetah (and SAC on the true reward if `full`), print the table, write the report."""
    from rich.console import Console
    from rich.table import Table

    from prefenvs.agents.evaluation import evaluate
    from prefenvs.agents.presets import PRESETS
    from prefenvs.agents.train import Run, train
    from prefenvs.report import write_report
    from prefenvs.tasks import TASKS

    preset = PRESETS["halfcheetah-small"]
    if steps is not None:
        preset = dataclasses.replace(preset, total_steps=steps)
    print(f"Learning {preset.task} from preferences, {preset.total_steps:,} steps ...", file=sys.stderr)
    folder = out / f"pebble-{seed}"
    result = train(Run(preset, seed, device="cpu"), folder, command=command, progress=True, clips=4)
    random = evaluate(None, TASKS[preset.task].id, 20).mean
    reference: dict[str, Any] | None = None
    folders = [folder]
    if full:
        print("The same on the true reward ...", file=sys.stderr)
        sac = dataclasses.replace(preset, agent="sac")
        baseline = train(Run(sac, seed, device="cpu"), out / f"sac-{seed}", command=command, progress=True)
        reference = {"score": baseline["final"], "recorded": False}
        folders.append(out / f"sac-{seed}")
    elif steps is None:
        reference = {"score": RECORDED_SAC, "recorded": True}
    result |= {"random": random, "preferences": result["final"], "true_reward": reference}
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")

    table = Table(
        "", "true return", "labels", "reward-model accuracy", title=f"{preset.task}, {preset.total_steps:,} steps"
    )
    table.add_row("random actions", f"{random:.0f}", "", "")
    accuracy = result.get("held_out_accuracy")
    labels = f"{result['answered']} of {result['asked']} asked"
    table.add_row("preferences (PEBBLE)", f"{result['final']:.0f}", labels, f"{accuracy:.0%}" if accuracy else "")
    if reference is not None:
        name = "true reward (SAC, recorded)" if reference["recorded"] else "true reward (SAC)"
        table.add_row(name, f"{reference['score']:.0f}", "", "")
    Console().print(table)
    print(f"Report: {write_report(*folders)}")
    return 0
