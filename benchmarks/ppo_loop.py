"""Whole-loop speed of PPO on HalfCheetah: ours, Stable-Baselines3's and SBX's, the same hyperparameters.

    make bench-sbx                    # once, for SBX: an environment of its own
    python benchmarks/ppo_loop.py     # 8 environments, 256 steps, batch 64, 10 epochs, 2x64 tanh, one thread
    python benchmarks/ppo_loop.py --task Pendulum --pairs 2

Ours and SB3's run on two kinds of environments: SB3's DummyVecEnv of Gymnasium's own, and `prefenvs.sb3_vec`, whose
batch steps as arrays. `prefenvs` is both parts of the suite together, which SB3 on its DummyVecEnv is compared with.
SBX runs on DummyVecEnv: its environment does not hold this package. Each program is one process; they run in turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

from _alternate import RESULTS, ROOT, alternate, gpu, jax_device, ratio, report, serve

SBX = ROOT / ".venv-sbx" / "bin" / "python"
NUM_ENVS = 8
GYMNASIUM = {"HalfCheetah": "HalfCheetah-v5", "Pendulum": "Pendulum-v1"}
PROGRAMS = ("prefenvs", "prefenvs on DummyVecEnv", "SB3 on sb3_vec", "SB3 on DummyVecEnv")


def environments(batched: bool, task: str):
    """8 environments that show the true reward, with SB3's record of episodes."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecMonitor

    if not batched:
        return make_vec_env(GYMNASIUM[task], NUM_ENVS, seed=0)
    import prefenvs

    return VecMonitor(prefenvs.sb3_vec(f"prefenvs/{task}-v0", NUM_ENVS, evaluation=True, **one_thread(task)))


def one_thread(task: str) -> dict:
    """Settings for one thread, where the task steps in threads."""
    return {"threads": 1} if task == "HalfCheetah" else {}


def worker(name: str, task: str, n_steps: int, device: str) -> None:
    """Train one program and measure steps a second over one rollout and its update."""
    facts = {"python": sys.version.split()[0], "gymnasium": version("gymnasium")}
    if name.startswith("SBX"):
        from sbx import PPO

        facts |= {"sbx-rl": version("sbx-rl"), "jax": version("jax"), **jax_device(device)}
        device = "cpu"  # of what it does in torch
    else:
        import torch

        torch.set_num_threads(1)
        if name.startswith("SB3"):
            from stable_baselines3 import PPO
        else:
            from prefenvs.agents import PPO
        facts |= {"torch": version("torch"), "stable-baselines3": version("stable-baselines3"), **gpu(device)}
    venv = environments(name in ("prefenvs", "SB3 on sb3_vec"), task)
    model = PPO("MlpPolicy", venv, n_steps=n_steps, batch_size=64, n_epochs=10, seed=0, device=device)
    model.learn(n_steps * NUM_ENVS, log_interval=None)

    def measure() -> dict:
        before = time.perf_counter()
        model.learn(n_steps * NUM_ENVS, log_interval=None, reset_num_timesteps=False)
        return {"steps a second": n_steps * NUM_ENVS / (time.perf_counter() - before)}

    serve(measure, facts)


def main() -> None:
    """Run the programs in turns and write docs/results/ppo_loop-TASK.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each program (default 8)")
    parser.add_argument("--task", choices=tuple(GYMNASIUM), default="HalfCheetah")
    parser.add_argument("--n-steps", type=int, default=256, help="steps a rollout of each environment (default 256)")
    parser.add_argument("--device", default="cpu", help="of all programs (default cpu)")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the measurements (default docs/results/ppo_loop-TASK.json)"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.task, given.n_steps, given.device)
        return
    pythons = dict.fromkeys(PROGRAMS, sys.executable)
    if SBX.exists():
        pythons["SBX on DummyVecEnv"] = str(SBX)
    else:
        print(f"{SBX} is not there, so SBX is left out: `make bench-sbx` makes it.", file=sys.stderr)
    arguments = ["--task", given.task, "--n-steps", str(given.n_steps), "--device", given.device]
    commands = {name: [python, __file__, "--worker", name, *arguments] for name, python in pythons.items()}
    found = alternate(commands, given.pairs)
    report(given.out or RESULTS / f"ppo_loop-{given.task}.json", found, "steps a second", "prefenvs", given.pairs)
    rates = {name: [r["steps a second"] for r in found[name]["rounds"]] for name in PROGRAMS}
    for kind, ours, theirs in (("sb3_vec", PROGRAMS[0], PROGRAMS[2]), ("DummyVecEnv", PROGRAMS[1], PROGRAMS[3])):
        r = ratio(rates[ours], rates[theirs])
        print(f"both on {kind}: ours / SB3 {r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]")


if __name__ == "__main__":
    main()
