"""Where the time goes: how much of each loop is the physics and the matrix products that it cannot do without.

    python benchmarks/bounds.py                     # a minute
    python benchmarks/bounds.py --only relabel ppo

A part's work is done alone, in the same process and by turns with the whole, and its share of the whole's time is
printed: what is left is all that better code could still gain. One thread; the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import torch
from _alternate import RESULTS, machine

import prefenvs
from prefenvs.agents import PPO, RewardEnsemble, RewardReplayBuffer
from prefenvs.agents.reward_models.ensemble import CHUNK
from prefenvs.tasks.product import linear
from prefenvs.tasks.text.lm import Decoder

Part = tuple[str, Callable[[], object]]


def products(*shapes: tuple[int, int, int]) -> Callable[[], object]:
    """(rows, inner, columns) products of random matrices, each by the library that the suite would use."""
    pairs = [(torch.randn(rows, inner), torch.randn(columns, inner)) for rows, inner, columns in shapes]

    def multiply() -> None:
        for left, right in pairs:
            linear(left, right)

    return multiply


def relabel(steps: int = 100_000) -> Iterator[Part]:
    """Rewards of a replay buffer by 3 members of 3x256."""
    env = gym.make("prefenvs/HalfCheetah-v0")
    spaces = env.observation_space, env.action_space
    buffer = RewardReplayBuffer(steps, *spaces, device="cpu")
    for name in ("observations", "actions"):
        buffer.fields[name].uniform_(-1, 1)
    buffer.full = True
    model = RewardEnsemble(*spaces, members=3, hidden=(256, 256, 256), rng=torch.Generator().manual_seed(0))
    yield "relabel 10^5 steps", lambda: buffer.relabel(model)
    one = products((CHUNK, 23, 256), (CHUNK, 256, 256), (CHUNK, 256, 256), (CHUNK, 256, 1))
    yield "matrix products", lambda: [one() for _ in range(3 * steps // CHUNK)]


def walker_walk(steps: int = 1000) -> Iterator[Part]:
    """DMControl's walker, its reward hidden and recorded."""
    import mujoco

    env = gym.make("prefenvs/WalkerWalk-v0")
    prefenvs.feedback(env)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
    env.reset(seed=0)

    def play() -> None:
        for action in actions:
            if env.step(action)[3]:
                env.reset()

    def simulate() -> None:
        task = env.unwrapped._task
        model, data = task._pointers
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step2(model, data)
            mujoco.mj_step(model, data, task._substeps - 1)
            mujoco.mj_step1(model, data)

    yield f"walker-walk, {steps} steps", play
    yield "physics", simulate


def ppo(n_steps: int = 256, num_envs: int = 8, batch: int = 64, epochs: int = 10) -> Iterator[Part]:
    """One rollout of HalfCheetah and its update, 2x64 tanh."""
    from stable_baselines3.common.vec_env import VecMonitor

    venv = VecMonitor(prefenvs.sb3_vec("prefenvs/HalfCheetah-v0", num_envs, evaluation=True, threads=1))
    model = PPO("MlpPolicy", venv, n_steps=n_steps, batch_size=batch, n_epochs=epochs, seed=0, device="cpu")
    yield "PPO, 2048 steps", lambda: model.learn(n_steps * num_envs, log_interval=None, reset_num_timesteps=False)
    yield "updates", model.train
    envs = gym.make_vec("prefenvs/HalfCheetah-v0", num_envs=num_envs, evaluation=True, threads=1)
    envs.reset(seed=0)
    zeros = np.zeros((num_envs, 6), np.float32)
    yield "environment steps", lambda: [envs.step(zeros) for _ in range(n_steps)]
    sizes = ((17, 64), (64, 64), (64, 6)), ((17, 64), (64, 64), (64, 1))
    layers = [layer for network in sizes for layer in network]
    there = [(batch, inner, columns) for inner, columns in layers]
    back = [(batch, columns, inner) for inner, columns in layers if inner != 17]
    by_weight = [(columns, batch, inner) for inner, columns in layers]
    update = products(*there, *back, *by_weight)
    yield "matrix products of the updates", lambda: [update() for _ in range(epochs * n_steps * num_envs // batch)]


def decoder(layers: int = 2, width: int = 128, words: int = 512, prompt: int = 8, new: int = 24) -> Iterator[Part]:
    """100 completions, one at a time."""
    model = Decoder(words, prompt + new, layers=layers, width=width)
    model.eos = -1  # no token ends a completion
    prompts, rng = torch.ones(1, prompt, dtype=torch.int64), torch.Generator().manual_seed(0)
    yield f"decoder, {100 * new} tokens", lambda: [model.sample(prompts, new, rng) for _ in range(100)]
    layer = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    matrices = [np.random.rand(*shape).astype(np.float32) for shape in (*layer * layers, (words, width))]
    pairs = [(matrix, np.random.rand(matrix.shape[1]).astype(np.float32)) for matrix in matrices]
    yield "products of matrix and vector", lambda: [[m.dot(v) for m, v in pairs] for _ in range(100 * new)]


LOOPS = {"relabel": relabel, "walker-walk": walker_walk, "ppo": ppo, "decoder": decoder}


def measure(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each part, done by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, work in parts.items():
            before = time.perf_counter()
            work()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - before)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    """Measure all and write docs/results/bounds.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=list(LOOPS), help="default all")
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    print("| loop | part | ms | share |\n|---|---|---|---|")
    for name in given.only:
        found[name] = measure(dict(LOOPS[name]()), given.rounds)
        whole = next(iter(found[name].values()))
        for part, seconds in found[name].items():
            print(f"| {name} | {part} | {1000 * seconds:.1f} | {seconds / whole:.2f} |")
    facts = {"machine": machine(), "torch": version("torch"), "mujoco": version("mujoco"), "seconds": found}
    if given.only == list(LOOPS):
        (RESULTS / "bounds.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
