"""Learning results: preference learners against the true reward and random play, five seeds each.

    python benchmarks/learning.py --jobs 2            # all tasks; about an hour of one core
    python benchmarks/learning.py --tasks CartPole    # one of them

Runs are kept in runs/learning and resume; docs/results/learning.json is written from them and the tables are
printed. The seeds were never used for tuning.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SEEDS = (0, 1, 2, 3, 4)
ARMS = {"CartPole": ("cartpole-small", ("prefppo",)), "Pendulum": ("pendulum-small", ("pebble",))}
ARMS["HalfCheetah"] = ("halfcheetah-small", ("pebble", "sac"))
ROOT = Path(__file__).resolve().parent.parent


def run_one(preset_name: str, agent: str, seed: int, folder: Path, whole_windows: bool = False) -> None:
    """Train one seed of one arm."""
    from prefenvs.agents.presets import PRESETS
    from prefenvs.agents.train import Run, train

    preset = dataclasses.replace(PRESETS[preset_name], agent=agent)
    if whole_windows:  # the control arm: windows of a fixed length only
        from prefenvs.segment_store import SegmentStore

        starts = SegmentStore._starts

        def whole(store: SegmentStore, episode, steps: int) -> tuple[int, int]:
            oldest, _ = starts(store, episode, steps)
            return oldest, max(episode.start + episode.length - oldest - steps + 1, 0)

        SegmentStore._starts = whole
    train(Run(preset, seed, device="cpu"), folder, command=" ".join(sys.argv), quiet=True)


def jobs(tasks: list[str]) -> list[tuple[str, list[str], Path]]:
    """Label, command and folder of each run."""
    planned = []
    for task in tasks:
        preset, agents = ARMS[task]
        arms = [(agent, agent, []) for agent in agents]
        if task == "CartPole":
            arms.append(("prefppo-whole-windows", "prefppo", ["--whole-windows"]))
        for seed in SEEDS:
            for arm, agent, flags in arms:
                folder = ROOT / "runs" / "learning" / f"{task}-{arm}-{seed}"
                command = [sys.executable, __file__, "--one", preset, agent, str(seed), str(folder), *flags]
                planned.append((f"{task} {arm} seed {seed}", command, folder))
    return planned


def run_all(planned: list[tuple[str, list[str], Path]], parallel: int) -> None:
    """Run commands, so many at a time; a failed run is reported and does not stop the others."""
    waiting, active = list(planned), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or active:
        while waiting and len(active) < parallel:
            label, command, folder = waiting.pop(0)
            if (folder / "result.json").exists():
                continue
            print(f"{label} ...", file=sys.stderr, flush=True)
            active.append((label, subprocess.Popen(command, env=environment)))
        if active:
            label, process = active.pop(0)
            if process.wait():
                print(f"{label} failed with exit status {process.returncode}", file=sys.stderr)


def collect(tasks: list[str]) -> dict:
    """Results of all finished runs."""
    from prefenvs.tasks import TASKS

    table = {}
    for task in tasks:
        rows: dict[str, dict[str, dict]] = {}
        for _, _, folder in jobs([task]):
            if (folder / "result.json").exists():
                arm, _, seed = folder.name.removeprefix(f"{task}-").rpartition("-")
                rows.setdefault(arm, {})[seed] = json.loads((folder / "result.json").read_text())
        table[task] = {"random": TASKS[task].random_score.mean, "runs": rows}
    return table


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def markdown(table: dict) -> str:
    """The tables of docs/benchmarks.md."""
    lines = [
        "| task | arm | true return by seed | median [95%] | labels asked | minutes a run |",
        "|---|---|---|---|---|---|",
    ]
    for task, content in table.items():
        for arm, runs in content["runs"].items():
            values = np.array([runs[seed]["final"] for seed in sorted(runs)])
            low, high = interval(values)
            asked = max(run.get("asked") or 0 for run in runs.values())
            minutes = np.median([run["seconds"] for run in runs.values()]) / 60
            shown = ", ".join(f"{value:.0f}" for value in values)
            middle = f"{np.median(values):.0f} [{low:.0f}, {high:.0f}]"
            lines.append(f"| {task} | {arm} | {shown} | {middle} | {asked} | {minutes:.1f} |")
    cheetah = table.get("HalfCheetah", {"runs": {}})["runs"]
    if {"pebble", "sac"} <= set(cheetah):
        random = table["HalfCheetah"]["random"]
        both = sorted(set(cheetah["pebble"]) & set(cheetah["sac"]))
        reference = np.median([cheetah["sac"][seed]["final"] for seed in both])
        scores = np.array([(cheetah["pebble"][seed]["final"] - random) / (reference - random) for seed in both])
        low, high = interval(scores)
        lines += [
            "",
            f"HalfCheetah score = (preference - random) / (median SAC - random), seeds {', '.join(both)}: "
            + ", ".join(f"{score:.2f}" for score in scores)
            + f"; median {np.median(scores):.2f} [{low:.2f}, {high:.2f}], least {scores.min():.2f}. "
            + f"SAC's median beats random ({random:.0f}) by {reference - random:.0f}.",
        ]
    return "\n".join(lines)


def main() -> None:
    """Run, collect and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(ARMS), choices=list(ARMS), help="tasks to run (default all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--collect", action="store_true", help="only write the tables of finished runs")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--whole-windows", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        preset, agent, seed, folder = given.one
        run_one(preset, agent, int(seed), Path(folder), given.whole_windows)
        return
    if not given.collect:
        run_all(jobs(given.tasks), given.jobs)
    table = collect(list(ARMS))
    results = ROOT / "docs" / "results" / "learning.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(table, indent=1) + "\n")
    print(markdown(table))


if __name__ == "__main__":
    main()
