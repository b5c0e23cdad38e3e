"""Whole runs of preference learning with PPO on Pendulum: ours and imitation's `preference_comparisons`.

    make bench-imitation                          # once: an environment of its own
    python benchmarks/preference_runs.py
    python benchmarks/preference_runs.py --pairs 2 --epochs 5

Both ask 200 questions about segments of 50 steps in five sessions, fit one reward network of 2x32 for the same number
of epochs on batches of 32, and train PPO with the same hyperparameters in eight environments for five rollouts of 2048
steps after the first session. Ours also plays the rollout that its first session asks about; imitation plays whole
episodes for its questions beside those of PPO, and both tell how many steps they simulate. Programs run in turns, one
thread each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from _alternate import RESULTS, ROOT, alternate, report, serve

PEER = ROOT / ".venv-imitation" / "bin" / "python"
QUESTIONS, SESSIONS, SEGMENT, ENVS, ROLLOUT = 200, 5, 50, 8, 2048
PPO = {"n_steps": ROLLOUT // ENVS, "batch_size": 64, "n_epochs": 10, "gamma": 0.9, "learning_rate": 1e-3}
HIDDEN, BATCH, RATE = (32, 32), 32, 1e-3


def ours(epochs: int, seed: int) -> int:
    """A run of PrefPPO; the steps that it simulated."""
    import prefenvs
    from prefenvs.agents import PreferenceConfig, PrefPPO

    config = PreferenceConfig(
        queries=QUESTIONS,
        sessions=SESSIONS,
        first_session=ROLLOUT,
        last_session=SESSIONS * ROLLOUT,
        segment_steps=SEGMENT,
        members=1,
        hidden=HIDDEN,
        reward_lr=RATE,
        reward_epochs=epochs,
        reward_batch=BATCH,
        stop_accuracy=2.0,  # never
    )
    envs = prefenvs.sb3_vec("prefenvs/Pendulum-v0", ENVS, budget=QUESTIONS)
    model = PrefPPO("MlpPolicy", envs, preferences=config, seed=seed, device="cpu", **PPO)
    model.learn((SESSIONS + 1) * ROLLOUT)
    assert model.preferences.feedback.asked == QUESTIONS
    envs.close()
    return model.num_timesteps


def theirs(epochs: int, seed: int) -> int:
    """A run of imitation's PreferenceComparisons, as its documentation composes it; the steps that it simulated."""
    import numpy as np
    from imitation.algorithms import preference_comparisons as pc
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util import logger
    from imitation.util.util import make_vec_env
    from stable_baselines3 import ppo

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        log = logger.configure(folder, [])
        envs = make_vec_env("Pendulum-v1", rng=rng, n_envs=ENVS)
        step_wait, simulated = envs.step_wait, 0

        def counted():
            nonlocal simulated
            simulated += ENVS
            return step_wait()

        envs.step_wait = counted
        net = BasicRewardNet(envs.observation_space, envs.action_space, hid_sizes=HIDDEN)
        preferences = pc.PreferenceModel(net)
        trainer = pc.BasicRewardTrainer(
            preferences, pc.CrossEntropyRewardLoss(), rng, batch_size=BATCH, epochs=epochs, lr=RATE, custom_logger=log
        )
        agent = ppo.PPO("MlpPolicy", envs, seed=seed, device="cpu", **PPO)
        learner = pc.PreferenceComparisons(
            pc.AgentTrainer(agent, net, envs, rng, custom_logger=log),
            net,
            num_iterations=SESSIONS - 1,  # beside the first
            fragmenter=pc.RandomFragmenter(rng, warning_threshold=0, custom_logger=log),
            preference_gatherer=pc.SyntheticGatherer(rng=rng, custom_logger=log),
            reward_trainer=trainer,
            fragment_length=SEGMENT,
            initial_comparison_frac=1 / SESSIONS,
            initial_epoch_multiplier=1,
            query_schedule="constant",
            custom_logger=log,
        )
        learner.train((SESSIONS - 1) * ROLLOUT, QUESTIONS)  # a rollout after each session
        assert agent.num_timesteps == SESSIONS * ROLLOUT, agent.num_timesteps
        assert len(learner.dataset) == QUESTIONS
        envs.close()
        return simulated


def worker(name: str, epochs: int) -> None:
    """Time one run whenever asked to."""
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(1)
    packages = ("torch", "stable-baselines3", *(("imitation",) if name == "imitation" else ()))
    seed = 0

    def measure() -> dict:
        nonlocal seed
        seed += 1
        before = time.perf_counter()
        simulated = (theirs if name == "imitation" else ours)(epochs, seed)
        seconds = time.perf_counter() - before
        return {"seconds": seconds, "runs an hour": 3600 / seconds, "simulated steps": simulated}

    sys.stdout, answers = sys.stderr, sys.stdout  # imitation prints its schedule
    measure()  # imports, first uses
    sys.stdout = answers

    def quiet() -> dict:
        sys.stdout = sys.stderr
        try:
            return measure()
        finally:
            sys.stdout = answers

    serve(quiet, {package: version(package) for package in packages})


def main() -> None:
    """Run the two in turns and write docs/results/preference_runs.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="runs of each program (default 7)")
    parser.add_argument("--epochs", type=int, default=20, help="of the reward network a session (default 20)")
    parser.add_argument("--out", type=Path, default=RESULTS / "preference_runs.json", help="JSON file for the numbers")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.epochs)
        return
    if not PEER.exists():
        parser.error(f"{PEER} is not there: `make bench-imitation` makes it.")
    pythons = {"prefenvs": sys.executable, "imitation": str(PEER)}
    commands = {name: [p, __file__, "--worker", name, "--epochs", str(given.epochs)] for name, p in pythons.items()}
    report(given.out, alternate(commands, given.pairs), "runs an hour", "prefenvs", given.pairs)


if __name__ == "__main__":
    main()
