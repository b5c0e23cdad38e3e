"""Measures the random score of every control task: `python -m prefenvs.tasks.control.scores --episodes 100`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from prefenvs.tasks.control import CONTROL_TASKS
from prefenvs.tasks.task import TaskSpec

SCORES = Path(__file__).with_name("scores.json")


def make_task(spec: TaskSpec, **kwargs: Any) -> Any:
    """The task itself, without its step limit."""
    module, name = spec.entry_point.split(":")
    return getattr(importlib.import_module(module), name)(**spec.kwargs, **kwargs)


def random_returns(spec: TaskSpec, episodes: int) -> np.ndarray:
    """(episodes,) true return of uniformly random actions. Episode i resets with seed i; the actions' seed is 0."""
    task = make_task(spec)
    task.action_space.seed(0)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        task.reset(seed=episode)
        for _ in range(spec.horizon):
            _, reward, terminated, _, _ = task.step(task.action_space.sample())
            returns[episode] += reward
            if terminated:
                break
    task.close()
    return returns


def main() -> None:
    """Measure, print a line a task and write `scores.json` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="episodes a task")
    parser.add_argument("--out", type=Path, default=SCORES, help="the JSON file to write")
    arguments = parser.parse_args()
    scores = {}
    for spec in CONTROL_TASKS:
        returns = random_returns(spec, arguments.episodes)
        scores[spec.name] = {"mean": float(returns.mean()), "sd": float(returns.std(ddof=1))}
        sys.stdout.write(f"{spec.name:24} {returns.mean():12.3f} {returns.std(ddof=1):12.3f}\n")
        sys.stdout.flush()
    source = f"python -m prefenvs.tasks.control.scores --episodes {arguments.episodes}"
    arguments.out.write_text(json.dumps({"source": source, "scores": scores}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
