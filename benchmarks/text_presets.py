"""What `prefenvs train` makes of the small language model of every text task: true reward before and after.

    python benchmarks/text_presets.py --jobs 2               # eight tasks by dpo and grpo; 20 minutes of two cores
    python benchmarks/text_presets.py --tasks TextKeyword --agents token_ppo

The claim, set before the runs: on the prompts that are trained on, the true reward rises, so that the 95% interval of
the median rise over five seeds lies above 0. Runs are kept in runs/text_presets and resume; docs/results/
text_presets.json is written from those that are finished, and the table of docs/benchmarks.md is printed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from _alternate import RESULTS, ROOT, commit
from learning import interval

SEEDS = (30, 31, 32, 33, 34)
TASKS = (
    "TextKeyword",
    "TextSentiment",
    "TextSummary",
    "TextInstruct",
    "TextArithmetic",
    "TextProgram",
    "TextRetrieval",
    "TextDialogue",
)
RUNS = ROOT / "runs" / "text_presets"


def results(task: str, agent: str) -> list[dict]:
    """Of the finished runs of all seeds."""
    files = [RUNS / f"{task}-{agent}" / f"seed-{seed}" / "result.json" for seed in SEEDS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def train(task: str, agent: str, jobs: int) -> None:
    """Run what is not finished."""
    command = ["train", "--env", f"prefenvs/{task}-v0", "--agent", agent, "--device", "cpu", "--seed", str(SEEDS[0])]
    command += ["--seeds", str(len(SEEDS)), "--jobs", str(jobs), "--out", str(RUNS / f"{task}-{agent}")]
    subprocess.run([sys.executable, "-c", "from prefenvs.cli import main; main()", *command], check=True)


def row(task: str, agent: str, runs: list[dict]) -> dict:
    """What five runs gave."""
    before, after = (np.array([run[when]["train_mean"] for run in runs]) for when in ("before", "after"))
    low, high = interval(after - before)
    heard = [run["held_out_accuracy"] for run in runs if run.get("held_out_accuracy") is not None]
    return {
        "task": task,
        "agent": agent,
        "before": before.round(3).tolist(),
        "after": after.round(3).tolist(),
        "rise": {"median": float(np.median(after - before)), "low": low, "high": high},
        "kl": round(float(np.median([run["after"]["kl"] for run in runs])), 2),
        "held out accuracy": round(float(np.median(heard)), 2) if heard else None,
        "holds": low > 0,
    }


def main() -> None:
    """Run, write docs/results/text_presets.json and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--agents", nargs="+", default=["dpo", "grpo"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--out", type=Path, default=RESULTS / "text_presets.json")
    given = parser.parse_args()
    rows = []
    for task in given.tasks:
        for agent in given.agents:
            if len(results(task, agent)) < len(SEEDS):
                train(task, agent, given.jobs)
            rows.append(row(task, agent, results(task, agent)))
    made = {"command": shlex.join(["python", "benchmarks/text_presets.py", *sys.argv[1:]]), "commit": commit()}
    made |= {"seeds": SEEDS, "torch": version("torch")}
    given.out.write_text(json.dumps({"made": made, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print("| task | agent | before, by seed | after, by seed | rise [95%] | KL, nats | reward model foresees | claim |")
    print("|---|---|---|---|---|---|---|---|")
    for found in rows:
        rise, heard = found["rise"], found["held out accuracy"]
        numbers = [", ".join(f"{value:.2f}" for value in found[when]) for when in ("before", "after")]
        print(
            f"| {found['task']} | {found['agent']} | {numbers[0]} | {numbers[1]} | {rise['median']:.2f} "
            f"[{rise['low']:.2f}, {rise['high']:.2f}] | {found['kl']} | {'' if heard is None else f'{heard:.2f}'} "
            f"| {'holds' if found['holds'] else 'fails'} |"
        )


if __name__ == "__main__":
    main()
