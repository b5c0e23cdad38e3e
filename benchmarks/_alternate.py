"""Runs two programs in turns (A B B A ...) and compares their rates pair by pair."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def serve(measure: Callable[[], dict], facts: dict) -> None:
    """A worker: say what it is, then measure once for each line that comes in, until there are no more."""
    print(json.dumps(facts), flush=True)
    while input_line():
        print(json.dumps(measure()), flush=True)


def input_line() -> bool:
    try:
        return bool(input())
    except EOFError:
        return False


def alternate(workers: dict[str, list[str]], pairs: int, threads: int = 1) -> dict[str, dict]:
    """Start one process a worker and measure them in turns.

    Args:
        workers: command by name.
        pairs: measurements of each; the order is turned round every time, so that a drift of the machine cancels.
        threads: that a worker may compute in.

    Returns:
        By name, what the worker said of itself and its measurements in the order of the pairs.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # leaves memory of a GPU to the others
    environment["PYTHONPATH"] = str(ROOT)
    processes = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for name, command in workers.items()
    }
    try:
        found = {name: {"facts": _read(name, process), "rounds": []} for name, process in processes.items()}
        for pair in range(pairs):
            for name in list(processes) if pair % 2 == 0 else reversed(list(processes)):
                assert processes[name].stdin is not None
                processes[name].stdin.write("go\n")
                processes[name].stdin.flush()
                found[name]["rounds"].append(_read(name, processes[name]))
        return found
    finally:
        for process in processes.values():
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def _read(name: str, process: subprocess.Popen) -> dict:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"worker {name} ended with exit status {process.wait()}; its error is above.")
    return json.loads(line)


def jax_device(device: str) -> dict[str, str]:
    """Which device JAX computes on: asked for by `device`, cpu or cuda."""
    import jax

    found = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    jax.config.update("jax_default_device", found)
    return {"jax device": found.device_kind}


def gpu(device: str) -> dict[str, str]:
    """The name of the GPU that torch computes on, where it does."""
    import torch

    return {} if device == "cpu" else {"gpu": torch.cuda.get_device_name()}


def commit() -> str:
    """What is measured, by git."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median of ours / theirs over pairs, with a 95% percentile bootstrap interval."""
    ratios = np.array(ours) / np.array(theirs)
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def machine() -> dict:
    """What it ran on, and how busy that was."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), "load": load}


def report(path: Path, found: dict[str, dict], rate: str, ours: str, pairs: int) -> None:
    """Write all measurements to a JSON file and print a markdown table of one rate."""
    rates = {who: [r[rate] for r in worker["rounds"]] for who, worker in found.items()}
    ratios = {who: ratio(rates[ours], values) for who, values in rates.items() if who != ours}
    result = {"machine": machine(), "pairs": pairs, "rate": rate, "workers": found, "ratios": ratios}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"| program | median {rate} | ours / theirs [95%] |\n|---|---|---|")
    for who, values in rates.items():
        r = ratios.get(who)
        shown = "" if r is None else f"{r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        print(f"| {who} | {np.median(values):.1f} | {shown} |")
    print(f"\n{machine()}; {pairs} pairs; {path}")
