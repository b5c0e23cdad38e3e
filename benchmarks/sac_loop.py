"""Whole-loop speed of SAC on HalfCheetah-v5: ours, Stable-Baselines3's and SBX's, one update a step.

    make bench-sbx                                # once, for SBX: an environment of its own
    python benchmarks/sac_loop.py                 # 2x256, batch 256, one core
    python benchmarks/sac_loop.py --cores 2 --out docs/results/sac_loop-2-cores.json
    python benchmarks/sac_loop.py --width 128 --pairs 2 --steps 300

Each program is one process; they run in turns, all on the same single core unless --cores says more, with as many
threads. (macOS binds no process to cores.) The bound is the time that the update's matrix products alone take.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from _alternate import RESULTS, ROOT, alternate, gpu, jax_device, report, serve

SBX = ROOT / ".venv-sbx" / "bin" / "python"
BATCH = 256


def worker(name: str, width: int, steps: int, random_steps: int, cores: int, device: str) -> None:
    """Train one program and measure steps a second; ours also measures the bound."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import gymnasium as gym

    facts = {"python": sys.version.split()[0], "gymnasium": version("gymnasium")}
    if name == "SBX":
        from sbx import SAC

        facts |= {"sbx-rl": version("sbx-rl"), "jax": version("jax"), **jax_device(device)}
        device = "cpu"  # of what it does in torch
    else:
        import torch

        torch.set_num_threads(cores)
        if name == "SB3":
            from stable_baselines3 import SAC
        else:
            from prefenvs.agents import SAC
        facts |= {"torch": version("torch"), "stable-baselines3": version("stable-baselines3"), **gpu(device)}
    model = SAC(
        "MlpPolicy",
        gym.make("HalfCheetah-v5"),
        policy_kwargs={"net_arch": [width, width]},
        batch_size=BATCH,
        buffer_size=100_000,
        learning_starts=random_steps,
        seed=0,
        device=device,
    )
    model.learn(random_steps + 50, log_interval=None)

    def measure() -> dict:
        before = time.perf_counter()
        model.learn(steps, log_interval=None, reset_num_timesteps=False)
        found = {"steps a second": steps / (time.perf_counter() - before)}
        if name != "SBX":
            before = time.perf_counter()
            model.train(steps, BATCH)
            found["updates a second"] = steps / (time.perf_counter() - before)
        if name == "prefenvs" and device == "cpu":
            found["bound, updates a second"] = bound(width, max(steps // 4, 1))
        return found

    serve(measure, facts)


def bound(width: int, repeats: int, observed: int = 17, acted: int = 6) -> float:
    """Updates a second if an update were its matrix products alone, each by the quicker library."""
    import torch

    from prefenvs.tasks.product import linear

    B, W, inputs = BATCH, width, observed + acted

    def product(rows: int, inner: int, columns: int):
        return torch.randn(rows, inner), torch.randn(inner, columns)

    wide = [product(B, W, W)] * 16  # actor 2B rows and back 2, targets 2, critics 2 and back 4, again 2 and back 2
    first = [product(B, inputs, W)] * 6 + [product(B, observed, W)] * 2
    back = [product(inputs, B, W)] * 2 + [product(observed, B, W), *[product(acted, W, B)] * 2]
    heads = [product(B, W, acted)] * 4 + [product(acted, B, W)] * 2 + [product(B, acted, W)] * 2
    before = time.perf_counter()
    for _ in range(repeats):
        for left, right in (*wide, *first, *back, *heads):
            linear(left, right.t())
    return repeats / (time.perf_counter() - before)


def main() -> None:
    """Run the programs in turns and write docs/results/sac_loop.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each program (default 8)")
    parser.add_argument("--steps", type=int, default=500, help="environment steps a measurement (default 500)")
    parser.add_argument("--width", type=int, default=256, help="width of both hidden layers (default 256)")
    parser.add_argument("--random-steps", type=int, default=1000, help="random steps at first (default 1000)")
    parser.add_argument("--cores", type=int, default=1, help="and threads, that a program may use (default 1)")
    parser.add_argument("--device", default="cpu", help="of all programs (default cpu)")
    parser.add_argument("--out", type=Path, help="JSON file for the measurements (default docs/results/sac_loop.json)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.width, given.steps, given.random_steps, given.cores, given.device)
        return
    pythons = {"prefenvs": sys.executable, "SB3": sys.executable}
    if SBX.exists():
        pythons["SBX"] = str(SBX)
    else:
        print(f"{SBX} is not there, so SBX is left out: `make bench-sbx` makes it.", file=sys.stderr)
    arguments = ["--width", str(given.width), "--steps", str(given.steps), "--random-steps", str(given.random_steps)]
    arguments += ["--cores", str(given.cores), "--device", given.device]
    commands = {name: [python, __file__, "--worker", name, *arguments] for name, python in pythons.items()}
    found = alternate(commands, given.pairs, given.cores)
    report(given.out or RESULTS / "sac_loop.json", found, "steps a second", "prefenvs", given.pairs)
    if given.device != "cpu":
        return
    ours = found["prefenvs"]["rounds"]
    shares = sorted(r["updates a second"] / r["bound, updates a second"] for r in ours)
    print(f"share of the matrix products' bound reached by an update: median {shares[len(shares) // 2]:.2f}")


if __name__ == "__main__":
    main()
