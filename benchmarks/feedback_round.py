"""One feedback session, phase by phase: ours against B-Pref's published procedure, and 10^5 pairs by the oracle.

    python benchmarks/feedback_round.py                       # 100 episodes of HalfCheetah, a replay of 10^6 steps
    python benchmarks/feedback_round.py --episodes 5 --replay 10000 --pairs 2

Phases: cut windows, label them, train the ensemble (3 members of 3x256, the same number of epochs), relabel the replay
buffer. The peer is written from the description of B-Pref (Lee et al. 2021, arXiv:2111.03026): whole trajectories are
stacked for each session, members are trained one after the other in batches of 128, and the replay buffer is relabelled
200 steps at a time through numpy. It is here for measuring only. Programs run in turns, one thread each.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from _alternate import RESULTS, alternate, ratio, report, serve

STEPS, HIDDEN, MEMBERS, BATCH = 50, (256, 256, 256), 3, 128


def ours(given: argparse.Namespace) -> None:
    """The suite's own session, on an environment that has been played at random."""
    import gymnasium as gym
    import torch

    import prefenvs
    from prefenvs.agents import RewardEnsemble, RewardReplayBuffer
    from prefenvs.agents.reward_models import PreferenceData, fit
    from prefenvs.segment_store import SegmentStore
    from prefenvs.segments import Query

    torch.set_num_threads(1)
    env = gym.make("prefenvs/HalfCheetah-v0")
    feedback = prefenvs.feedback(env)
    store = SegmentStore(env.observation_space, env.action_space, episodes=feedback.recorded_episodes)
    env.action_space.seed(0)
    for episode in range(given.episodes):
        before, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = env.action_space.sample()
            after, _, terminated, truncated, info = env.step(action)
            ids = np.array([info["segment_id"]])
            store.add(before[None], action[None], after[None], [terminated], [truncated], ids)
            before, ended = after, terminated or truncated
    spaces = (env.observation_space, env.action_space)
    buffer = RewardReplayBuffer(given.replay, *spaces, device="cpu")
    for name in ("observations", "actions"):
        buffer.fields[name].uniform_(-1, 1)
    buffer.full = True

    def measure() -> dict:
        rng = torch.Generator().manual_seed(0)
        model = RewardEnsemble(*spaces, members=MEMBERS, hidden=HIDDEN, rng=rng)
        optimizer, data, marks = torch.optim.Adam(model.parameters(), lr=3e-4), PreferenceData(), [time.perf_counter()]
        query = Query(store.sample(2 * given.queries, STEPS, np.random.default_rng(0)))
        marks.append(time.perf_counter())
        label = feedback.ask(query)
        marks.append(time.perf_counter())
        data.add(model, query, label)
        fit(model, optimizer, data, rng=rng, epochs=given.epochs, batch=BATCH, stop_accuracy=2.0)
        marks.append(time.perf_counter())
        buffer.relabel(model)
        marks.append(time.perf_counter())
        many = Query(store.sample(2 * given.many, STEPS, np.random.default_rng(1)))
        marks.append(time.perf_counter())
        feedback.ask(many)
        marks.append(time.perf_counter())
        names = ("sample", "label", "fit", "relabel", f"sample {given.many}", f"label {given.many}")
        return phases(names, marks)

    serve(measure, {"torch": version("torch"), "numpy": version("numpy"), "many": given.many})


def bpref(given: argparse.Namespace) -> None:
    """B-Pref's procedure as published, on numbers of the same shapes."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    width, length = 17 + 6, 1000
    trajectories = [rng.normal(size=(length, width)).astype(np.float32) for _ in range(given.episodes)]
    returns = [rng.normal(size=(length, 1)) for _ in range(given.episodes)]
    observations = rng.normal(size=(given.replay, 17)).astype(np.float32)
    actions = rng.normal(size=(given.replay, 6)).astype(np.float32)
    rewards = np.zeros((given.replay, 1), np.float32)

    def network() -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip((width, *HIDDEN[:-1]), HIDDEN, strict=True):
            layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU()]
        return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1), nn.Tanh())

    def windows() -> tuple[np.ndarray, np.ndarray]:
        """(queries, T, in) windows and their summed true rewards, one of the two sides."""
        stacked, rewarded = np.array(trajectories), np.array(returns)
        which = rng.choice(len(trajectories), size=given.queries, replace=True)
        chosen, chosen_rewards = stacked[which].reshape(-1, width), rewarded[which].reshape(-1, 1)
        start = rng.choice(length - STEPS, size=given.queries, replace=True)
        at = (np.arange(given.queries) * length + start)[:, None] + np.arange(STEPS)
        return np.take(chosen, at, axis=0), np.take(chosen_rewards, at, axis=0).sum((1, 2))

    def measure() -> dict:
        ensemble = [network() for _ in range(MEMBERS)]
        optimizer = torch.optim.Adam([p for member in ensemble for p in member.parameters()], lr=3e-4)
        marks = [time.perf_counter()]
        (first, first_sum), (second, second_sum) = windows(), windows()
        marks.append(time.perf_counter())
        labels = (first_sum < second_sum).astype(np.int64)
        marks.append(time.perf_counter())
        for _ in range(given.epochs):
            orders = [rng.permutation(given.queries) for _ in ensemble]
            for at in range(0, given.queries, BATCH):
                optimizer.zero_grad()
                loss: torch.Tensor | float = 0.0
                for member, order in zip(ensemble, orders, strict=True):
                    index = order[at : at + BATCH]
                    sums = [member(torch.from_numpy(side[index]).float()).sum(1) for side in (first, second)]
                    logits, target = torch.cat(sums, -1), torch.from_numpy(labels[index])
                    current = nn.functional.cross_entropy(logits, target)
                    loss = loss + current
                    current.item()
                    (logits.argmax(1) == target).sum().item()
                loss.backward()  # type: ignore[union-attr]
                optimizer.step()
        marks.append(time.perf_counter())
        for at in range(0, given.replay, 200):
            inputs = np.concatenate([observations[at : at + 200], actions[at : at + 200]], axis=-1)
            predicted = [member(torch.from_numpy(inputs).float()).detach().cpu().numpy() for member in ensemble]
            rewards[at : at + 200] = np.mean(np.array(predicted), axis=0)
        marks.append(time.perf_counter())
        return phases(("sample", "label", "fit", "relabel"), marks)

    serve(measure, {"torch": version("torch"), "numpy": version("numpy")})


def phases(names: tuple[str, ...], marks: list[float]) -> dict:
    """Seconds a phase, and sessions a second over the four that both programs have."""
    found = {f"{name}, s": after - before for name, before, after in zip(names, marks[:-1], marks[1:], strict=True)}
    found["all but fit, s"] = found["sample, s"] + found["label, s"] + found["relabel, s"]
    return {"sessions a second": 1 / (marks[4] - marks[0]), **found}


def main() -> None:
    """Run both in turns and write docs/results/feedback_round.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each program (default 8)")
    parser.add_argument("--episodes", type=int, default=100, help="episodes of 1000 steps to ask about (default 100)")
    parser.add_argument("--queries", type=int, default=500, help="questions a session (default 500)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the answers (default 10)")
    parser.add_argument("--replay", type=int, default=1_000_000, help="steps to relabel (default 1000000)")
    parser.add_argument("--many", type=int, default=100_000, help="pairs that the oracle labels at once (100000)")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the measurements (default docs/results/feedback_round.json)"
    )
    parser.add_argument("--worker", choices=("prefenvs", "B-Pref"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        (ours if given.worker == "prefenvs" else bpref)(given)
        return
    arguments = [f"--{k}={getattr(given, k)}" for k in ("episodes", "queries", "epochs", "replay", "many")]
    commands = {name: [sys.executable, __file__, "--worker", name, *arguments] for name in ("prefenvs", "B-Pref")}
    found = alternate(commands, given.pairs)
    report(given.out or RESULTS / "feedback_round.json", found, "sessions a second", "prefenvs", given.pairs)
    print("\n| phase | ours, s | B-Pref's, s | theirs / ours [95%] |\n|---|---|---|---|")
    for phase in [name for name in found["prefenvs"]["rounds"][0] if name.endswith(", s")]:
        mine, theirs = ([r[phase] for r in found[n]["rounds"] if phase in r] for n in ("prefenvs", "B-Pref"))
        shown = ratio(theirs, mine) if theirs else None
        peer = f"{np.median(theirs):.4f}" if theirs else ""
        factor = f"{shown['median']:.2f} [{shown['low']:.2f}, {shown['high']:.2f}]" if shown else ""
        print(f"| {phase.removesuffix(', s')} | {np.median(mine):.4f} | {peer} | {factor} |")


if __name__ == "__main__":
    main()
