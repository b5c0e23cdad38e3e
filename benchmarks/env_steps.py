"""Environment steps a second of batches that step as arrays, against Gymnasium's and against the physics alone.

    python benchmarks/env_steps.py                             # five robots; a quarter of an hour
    python benchmarks/env_steps.py --robots Hopper --pairs 8 --seconds 0.5

Each arm lives in a process of its own, and only one steps at a time: A B B A, so that a machine that slows down slows
both. A pair's ratio is A's rate over B's; the table gives the median over pairs with a bootstrap interval. All arms
take the same random actions from the same seeds, and reset where episodes end. Ours hides the reward and records for
the oracle; Gymnasium's arms are its own environments. `physics` is what Gymnasium has MuJoCo do in a step, contact
forces included, in as many threads as ours: a ceiling for whoever does all of it. `rollout` is mujoco.rollout. `thread`
is ours in one thread, as sync is, and `gym.make` one environment of ours against Gymnasium's own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from _alternate import RESULTS, alternate, machine, ratio, serve

ROBOTS = ("HalfCheetah", "Walker2d", "Hopper", "Ant", "Humanoid")
PEERS = (("sync", 8), ("sync", 64), ("async", 8), ("async", 64), ("physics", 64), ("rollout", 64))
PAIRS = (*((("ours", 64), peer) for peer in PEERS), (("thread", 64), ("sync", 8)), (("gym.make", 1), ("gymnasium", 1)))
GROWTH = (1, 4, 16, 64, 256)  # environments
WARM_UP = 10  # steps before the clock starts


def single_arm(kind: str, robot: str, _n: int, _threads: int):
    """One environment as (reset, step)."""
    import gymnasium as gym

    import prefenvs

    env = gym.make(f"prefenvs/{robot}-v0", budget=100) if kind == "gym.make" else gym.make(f"{robot}-v5")
    if kind == "gym.make":
        prefenvs.feedback(env)

    def step(actions: np.ndarray) -> None:
        _, _, terminated, truncated, _ = env.step(actions[0])
        if terminated or truncated:
            env.reset()

    return lambda: env.reset(seed=0), step, (env.action_space.low, env.action_space.high)


def vector_arm(kind: str, robot: str, n: int, threads: int):
    """A Gymnasium vector environment as (reset, step)."""
    import gymnasium as gym

    import prefenvs

    if kind in ("ours", "thread"):
        threads = 1 if kind == "thread" else threads
        envs = gym.make_vec(f"prefenvs/{robot}-v0", num_envs=n, threads=threads, budget=100)
        prefenvs.feedback(envs)
    else:
        envs = gym.make_vec(f"{robot}-v5", num_envs=n, vectorization_mode=kind)
    low, high = envs.single_action_space.low, envs.single_action_space.high
    return lambda: envs.reset(seed=0), envs.step, (low, high)


def physics_arm(kind: str, robot: str, n: int, threads: int):
    """What MuJoCo does in a step of n environments, as (reset, step), without a single observation."""
    import gymnasium as gym
    import mujoco
    from mujoco.rollout import Rollout

    env = gym.make(f"{robot}-v5").unwrapped
    model, substeps = env.model, env.frame_skip
    whole = mujoco.mjtState.mjSTATE_FULLPHYSICS
    lengths = episode_lengths(robot)
    simulations, first = [mujoco.MjData(model) for _ in range(n)], np.zeros((n, mujoco.mj_stateSize(model, whole)))
    states, left = first.copy(), np.zeros(n, int)
    pool = ThreadPoolExecutor(threads)
    scratch, together = [mujoco.MjData(model) for _ in range(threads)], Rollout(nthread=threads)
    for row, simulation in enumerate(simulations):
        env.reset(seed=row)
        simulation.qpos[:], simulation.qvel[:] = env.data.qpos, env.data.qvel
        mujoco.mj_forward(model, simulation)
        mujoco.mj_getState(model, simulation, first[row], whole)

    def start() -> None:
        rng = np.random.default_rng(0)
        left[:] = rng.choice(lengths, n)
        states[:] = first
        for row in range(n):
            begin(row)

    def begin(row: int) -> None:
        mujoco.mj_setState(model, simulations[row], first[row], whole)
        mujoco.mj_forward(model, simulations[row])

    def advance(rows: range, actions: np.ndarray) -> None:
        for row in rows:
            simulations[row].ctrl[:] = actions[row]
            mujoco.mj_step(model, simulations[row], substeps)
            mujoco.mj_rnePostConstraint(model, simulations[row])

    def ended() -> np.ndarray:
        left[:] -= 1
        over = np.flatnonzero(left == 0)
        left[over] = np.resize(lengths, len(over))
        return over

    def step(actions: np.ndarray) -> None:
        parts = [range(n * part // threads, n * (part + 1) // threads) for part in range(threads)]
        list(pool.map(partial(advance, actions=actions), parts))
        for row in ended():
            begin(row)

    def roll(actions: np.ndarray) -> None:
        controls = np.repeat(actions[:, None].astype(np.float64), substeps, 1)
        states[:] = together.rollout(model, scratch, states, controls)[0][:, -1]
        over = ended()
        states[over] = first[over]

    return start, step if kind == "physics" else roll, (env.action_space.low, env.action_space.high)


def episode_lengths(robot: str, episodes: int = 50) -> np.ndarray:
    """(episodes,) steps of random play."""
    import gymnasium as gym

    env, lengths = gym.make(f"{robot}-v5"), []
    env.action_space.seed(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        steps, over = 0, False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps, over = steps + 1, terminated or truncated
        lengths.append(steps)
        if steps == env.spec.max_episode_steps:
            break  # nothing ends these but the step limit
    return np.array(lengths)


def worker(kind: str, robot: str, n: int, threads: int, seconds: float) -> None:
    """Step one batch for so many seconds whenever asked to."""
    makers = {"physics": physics_arm, "rollout": physics_arm, "gym.make": single_arm, "gymnasium": single_arm}
    make = makers.get(kind, vector_arm)
    reset, step, (low, high) = make(kind, robot, n, threads)
    actions = np.random.default_rng(0).uniform(low, high, (64, n, *low.shape)).astype(np.float32)

    def measure() -> dict:
        reset()
        for t in range(WARM_UP):
            step(actions[t])
        taken, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            step(actions[taken % len(actions)])
            taken += 1
        return {"rate": taken * n / elapsed}

    serve(measure, {})


def in_turns(arms: list[tuple[str, int]], robot: str, given: argparse.Namespace) -> dict[str, list[float]]:
    """Rates of several batches, measured in turns: environment steps a second."""
    rest = [robot, str(given.threads), str(given.seconds)]
    commands = {f"{kind} {n}": [sys.executable, __file__, "--worker", kind, str(n), *rest] for kind, n in arms}
    found = alternate(commands, given.pairs)
    return {name: [measured["rate"] for measured in told["rounds"]] for name, told in found.items()}


def compare(robot: str, given: argparse.Namespace) -> list[dict]:
    """Ours against every peer."""
    rows = []
    for ours, peer in PAIRS:
        rates = list(in_turns([ours, peer], robot, given).values())
        medians = dict(zip(("ours", "theirs"), (float(np.median(r)) for r in rates), strict=True))
        names = dict(zip(("arm", "peer"), (f"{kind} {n}" for kind, n in (ours, peer)), strict=True))
        rows.append({"robot": robot, **names, **medians, **ratio(*rates)})
    return rows


def growth(robot: str, given: argparse.Namespace) -> list[dict]:
    """The rate of ours by the number of environments."""
    rates = in_turns([("ours", n) for n in GROWTH], robot, given)
    return [
        {"robot": robot, "num_envs": n, "rate": float(np.median(r))}
        for n, r in zip(GROWTH, rates.values(), strict=True)
    ]


def table(results: dict) -> str:
    """As markdown."""
    lines = [
        "| robot | ours | peer | ours, steps/s | peer, steps/s | ratio | 95% interval |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['robot']} | {r['arm']} | {r['peer']} | {r['ours']:,.0f} | {r['theirs']:,.0f} | {r['median']:.2f} "
        f"| {r['low']:.2f} to {r['high']:.2f} |"
        for r in results["comparisons"]
    ]
    lines += ["", "| robot | environments | ours, steps/s |", "| --- | --- | --- |"]
    lines += [f"| {r['robot']} | {r['num_envs']} | {r['rate']:,.0f} |" for r in results["growth"]]
    return "\n".join(lines)


def main() -> None:
    """Compare all and write docs/results/env_steps.json."""
    if sys.argv[1:2] == ["--worker"]:
        kind, n, robot, threads, seconds = sys.argv[2:]
        worker(kind, robot, int(n), int(threads), float(seconds))
        return
    from prefenvs.tasks.control.batched import usable_cores

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", nargs="+", default=ROBOTS, choices=ROBOTS)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measurement")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of ours and of the physics")
    parser.add_argument("--out", type=Path, default=RESULTS / "env_steps.json")
    given = parser.parse_args()
    results: dict = {
        "machine": machine() | {"threads": given.threads},
        "versions": {name: version(name) for name in ("gymnasium", "mujoco", "numpy")},
        "pairs": given.pairs,
        "seconds": given.seconds,
        "comparisons": [row for robot in given.robots for row in compare(robot, given)],
        "growth": growth(given.robots[0], given),
    }
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
