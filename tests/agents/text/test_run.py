"""Runs of language models from the command line: what they print and keep, and that a stopped one repeats."""

import csv
import dataclasses
import json
import sqlite3
import sys
import zipfile
from contextlib import contextmanager
from itertools import count

import gymnasium as gym
import pytest

from prefenvs.agents import AGENTS, TextPreferenceConfig
from prefenvs.agents.preset_choice import default_agent, default_preset
from prefenvs.agents.presets import PRESETS
from prefenvs.agents.text.direct import DirectAlignment
from prefenvs.agents.text.learner import TextLearner
from prefenvs.agents.train import Run, read_config, train, train_side_by_side
from prefenvs.cli import main
from prefenvs.labelling.store import PAYLOAD_BYTES
from prefenvs.report.read import group_arms, read_run
from tests.agents.text.test_learner import Rounds

SMALL = {"layers": 1, "width": 16, "heads": 2, "steps": 30, "cache": False}


def small(agent, **changes):
    preset = default_preset("TextEnum", agent)
    fields = {
        "num_envs": 32,
        "total_steps": 320,
        "eval_every": 128,
        "checkpoint_every": 64,
        "preferences": TextPreferenceConfig(queries=40, epochs=1),
        "extra": {"policy_kwargs": SMALL},
    }
    return Run(dataclasses.replace(preset, **{**fields, **changes}), seed=3, teacher="noisy", device="cpu")


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    with sqlite3.connect(folder / "answers.sqlite") as connection:
        answers = connection.execute("SELECT first, payloads, answers FROM batches ORDER BY first").fetchall()
    with zipfile.ZipFile(folder / "agent.zip") as archive:
        weights = archive.read("agent.safetensors")
    tables = [(folder / f"{name}.csv").read_text() for name in ("evaluations", "sessions", "over_optimisation")]
    return result, answers, weights, tables


@contextmanager
def stopped_at(step, monkeypatch):
    """What runs within is interrupted at that step of the optimiser."""
    descend, steps = TextLearner.descend, count(1)

    def stopping(self, loss):
        if next(steps) == step:
            raise KeyboardInterrupt
        return descend(self, loss)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TextLearner, "descend", stopping)
        yield


@pytest.mark.parametrize("agent", ["grpo", "dpo", "token_ppo"])
def test_a_stopped_run_goes_on_to_the_same_numbers_and_asks_nothing_twice(agent, tmp_path, monkeypatch):
    run = small(agent)
    train(run, tmp_path / "unbroken", quiet=True)
    with stopped_at(4 if agent != "token_ppo" else 10, monkeypatch):
        train(run, tmp_path / "stopped", quiet=True)
    assert len(list((tmp_path / "stopped" / "checkpoints").iterdir())) >= 1
    train(run, tmp_path / "stopped", quiet=True)
    expected, found = outcome(tmp_path / "unbroken"), outcome(tmp_path / "stopped")
    assert found[0] == expected[0]
    assert found[1] == expected[1], "the answers differ, or a question was asked twice"
    assert found[2] == expected[2], "the weights differ"
    assert found[3] == expected[3]
    assert sum(len(payloads) for _, payloads, _ in found[1]) / PAYLOAD_BYTES == found[0]["asked"] == 40


def test_a_run_that_asks_in_rounds_is_stopped_and_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setitem(AGENTS, "rounds", f"{Rounds.__module__}:Rounds")
    algorithm = {"batch_size": 12, "learning_rate": 1e-2}
    run = small("dpo", algorithm=algorithm, total_steps=192, eval_every=48, checkpoint_every=24)
    run = dataclasses.replace(run, preset=dataclasses.replace(run.preset, agent="rounds"))
    assert train(run, tmp_path / "unbroken", quiet=True)["asked"] == 96  # 24 in each of four rounds
    with stopped_at(13, monkeypatch):  # in the fourth round, after two checkpoints of the third
        train(run, tmp_path / "stopped", quiet=True)
    train(run, tmp_path / "stopped", quiet=True)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "unbroken")


def test_gold_proxy_and_kl_are_kept_along_the_run(tmp_path):
    result = train(small("grpo"), tmp_path, quiet=True)
    rows = list(csv.DictReader((tmp_path / "over_optimisation.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [0, 128, 256]
    assert float(rows[0]["kl"]) == pytest.approx(0.0, abs=1e-6)
    assert abs(float(rows[-1]["kl"])) > 1e-6
    assert result["before"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert result["final"] == result["after"]["mean"]
    assert (result["unit"], result["device"]) == ("completions", "cpu")
    assert (result["door"], result["selected"], result["deterministic"]) == ("evaluation", "last", False)
    assert train(small("grpo"), tmp_path, quiet=True) == result


def test_the_command_line_shows_gold_and_proxy_before_and_after(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "text-enum-ppo", small("token_ppo").preset)
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "train",
                "--env",
                "prefenvs/TextEnum-v0",
                "--agent",
                "ppo",
                "--device",
                "cpu",
                "--out",
                str(tmp_path / "run"),
            ]
        )
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    for words in ("before", "after", "true reward", "proxy", "KL in nats", "40 questions asked", " -> "):
        assert words in shown
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "--run-folder", str(tmp_path / "run"), "--episodes", "64"])
    assert stopped.value.code == 0
    assert "over 64 episodes of prefenvs/TextEnum-v0" in capsys.readouterr().out


def test_the_command_line_takes_any_loss_of_pairs(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "text-enum-dpo", small("dpo").preset)
    for loss in ("ipo", "sft", "dpo"):  # sft has no beta, and none of the preset's options
        given = ["--env", "TextEnum", "--agent", "dpo", "--loss", loss, "--out", str(tmp_path / loss)]
        with pytest.raises(SystemExit) as stopped:
            main(["train", "--device", "cpu", *given])
        assert stopped.value.code == 0
    chosen = {loss: read_config(tmp_path / loss) for loss in ("ipo", "sft", "dpo")}
    assert [config.get("loss") for config in chosen.values()] == ["ipo", "sft", None]
    assert [config["preset"]["algorithm"]["options"] for config in chosen.values()] == [{}, {}, {"beta": 0.3}]
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=32, view="completion")
    assert DirectAlignment.load(tmp_path / "ipo" / "agent.zip", envs).loss == "ipo"
    assert len({(tmp_path / loss / "over_optimisation.csv").read_text() for loss in chosen}) == 3
    labels = [arm.label for arm in group_arms([read_run(tmp_path / loss) for loss in ("ipo", "sft")])]
    assert labels == ["preferences (dpo, loss ipo)", "preferences (dpo, loss sft)"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--env", "Pendulum", "--agent", "grpo"), "grpo writes text, and Pendulum is no text task"),
        (("--env", "TextEnum", "--agent", "pebble"), "pebble does not write text, and TextEnum is a text task"),
        (("--env", "TextEnum", "--agent", "grpoo"), "Did you mean 'grpo'"),
        (("--preset", "text-enum-grpo", "--agent", "dpo"), "Leave --preset out"),
        (("--env", "TextEnum", "--agent", "dpo", "--loss", "ippo"), "Did you mean 'ipo'"),
        (
            ("--env", "TextEnum", "--agent", "grpo", "--loss", "ipo"),
            "grpo has its own. Use --agent with one of: dpo, rso",
        ),
        (("--env", "CartPole", "--loss", "ipo"), "prefppo has its own"),
        (("--env", "TextEnum", "--agent", "dpo", "--loss", "odpo"), "DirectAlignment(..., loss='odpo', reward=...)"),
        (("--env", "TextEnum", "--reward-metrics", "pearson"), "over_optimisation.csv"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments, "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_several_seeds_are_trained_side_by_side(tmp_path):
    run = small("dpo", total_steps=64)
    outcome = train_side_by_side({"seed-3": run, "seed-4": dataclasses.replace(run, seed=4)}, tmp_path, workers=2)
    assert not outcome.failures
    for name, [row] in outcome.tables.items():
        result = json.loads((tmp_path / name / "result.json").read_text())
        assert row == {key: value for key, value in result.items() if key not in ("before", "after")}


OWN = """
from prefenvs.agents import AGENTS
from prefenvs.agents.text.online import OnlineLearner

AGENTS["reinforce"] = f"{__name__}:Reinforce"


class Reinforce(OnlineLearner):
    def targets(self, experience):
        return {"advantages": experience.sequence_rewards(self.beta)}

    def minibatch_loss(self, batch, logps):
        return -(batch.targets["advantages"] * logps.sum(-1)).mean()
"""


@pytest.mark.parametrize("several", [(), ("--seeds", "2", "--jobs", "2")])
def test_a_learner_of_one_s_own_runs_by_its_name(several, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_reinforce.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(AGENTS, "reinforce", "")  # so that what the module sets is undone
    monkeypatch.delitem(AGENTS, "reinforce")
    monkeypatch.delitem(sys.modules, "my_reinforce", raising=False)
    monkeypatch.setitem(PRESETS, "text-enum-grpo", small("grpo").preset)
    given = ["--env", "my_reinforce:prefenvs/TextEnum-v0", "--agent", "reinforce", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *given, *several, "--device", "cpu"])
    assert stopped.value.code == 0, capsys.readouterr().err
    known = {"learning_rate": "lin_2e-3", "beta": 0.3, "group": 8, "aggregate": "worst_case"}
    for folder in (tmp_path / "run" / "seed-0", tmp_path / "run" / "seed-1") if several else (tmp_path / "run",):
        assert read_config(folder)["preset"]["algorithm"] == known
        assert json.loads((folder / "result.json").read_text())["agent"] == "reinforce"


def test_a_learner_of_one_s_own_has_the_settings_of_that_which_it_derives_from(monkeypatch):
    monkeypatch.setitem(AGENTS, "rounds", f"{Rounds.__module__}:Rounds")
    for task in ("TextEnum", "TextSentiment"):
        assert default_preset(task, "rounds") == dataclasses.replace(default_preset(task, "dpo"), agent="rounds")


def test_text_is_grpo_s_unless_another_is_named():
    assert default_agent("TextSentiment") == "grpo"
    assert default_preset("TextEnum", "grpo") is PRESETS["text-enum-grpo"]
    assert default_preset("TextSentiment", "rloo").task == "TextSentiment"
