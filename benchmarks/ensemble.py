"""Training a reward ensemble as one module against its sequential twin, one member after the other.

    python benchmarks/ensemble.py                                   # on a GPU: 3 members of 3x256, 64 pairs of 50 steps
    python benchmarks/ensemble.py --device cpu --pairs 2 --queries 128

Both arms are the suite's own `fit` of the same initial weights on the same answers for the same epochs: one fits an
ensemble of M members, the other M ensembles of one. Arms run in turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

from _alternate import RESULTS, alternate, gpu, report, serve

HIDDEN, STEPS, BATCH = (256, 256, 256), 50, 64
OBSERVED, ACTED = 17, 6  # HalfCheetah's


def worker(name: str, device: str, members: int, queries: int, epochs: int) -> None:
    """Fit whenever asked to."""
    import gymnasium as gym
    import numpy as np
    import torch

    from prefenvs.agents.reward_models import PreferenceData, RewardEnsemble, fit

    torch.set_num_threads(1)
    spaces = gym.spaces.Box(-np.inf, np.inf, (OBSERVED,)), gym.spaces.Box(-1, 1, (ACTED,))
    drawn = torch.Generator().manual_seed(0)
    inputs = torch.randn(queries, 2, STEPS, OBSERVED + ACTED, generator=drawn).to(device)
    choice = torch.eye(2)[torch.randint(2, (queries,), generator=drawn)].to(device)

    def new() -> RewardEnsemble:
        rng = torch.Generator().manual_seed(1)
        return RewardEnsemble(*spaces, members=members, hidden=HIDDEN, rng=rng).to(device)

    def alone(m: int) -> RewardEnsemble:
        single = RewardEnsemble(*spaces, members=1, hidden=HIDDEN, rng=torch.Generator()).to(device)
        with torch.no_grad():
            for own, shared in zip(single.parameters(), new().parameters(), strict=True):
                own.copy_(shared[m : m + 1])
        return single

    def measure() -> dict:
        models = [new()] if name == "one module" else [alone(m) for m in range(members)]
        data = PreferenceData(held_out_every=10**9)
        data.append((inputs, torch.ones(inputs.shape[:3], device=device), choice))
        losses = []
        before = time.perf_counter()
        for model in models:
            optimizer, rng = torch.optim.Adam(model.parameters(), lr=3e-4), torch.Generator().manual_seed(2)
            fitted = fit(model, optimizer, data, rng=rng, epochs=epochs, batch=BATCH, stop_accuracy=2.0)
            losses.append(fitted.loss)
        seconds = time.perf_counter() - before  # a fit ends with a wait for the device
        return {"fits a second": 1 / seconds, "loss": sum(losses) / len(losses)}

    measure()
    facts = {"torch": version("torch"), "members": members, "queries": queries, "epochs": epochs, "device": device}
    serve(measure, facts | gpu(device))


def main() -> None:
    """Run both in turns and write docs/results/ensemble-DEVICE.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each (default 8)")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--members", type=int, default=3, help="default 3")
    parser.add_argument("--queries", type=int, default=640, help="answered questions (default 640)")
    parser.add_argument("--epochs", type=int, default=20, help="default 20")
    parser.add_argument("--out", type=Path, help="default docs/results/ensemble-DEVICE.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.device, given.members, given.queries, given.epochs)
        return
    settings = {"device": given.device, "members": given.members, "queries": given.queries, "epochs": given.epochs}
    arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    commands = {name: [sys.executable, __file__, "--worker", name, *arguments] for name in ("one module", "one by one")}
    found = alternate(commands, given.pairs)
    report(given.out or RESULTS / f"ensemble-{given.device}.json", found, "fits a second", "one module", given.pairs)
    losses = {name: [measured["loss"] for measured in worker["rounds"]][-1] for name, worker in found.items()}
    print(f"last epoch's mean loss: {losses}")


if __name__ == "__main__":
    main()
