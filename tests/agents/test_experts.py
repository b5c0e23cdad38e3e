import json

import gymnasium as gym
import numpy as np
import pytest

from prefenvs.agents.experts import expert_settings, train_expert
from prefenvs.cli import main
from prefenvs.oracles import shipped_experts
from prefenvs.oracles.value_nets import load_values
from prefenvs.oracles.values import EXPERTS_FOLDER


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_train_writes_a_file_that_a_teacher_can_use(tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    command = ("experts", "train", "--env", "prefenvs/Pendulum-v0", "--steps", 300, "--out", out, "--json")
    assert run(*command) == 0
    (facts,) = json.loads(capsys.readouterr().out).values()
    values = load_values(out)
    assert facts == values.facts
    assert facts["command"].startswith("prefenvs experts train --env prefenvs/Pendulum-v0 --steps 300")
    assert (facts["task"], facts["steps"], facts["seed"], facts["episodes"]) == ("Pendulum", 300, 0, 20)
    assert np.isfinite([facts["score"], *facts["fit"].values()]).all()
    gym.make("prefenvs/Pendulum-v0", oracle={"name": "regret", "values": str(out)}).close()


def test_values_can_be_learned_anew_for_a_policy_in_a_file(tmp_path):
    shipped, out = EXPERTS_FOLDER / "Pendulum.safetensors", tmp_path / "again.safetensors"
    assert run("experts", "train", "--env", "Pendulum", "--policy", shipped, "--steps", 100, "--out", out) == 0
    before, after = load_values(shipped), load_values(out)
    for ours, theirs in zip(before.policy, after.policy, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
    assert after.facts["score"] == pytest.approx(before.facts["score"])
    assert after.facts["policy"] == before.facts
    assert not np.array_equal(before.value[0][0], after.value[0][0])


def test_list_shows_what_is_shipped(capsys):
    assert run("experts", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert tuple(line.split()[0] for line in lines) == shipped_experts()
    assert all("reference" in line and "rank correlation" in line for line in lines)


def test_what_cannot_be_trained_is_refused(capsys):
    assert run("experts", "train") == 2
    assert "give --env" in capsys.readouterr().err
    assert run("experts", "train", "--env", "CartPole") == 2
    assert "experts act in continuous spaces only, which CartPole has not" in capsys.readouterr().err
    assert run("experts", "train", "--env", "Pendulum", "--steps", 0) == 2
    assert "--steps 0 is too small" in capsys.readouterr().err
    pendulum = EXPERTS_FOLDER / "Pendulum.safetensors"
    assert run("experts", "train", "--env", "Hopper", "--policy", pendulum) == 2
    assert "the policy acts in Pendulum, not in Hopper" in capsys.readouterr().err
    with pytest.raises(ValueError, match="task='Pendulm' is not known"):
        train_expert("Pendulm")


def test_fewer_steps_shorten_the_values_share_alike():
    whole, tenth = expert_settings("Pendulum"), expert_settings("Pendulum", 1000)
    assert tenth.value_updates == whole.value_updates // 10
    assert tenth.value_steps == whole.value_steps // 10
    assert expert_settings("Pendulum", 10**6).value_steps == whole.value_steps
