"""Learning results: preference learners against the true reward and random play, five seeds each.

    python benchmarks/learning.py --jobs 2            # all tasks; about an hour of one core
    python benchmarks/learning.py --tasks CartPole    # one of them

Runs are kept in runs/learning and resume; docs/results/learning.json is written from all that are finished, and the
tables of docs/benchmarks.md are printed. The seeds were fixed before the runs and never used for tuning.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from _alternate import ROOT, commit

from prefenvs.agents.presets import PRESETS
from prefenvs.agents.train import Run, read_config, train_side_by_side
from prefenvs.tasks import TASKS

SEEDS = (30, 31, 32, 33, 34)
ARMS = {
    "CartPole": ("cartpole-small", ("prefppo", "prefppo-whole-windows")),
    "Pendulum": ("pendulum-small", ("pebble",)),
    "HalfCheetah": ("halfcheetah-small", ("pebble", "sac")),
}
"""Preset and arms of each task; an arm is an agent, `-whole-windows` the control without short windows."""
RUNS = ROOT / "runs" / "learning"


def plan(task: str) -> dict[tuple[str, int], Run]:
    """The runs of a task, by arm and seed."""
    name, arms = ARMS[task]
    runs = {}
    for seed in SEEDS:
        for arm in arms:
            agent, _, control = arm.partition("-")
            preferences = dataclasses.replace(PRESETS[name].preferences, whole_windows=bool(control))
            preset = dataclasses.replace(PRESETS[name], agent=agent, preferences=preferences)
            runs[arm, seed] = Run(preset, seed, device="cpu")
    return runs


def folder(task: str, arm: str, seed: int) -> Path:
    """Where a run is kept."""
    return RUNS / f"{task}-{arm}-{seed}"


def collect(command: str) -> dict:
    """Results of all finished runs, by task, arm and seed, and what they were made with."""
    tasks: dict[str, dict] = {}
    versions: list[dict] = []
    for task in ARMS:
        tasks[task] = {"random": TASKS[task].random_score.mean, "runs": {}}
        for arm, seed in plan(task):
            place = folder(task, arm, seed)
            if (place / "result.json").exists():
                tasks[task]["runs"].setdefault(arm, {})[str(seed)] = json.loads((place / "result.json").read_text())
                versions += [used for used in [read_config(place)["versions"]] if used not in versions]
    return {"made": {"command": command, "commit": commit(), "seeds": SEEDS, "versions": versions}, **tasks}


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def arm_row(task: str, arm: str, runs: dict[str, dict]) -> str:
    """A line of the table."""
    values = np.array([run["final"] for run in runs.values()])
    low, high = interval(values)
    asked = max(run.get("asked") or 0 for run in runs.values())
    minutes = np.median([run["seconds"] for run in runs.values()]) / 60
    shown = ", ".join(f"{value:.0f}" for value in values)
    middle = f"{np.median(values):.0f} [{low:.0f}, {high:.0f}]"
    return f"| {task} | {arm} | {', '.join(runs)} | {shown} | {middle} | {asked} | {minutes:.1f} |"


def score_line(cheetah: dict) -> str:
    """PEBBLE's score by seed. One number divides them all, SAC's median, so a seed's score pairs no seeds."""
    random, runs = cheetah["random"], cheetah["runs"]
    reference = np.median([run["final"] for run in runs["sac"].values()])
    scores = (np.array([run["final"] for run in runs["pebble"].values()]) - random) / (reference - random)
    low, high = interval(scores)
    return (
        f"HalfCheetah score of a seed = (its return - random) / (median return of SAC over seeds - random), "
        f"seeds {', '.join(runs['pebble'])}: {', '.join(f'{score:.2f}' for score in scores)}; "
        f"median {np.median(scores):.2f} [{low:.2f}, {high:.2f}], least {scores.min():.2f}. "
        f"SAC's median beats random ({random:.0f}) by {reference - random:.0f}."
    )


def markdown(results: dict) -> str:
    """The tables of docs/benchmarks.md."""
    lines = ["| task | arm | seeds | true return by seed | median [95%] | labels asked | minutes a run |"]
    lines.append("|---" * 7 + "|")
    for task in ARMS:
        lines += [arm_row(task, arm, runs) for arm, runs in results[task]["runs"].items()]
    if {"pebble", "sac"} <= set(results["HalfCheetah"]["runs"]):
        lines += ["", score_line(results["HalfCheetah"])]
    return "\n".join(lines)


def main() -> int:
    """Run, collect and write the tables; 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(ARMS), choices=list(ARMS), help="tasks to run (default all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--collect", action="store_true", help="only write the tables of finished runs")
    given = parser.parse_args()
    command = shlex.join(["python", "benchmarks/learning.py", *sys.argv[1:]])
    failures: dict[str, str] = {}
    if not given.collect:
        runs = {folder(task, *key).name: run for task in given.tasks for key, run in plan(task).items()}
        failures = train_side_by_side(
            runs, RUNS, command=command, workers=given.jobs, progress=sys.stderr.isatty()
        ).failures
    for name, failure in failures.items():
        print(f"{name} failed:\n{failure}", file=sys.stderr)
    results = collect(command)
    path = ROOT / "docs" / "results" / "learning.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
