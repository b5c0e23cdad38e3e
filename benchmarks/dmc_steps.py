"""Steps a second of one DMControl environment: ours and through Shimmy.

    make bench-shimmy                             # once: an environment of its own
    python benchmarks/dmc_steps.py
    python benchmarks/dmc_steps.py --task CheetahRun --pairs 4 --steps 1000

`prefenvs` hides the reward and records it for the oracle; `evaluation` shows it. All take the same random actions, and
reset where episodes end. Programs run in turns, one thread each.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

from _alternate import RESULTS, ROOT, alternate, report, serve

PEER = ROOT / ".venv-shimmy" / "bin" / "python"
DOMAINS = {"WalkerWalk": ("walker", "walk"), "CheetahRun": ("cheetah", "run"), "QuadrupedWalk": ("quadruped", "walk")}


def worker(name: str, task: str, steps: int) -> None:
    """Step one environment whenever asked to."""
    import gymnasium as gym
    import numpy as np

    if name == "shimmy":
        from dm_control import suite
        from shimmy import DmControlCompatibilityV0

        domain, of = DOMAINS[task]
        env: gym.Env = gym.wrappers.FlattenObservation(DmControlCompatibilityV0(suite.load(domain, of)))
    else:
        import prefenvs

        env = gym.make(f"prefenvs/{task}-v0", evaluation=name == "evaluation")
        if name == "prefenvs":
            prefenvs.feedback(env)
    space = env.action_space
    actions = np.random.default_rng(0).uniform(space.low, space.high, (steps, *space.shape)).astype(space.dtype)
    env.reset(seed=0)

    def measure() -> dict:
        before = time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return {"steps a second": steps / (time.perf_counter() - before)}

    measure()
    packages = ("dm_control", "gymnasium", "mujoco", "numpy", *(("shimmy",) if name == "shimmy" else ()))
    serve(measure, {package: version(package) for package in packages})


def main() -> None:
    """Run the three in turns and write docs/results/dmc_steps-TASK.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="WalkerWalk", choices=DOMAINS, help="default WalkerWalk")
    parser.add_argument("--pairs", type=int, default=12, help="measurements of each program (default 12)")
    parser.add_argument("--steps", type=int, default=4000, help="steps a measurement (default 4000)")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers (default in docs/results)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.task, given.steps)
        return
    if not PEER.exists():
        parser.error(f"{PEER} is not there: `make bench-shimmy` makes it.")
    pythons = {"prefenvs": sys.executable, "evaluation": sys.executable, "shimmy": str(PEER)}
    arguments = ["--task", given.task, "--steps", str(given.steps)]
    commands = {name: [python, __file__, "--worker", name, *arguments] for name, python in pythons.items()}
    out = given.out or RESULTS / f"dmc_steps-{given.task}.json"
    report(out, alternate(commands, given.pairs), "steps a second", "prefenvs", given.pairs)


if __name__ == "__main__":
    main()
