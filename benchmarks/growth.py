"""Bytes a transition in the replay buffer, and how the cost of a feedback session grows.

    python benchmarks/growth.py                       # some minutes
    python benchmarks/growth.py --rounds 1 --scale 10 # a tenth of all sizes

A session is that of feedback_round.py: cut and score ten times as many pairs as are asked about, label, fit five
epochs, relabel. Labels, replay buffer and ensemble members grow one at a time from 200, 10^5 and 3. Sessions of
different sizes run in turns, forwards and backwards, on one thread.
"""

from __future__ import annotations

import argparse
import json
import tracemalloc
from pathlib import Path

import numpy as np
from _alternate import RESULTS, machine
from feedback_round import PHASES, Played

BASE = {"labels": 200, "replay": 100_000, "members": 3}
GROWN = {"labels": (100, 200, 400, 800), "replay": (10_000, 100_000, 300_000, 1_000_000), "members": (1, 3, 5, 9)}
EPOCHS = 5


def bytes_a_transition(spaces: tuple, size: int = 10_000) -> dict[str, float]:
    """What Python's allocator gave for a buffer, divided by its size."""
    from stable_baselines3.common.buffers import ReplayBuffer

    from prefenvs.agents import RewardReplayBuffer

    found = {}
    for name, kind in (("prefenvs", RewardReplayBuffer), ("SB3", ReplayBuffer)):
        tracemalloc.start()
        buffer = kind(size, *spaces, device="cpu")
        found[name] = tracemalloc.get_traced_memory()[0] / buffer.buffer_size
        tracemalloc.stop()
    return found


def main() -> None:
    """Measure and write docs/results/growth.json."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each size (default 3)")
    parser.add_argument("--scale", type=int, default=1, help="divide labels and replay by this (default 1)")
    parser.add_argument("--out", type=Path, default=RESULTS / "growth.json", help="JSON file for the measurements")
    given = parser.parse_args()
    torch.set_num_threads(1)
    played = Played(20)
    kept = bytes_a_transition(played.spaces)
    print("Bytes a transition of HalfCheetah: " + ", ".join(f"{name} {value:.0f}" for name, value in kept.items()))

    def sized(part: str, value: int) -> dict[str, int]:
        sizes = {**BASE, part: value}
        return {name: size if name == "members" else size // given.scale for name, size in sizes.items()}

    points = [(part, sized(part, value)) for part, values in GROWN.items() for value in values]
    buffers = {sizes["replay"]: played.replay(sizes["replay"]) for _, sizes in points}
    found: list[list[dict]] = [[] for _ in points]
    for turn in range(given.rounds):
        order = range(len(points)) if turn % 2 == 0 else reversed(range(len(points)))
        for i in order:
            _, sizes = points[i]
            seconds = played.session(buffers[sizes["replay"]], turn, sizes["labels"], EPOCHS, sizes["members"])
            found[i].append(seconds)
    rows = [{"grown": part, **sizes, "rounds": rounds} for (part, sizes), rounds in zip(points, found, strict=True)]
    result = {"machine": machine(), "epochs": EPOCHS, "bytes a transition": kept, "sessions": rows}
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\nMedian seconds.\n\n| grown | labels | replay | members | " + " | ".join((*PHASES, "session")) + " |")
    print("|---" * (5 + len(PHASES)) + "|")
    for row in rows:
        phases = [np.median([r[f"{name}, s"] for r in row["rounds"]]) for name in PHASES]
        whole = np.median([1 / r["sessions a second"] for r in row["rounds"]])
        shown = " | ".join(f"{value:.3f}" for value in (*phases, whole))
        print(f"| {row['grown']} | {row['labels']} | {row['replay']} | {row['members']} | {shown} |")
    print(f"\n{machine()}; {given.rounds} rounds; {given.out}")


if __name__ == "__main__":
    main()
