"""One feedback session, phase by phase: ours against B-Pref's published procedure, and 10^5 pairs by the oracle.

    python benchmarks/feedback_round.py                       # 100 episodes of HalfCheetah, a replay of 10^6 steps
    python benchmarks/feedback_round.py --episodes 5 --replay 10000 --pairs 2

Phases: cut ten times as many pairs of windows as will be asked about, score them by disagreement, label the best,
train the ensemble (3 members of 3x256, the same number of epochs), relabel the replay buffer. Both programs have seen
the same random play. The peer is written from the description of B-Pref (Lee et al. 2021, arXiv:2111.03026): whole
trajectories are stacked for each session, members are scored and trained one after the other in batches of 128, and the
replay buffer is relabelled 200 steps at a time through numpy. It is here for measuring only. Programs run in turns, one
thread each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _alternate import RESULTS, alternate, ratio, report, serve

STEPS, HIDDEN, MEMBERS, BATCH, CANDIDATES = 50, (256, 256, 256), 3, 128, 10
PHASES = ("sample", "score", "label", "fit", "relabel")


def ours(given: argparse.Namespace) -> None:
    """The suite's own session, on an environment that has been played at random."""
    import gymnasium as gym
    import torch

    import prefenvs
    from prefenvs.agents import RewardEnsemble, RewardReplayBuffer
    from prefenvs.agents.reward_models import PreferenceData, fit
    from prefenvs.queries import Candidates, disagreement
    from prefenvs.segment_store import SegmentStore
    from prefenvs.segments import Query

    torch.set_num_threads(1)
    env = gym.make("prefenvs/HalfCheetah-v0")
    feedback = prefenvs.feedback(env)
    store = SegmentStore(env.observation_space, env.action_space, episodes=feedback.recorded_episodes)
    for before, action, after, _, terminated, truncated, info in play(env, given.episodes):
        ids = np.array([info["segment_id"]])
        store.add(before[None], action[None], after[None], [terminated], [truncated], ids)
    spaces = (env.observation_space, env.action_space)
    buffer = RewardReplayBuffer(given.replay, *spaces, device="cpu")
    for name in ("observations", "actions"):
        buffer.fields[name].uniform_(-1, 1)
    buffer.full = True

    rng, draws = torch.Generator().manual_seed(0), np.random.default_rng(0)

    def measure() -> dict:
        model = RewardEnsemble(*spaces, members=MEMBERS, hidden=HIDDEN, standardize=False, rng=rng)
        optimizer, data = torch.optim.Adam(model.parameters(), lr=3e-4), PreferenceData(held_out_every=10**9)
        marks = [time.perf_counter()]
        query = Query(store.sample(2 * CANDIDATES * given.queries, STEPS, draws))
        marks.append(time.perf_counter())
        with torch.no_grad():
            sums = model.segment_members(query.segments.torch(model.device)).reshape(MEMBERS, query.n, 2)
        candidates = Candidates(sums.softmax(-1).numpy(), np.zeros((query.n, 0)), np.zeros((0, 0)))
        query = query[disagreement(candidates, given.queries, draws)]
        marks.append(time.perf_counter())
        label = feedback.ask(query)
        marks.append(time.perf_counter())
        data.add(model, query, label)
        fitted = fit(model, optimizer, data, rng=rng, epochs=given.epochs, batch=BATCH, stop_accuracy=2.0)
        marks.append(time.perf_counter())
        buffer.relabel(model)
        marks.append(time.perf_counter())
        many = Query(store.sample(2 * given.many, STEPS, draws))
        marks.append(time.perf_counter())
        feedback.ask(many)
        marks.append(time.perf_counter())
        return phases((*PHASES, f"sample {given.many}", f"label {given.many}"), marks, fitted.loss)

    serve(measure, {"torch": version("torch"), "numpy": version("numpy"), "many": given.many})


def bpref(given: argparse.Namespace) -> None:
    """B-Pref's procedure as published."""
    import gymnasium as gym
    import torch
    from torch import nn

    import prefenvs  # noqa: F401 - registers the task

    torch.set_num_threads(1)
    rng, length = np.random.default_rng(0), 1000
    env = gym.make("prefenvs/HalfCheetah-v0", evaluation=True)
    steps = [(np.concatenate([before, action]), reward) for before, action, _, reward, *_ in play(env, given.episodes)]
    width = len(steps[0][0])
    inputs = list(np.array([step for step, _ in steps], np.float32).reshape(given.episodes, length, width))
    targets = list(np.array([reward for _, reward in steps]).reshape(given.episodes, length, 1))
    observations = rng.uniform(-1, 1, (given.replay, 17)).astype(np.float32)
    actions = rng.uniform(-1, 1, (given.replay, 6)).astype(np.float32)
    rewards = np.zeros((given.replay, 1), np.float32)

    def network() -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip((width, *HIDDEN[:-1]), HIDDEN, strict=True):
            layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU()]
        return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1), nn.Tanh())

    def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(count, T, in) windows and their (count, T, 1) true rewards, of both sides."""
        stacked, rewarded, sides = np.array(inputs), np.array(targets), []
        for _ in range(2):
            which = rng.choice(len(inputs), size=count, replace=True)
            chosen, chosen_rewards = stacked[which].reshape(-1, width), rewarded[which].reshape(-1, 1)
            start = rng.choice(length - STEPS, size=count, replace=True)
            at = (np.arange(count) * length + start)[:, None] + np.arange(STEPS)
            sides.append((np.take(chosen, at, axis=0), np.take(chosen_rewards, at, axis=0)))
        return sides

    def disagreement(ensemble: list[nn.Module], first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(count,) standard deviation over members of the probability that the first is preferred."""
        found = []
        for member in ensemble:
            with torch.no_grad():
                sums = [member(torch.from_numpy(side).float()).sum(1) for side in (first, second)]
                found.append(torch.cat(sums, -1).softmax(-1)[:, 0].numpy())
        return np.std(found, axis=0)

    def measure() -> dict:
        ensemble = [network() for _ in range(MEMBERS)]
        optimizer = torch.optim.Adam([p for member in ensemble for p in member.parameters()], lr=3e-4)
        marks = [time.perf_counter()]
        (first, first_rewards), (second, second_rewards) = pairs(CANDIDATES * given.queries)
        marks.append(time.perf_counter())
        best = (-disagreement(ensemble, first, second)).argsort()[: given.queries]
        first, second = first[best], second[best]
        marks.append(time.perf_counter())
        labels = (first_rewards[best].sum((1, 2)) < second_rewards[best].sum((1, 2))).astype(np.int64)
        marks.append(time.perf_counter())
        for _ in range(given.epochs):
            orders, total = [rng.permutation(given.queries) for _ in ensemble], 0.0
            for at in range(0, given.queries, BATCH):
                optimizer.zero_grad()
                loss: torch.Tensor | float = 0.0
                for member, order in zip(ensemble, orders, strict=True):
                    index = order[at : at + BATCH]
                    sums = [member(torch.from_numpy(side[index]).float()).sum(1) for side in (first, second)]
                    logits, target = torch.cat(sums, -1), torch.from_numpy(labels[index])
                    current = nn.functional.cross_entropy(logits, target)
                    loss = loss + current
                    total += current.item() * len(index)
                    (logits.argmax(1) == target).sum().item()
                loss.backward()  # type: ignore[union-attr]
                optimizer.step()
        marks.append(time.perf_counter())
        for at in range(0, given.replay, 200):
            stacked = np.concatenate([observations[at : at + 200], actions[at : at + 200]], axis=-1)
            predicted = [member(torch.from_numpy(stacked).float()).detach().cpu().numpy() for member in ensemble]
            rewards[at : at + 200] = np.mean(np.array(predicted), axis=0)
        marks.append(time.perf_counter())
        return phases(PHASES, marks, total / (MEMBERS * given.queries))

    serve(measure, {"torch": version("torch"), "numpy": version("numpy")})


def play(env: Any, episodes: int) -> Iterator[tuple]:
    """Steps of random play, the same for the same number of episodes: observation, action, and what `step` gives."""
    env.action_space.seed(0)
    for episode in range(episodes):
        before, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = env.action_space.sample()
            after, reward, terminated, truncated, info = env.step(action)
            yield before, action, after, reward, terminated, truncated, info
            before, ended = after, terminated or truncated


def phases(names: tuple[str, ...], marks: list[float], loss: float) -> dict:
    """Seconds a phase, sessions a second over the phases that both programs have, and the last epoch's mean loss."""
    found = {f"{name}, s": after - before for name, before, after in zip(names, marks[:-1], marks[1:], strict=True)}
    found["sample, label and relabel, s"] = found["sample, s"] + found["label, s"] + found["relabel, s"]
    return {"sessions a second": 1 / (marks[len(PHASES)] - marks[0]), "loss, nats": loss, **found}


def main() -> None:
    """Run both in turns and write docs/results/feedback_round.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each program (default 8)")
    parser.add_argument("--episodes", type=int, default=100, help="episodes of 1000 steps to ask about (default 100)")
    parser.add_argument("--queries", type=int, default=200, help="questions a session (default 200)")
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
    losses = {name: [r["loss, nats"] for r in worker["rounds"]] for name, worker in found.items()}
    shown = ratio(losses["B-Pref"], losses["prefenvs"])
    each = ", ".join(f"{name} {np.median(values):.4f}" for name, values in losses.items())
    print(
        f"\nLoss of the last epoch, nats: {each}; theirs / ours {shown['median']:.3f} "
        f"[{shown['low']:.3f}, {shown['high']:.3f}]"
    )


if __name__ == "__main__":
    main()
