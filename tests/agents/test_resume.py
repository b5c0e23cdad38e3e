"""A run that is killed and repeated gives the numbers of one that was not, and asks no question twice."""

import json
import signal
import sqlite3
import subprocess
import sys

import pytest

from prefenvs.labelling.store import PAYLOAD_BYTES

# Patches one function so that the process kills itself in its n-th call, before or after the call's work.
PROGRAM = """
import dataclasses, os, signal, sys, json, importlib
from pathlib import Path
agent, folder, spot, count, when = sys.argv[1:]
def die_at(owner, name):
    original, left = getattr(owner, name), [int(count)]
    def patched(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, patched)
from prefenvs.agents import checkpoint, preference_callback
from prefenvs.agents.preference_callback import PreferenceConfig
from prefenvs.agents.presets import Preset
from prefenvs.agents.train import Run, train
from prefenvs.labelling.store import AnswerStore
from prefenvs.preference_env import PreferenceEnv
import torch
spots = {"rollout": (PreferenceEnv, "step"), "ask": (AnswerStore, "add"), "fit": (torch.optim.Adam, "step"),
         "checkpoint": (checkpoint, "save_file"), "none": None}
if spots[spot]:
    die_at(*spots[spot])
asked = PreferenceConfig(queries=30, sessions=3, first_session=200, last_session=700, segment_steps=20, hidden=(8,),
                         strategy="disagreement", reward_epochs=3)
if agent == "prefppo_hurried":  # several sessions are due within a rollout of 64 steps, at 256, 320 and 384
    asked = dataclasses.replace(asked, first_session=250, last_session=310)
if agent == "pebble":
    preset = Preset("Pendulum", "pebble", 900, 2, {"learning_starts": 100, "policy_kwargs": {"net_arch": [8]},
                    "batch_size": 16, "buffer_size": 2000}, asked, 300, 300, "test")
else:
    preset = Preset("CartPole", "prefppo", 960, 2, {"n_steps": 32, "batch_size": 32, "n_epochs": 2,
                    "learning_rate": "lin_1e-3", "policy_kwargs": {"net_arch": [8]}}, asked, 320, 320, "test")
train(Run(preset, seed=3, teacher="noisy", device="cpu", reward_metrics=("pearson", "starc")), Path(folder), quiet=True)
"""


def run(agent, folder, spot="none", count=0, when="before"):
    command = [sys.executable, "-c", PROGRAM, agent, str(folder), spot, str(count), when]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def outcome(folder):
    import zipfile

    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    with sqlite3.connect(folder / "answers.sqlite") as connection:
        answers = connection.execute("SELECT first, payloads, answers FROM batches ORDER BY first").fetchall()
    with zipfile.ZipFile(folder / "agent.zip") as archive:
        weights = archive.read("agent.safetensors")
    tables = [(folder / name).read_text() for name in ("evaluations.csv", "sessions.csv", "metrics.csv")]
    return result, answers, weights, tables


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    made = {}

    def get(agent):
        if agent not in made:
            folder = tmp_path_factory.mktemp(agent)
            finished = run(agent, folder)
            assert finished.returncode == 0, finished.stderr
            made[agent] = outcome(folder)
        return made[agent]

    return get


@pytest.mark.parametrize(
    ("agent", "spot", "count", "when"),
    [
        ("pebble", "rollout", 500, "before"),
        ("pebble", "ask", 2, "before"),
        ("pebble", "ask", 3, "after"),
        ("pebble", "fit", 5, "before"),
        ("pebble", "checkpoint", 4, "before"),
        ("prefppo", "ask", 2, "after"),
        ("prefppo_hurried", "ask", 3, "before"),
    ],
)
def test_a_killed_run_repeats_bit_for_bit(agent, spot, count, when, unbroken, tmp_path):
    killed = run(agent, tmp_path / "run", spot, count, when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(agent, tmp_path / "run")
    assert resumed.returncode == 0, resumed.stderr
    expected, found = unbroken(agent), outcome(tmp_path / "run")
    assert found[0] == expected[0]
    assert found[1] == expected[1], "the answers differ, or a question was asked twice"
    assert found[2] == expected[2], "the weights differ"
    assert found[3] == expected[3]
    assert sum(len(payloads) for _, payloads, _ in found[1]) / PAYLOAD_BYTES == found[0]["asked"] == 30
