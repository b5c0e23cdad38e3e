"""One feedback session, phase by phase: ours against B-Pref's published procedure, and 10^5 pairs by the oracle.

    python benchmarks/feedback_round.py                       # 100 episodes of HalfCheetah, a replay of 10^6 steps
    python benchmarks/feedback_round.py --episodes 5 --replay 10000 --pairs 2
    python benchmarks/feedback_round.py --device cuda --out docs/results/feedback_round-cuda.json

Phases: cut ten times as many pairs of windows as will be asked about, score them by disagreement, label the best,
train the ensemble (3 members of 3x256, the same number of epochs), relabel the replay buffer. Both programs have seen
the same random play. The peer is written from the description of B-Pref (Lee et al. 2021, arXiv:2111.03026): whole
trajectories are stacked for each session, members are scored and trained one after the other in batches of 128, and the
replay buffer is relabelled 200 steps at a time through numpy. It is here for measuring only. Programs run in turns, one
thread each. Both train the same initial weights on the same answers in the same order, so the losses can be compared.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _alternate import RESULTS, alternate, gpu, ratio, report, serve

STEPS, HIDDEN, MEMBERS, BATCH, CANDIDATES = 50, (256, 256, 256), 3, 128, 10
PHASES = ("sample", "score", "label", "fit", "relabel")


class Played:
    """HalfCheetah after random play, with what the suite's own session needs."""

    def __init__(self, episodes: int) -> None:
        import gymnasium as gym

        import prefenvs
        from prefenvs.segment_store import SegmentStore

        env = gym.make("prefenvs/HalfCheetah-v0")
        self.spaces = (env.observation_space, env.action_space)
        self.feedback = prefenvs.feedback(env)
        self.store = SegmentStore(*self.spaces, episodes=self.feedback.recorded_episodes)
        for before, action, after, _, terminated, truncated, info in play(env, episodes):
            ids = np.array([info["segment_id"]])
            self.store.add(before[None], action[None], after[None], [terminated], [truncated], ids)

    def replay(self, steps: int, device: str = "cpu") -> Any:
        """A full replay buffer of so many steps."""
        from prefenvs.agents import RewardReplayBuffer

        buffer = RewardReplayBuffer(steps, *self.spaces, device=device)
        for name in ("observations", "actions"):
            buffer.fields[name].uniform_(-1, 1)
        buffer.full = True
        return buffer

    def session(self, buffer: Any, seed: int, queries: int, epochs: int, members: int = MEMBERS) -> dict:
        """Seconds a phase, and the last epoch's mean loss. The fit is to windows that the seed alone draws."""
        import torch

        from prefenvs.agents import RewardEnsemble
        from prefenvs.agents.reward_models import PreferenceData, fit
        from prefenvs.queries import Candidates, disagreement
        from prefenvs.segments import Query

        seconds: dict[str, float] = {}
        rng, draws = torch.Generator().manual_seed(seed), np.random.default_rng(1000 + seed)
        model = RewardEnsemble(*self.spaces, members=members, hidden=HIDDEN, standardize=False, rng=rng)
        model.to(buffer.device)
        optimizer, data = torch.optim.Adam(model.parameters(), lr=3e-4), PreferenceData(held_out_every=10**9)
        with timed("sample", seconds):
            query = Query(self.store.sample(2 * CANDIDATES * queries, STEPS, draws))
        with timed("score", seconds), torch.no_grad():
            sums = model.segment_members(query.segments.torch(model.device)).reshape(members, query.n, 2)
            candidates = Candidates(sums.softmax(-1).cpu().numpy(), np.zeros((query.n, 0)), np.zeros((0, 0)))
            query = query[disagreement(candidates, queries, draws)]
        with timed("label", seconds):
            self.feedback.ask(query)
        query = Query(self.store.sample(2 * queries, STEPS, np.random.default_rng(seed)))
        label = self.feedback.ask(query)
        with timed("fit", seconds):
            data.add(model, query, label)
            fitted = fit(model, optimizer, data, rng=rng, epochs=epochs, batch=BATCH, stop_accuracy=2.0)
        with timed("relabel", seconds):
            buffer.relabel(model)
            wait(buffer.device.type)
        return summary(seconds, fitted.loss)


def ours(given: argparse.Namespace) -> None:
    """The suite's own session, and many labels at once."""
    import torch

    from prefenvs.segments import Query

    torch.set_num_threads(1)
    played, seeds = Played(given.episodes), itertools.count()
    buffer = played.replay(given.replay, given.device)

    def measure() -> dict:
        seed, seconds = next(seeds), {}
        found = played.session(buffer, seed, given.queries, given.epochs)
        many = Query(played.store.sample(2 * given.many, STEPS, np.random.default_rng(seed)))
        with timed(f"label {given.many}, s", seconds):
            played.feedback.ask(many)
        return {**found, **seconds}

    serve(measure, facts(given.device) | {"many": given.many})


def bpref(given: argparse.Namespace) -> None:
    """B-Pref's procedure as published."""
    import gymnasium as gym
    import torch
    from torch import nn

    import prefenvs  # noqa: F401 - registers the task
    from prefenvs.agents import RewardEnsemble

    torch.set_num_threads(1)
    rng, length = np.random.default_rng(0), 1000
    env = gym.make("prefenvs/HalfCheetah-v0", evaluation=True)
    steps = [(np.concatenate([before, action]), reward) for before, action, _, reward, *_ in play(env, given.episodes)]
    width = len(steps[0][0])
    spaces = (env.observation_space, env.action_space)
    inputs = list(np.array([step for step, _ in steps], np.float32).reshape(given.episodes, length, width))
    targets = list(np.array([reward for _, reward in steps]).reshape(given.episodes, length, 1))
    observations = rng.uniform(-1, 1, (given.replay, 17)).astype(np.float32)
    actions = rng.uniform(-1, 1, (given.replay, 6)).astype(np.float32)
    rewards = np.zeros((given.replay, 1), np.float32)

    @torch.no_grad()
    def network(weights: list[torch.Tensor], biases: list[torch.Tensor]) -> nn.Module:
        layers: list[nn.Module] = []
        for weight, bias in zip(weights, biases, strict=True):
            layer = nn.Linear(*weight.shape)
            layer.weight.copy_(weight.t())
            layer.bias.copy_(bias[0])
            layers += [layer, nn.LeakyReLU()]
        return nn.Sequential(*layers[:-1], nn.Tanh()).to(given.device)

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

    def sent(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(given.device)

    def disagreement(ensemble: list[nn.Module], first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(count,) standard deviation over members of the probability that the first is preferred."""
        found = []
        for member in ensemble:
            with torch.no_grad():
                sums = [member(sent(side).float()).sum(1) for side in (first, second)]
                found.append(torch.cat(sums, -1).softmax(-1)[:, 0].cpu().numpy())
        return np.std(found, axis=0)

    seeds = itertools.count()

    def measure() -> dict:
        seed, seconds = next(seeds), {}
        shuffles = torch.Generator().manual_seed(seed)
        drawn = RewardEnsemble(*spaces, members=MEMBERS, hidden=HIDDEN, standardize=False, rng=shuffles)
        ensemble = [network([w[m] for w in drawn.weights], [b[m] for b in drawn.biases]) for m in range(MEMBERS)]
        optimizer = torch.optim.Adam([p for member in ensemble for p in member.parameters()], lr=3e-4)
        with timed("sample", seconds):
            (first, first_rewards), (second, second_rewards) = pairs(CANDIDATES * given.queries)
        with timed("score", seconds):
            best = (-disagreement(ensemble, first, second)).argsort()[: given.queries]
            first, second = first[best], second[best]
        with timed("label", seconds):
            labels = (first_rewards[best].sum((1, 2)) < second_rewards[best].sum((1, 2))).astype(np.int64)
        # The windows that SegmentStore.sample gives for this seed.
        starts = length - STEPS + 1
        which, start = np.divmod(
            np.random.default_rng(seed).integers(len(inputs) * starts, size=2 * given.queries), starts
        )
        at = (which[:, None], start[:, None] + np.arange(STEPS))
        first, second = np.array(inputs)[at][::2], np.array(inputs)[at][1::2]
        returns = np.array(targets)[at].sum((1, 2))
        labels = (returns[::2] < returns[1::2]).astype(np.int64)
        with timed("fit", seconds):
            for _ in range(given.epochs):
                orders = [torch.randperm(given.queries, generator=shuffles).numpy() for _ in ensemble]
                total = 0.0
                for at in range(0, given.queries, BATCH):
                    optimizer.zero_grad()
                    loss: torch.Tensor | float = 0.0
                    for member, order in zip(ensemble, orders, strict=True):
                        index = order[at : at + BATCH]
                        sums = [member(sent(side[index]).float()).sum(1) for side in (first, second)]
                        logits, target = torch.cat(sums, -1), sent(labels[index])
                        current = nn.functional.cross_entropy(logits, target)
                        loss = loss + current
                        total += current.item() * len(index)
                        (logits.argmax(1) == target).sum().item()
                    loss.backward()  # type: ignore[union-attr]
                    optimizer.step()
        with timed("relabel", seconds):
            for at in range(0, given.replay, 200):
                stacked = np.concatenate([observations[at : at + 200], actions[at : at + 200]], axis=-1)
                predicted = [member(sent(stacked).float()).detach().cpu().numpy() for member in ensemble]
                rewards[at : at + 200] = np.mean(np.array(predicted), axis=0)
        return summary(seconds, total / (MEMBERS * given.queries))

    serve(measure, facts(given.device))


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


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Put the seconds that the block takes under `name`."""
    before = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - before


def wait(device: str) -> None:
    """Until a GPU has done what it was asked to do."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def facts(device: str) -> dict:
    """What a program says of itself."""
    return {"torch": version("torch"), "numpy": version("numpy"), **gpu(device)}


def summary(seconds: dict[str, float], loss: float) -> dict:
    """What both programs report: seconds a phase, sessions a second, and the last epoch's mean loss."""
    found = {f"{name}, s": seconds[name] for name in PHASES}
    found["sample, label and relabel, s"] = sum(seconds[name] for name in ("sample", "label", "relabel"))
    return {"sessions a second": 1 / sum(seconds.values()), "loss, nats": loss, **found}


def main() -> None:
    """Run both in turns and write docs/results/feedback_round.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each program (default 8)")
    parser.add_argument(
        "--episodes", type=int, default=100, help="episodes of 1000 steps to ask about, at most 100 (100)"
    )
    parser.add_argument("--queries", type=int, default=200, help="questions a session (default 200)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the answers (default 10)")
    parser.add_argument("--replay", type=int, default=1_000_000, help="steps to relabel (default 1000000)")
    parser.add_argument("--many", type=int, default=100_000, help="pairs that the oracle labels at once (100000)")
    parser.add_argument("--device", default="cpu", help="of both programs' networks, and of our replay (default cpu)")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the measurements (default docs/results/feedback_round.json)"
    )
    parser.add_argument("--worker", choices=("prefenvs", "B-Pref"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        (ours if given.worker == "prefenvs" else bpref)(given)
        return
    arguments = [f"--{k}={getattr(given, k)}" for k in ("episodes", "queries", "epochs", "replay", "many", "device")]
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
