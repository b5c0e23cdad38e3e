import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest

from prefenvs.agents.checkpoint import Barrier
from prefenvs.agents.presets import PRESETS
from prefenvs.cli import VERBS, main
from prefenvs.oracles import ORACLES
from prefenvs.tasks import TASKS

KINDS = ("tasks", "oracles", "teachers", "strategies", "metrics", "agents", "losses", "presets", "studies")


def run(*arguments):
    """The exit status of the program."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run, and the command that made it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    command = ("train", "--preset", "pendulum-small", "--steps", 300, "--out", out, "--device", "cpu", "--json")
    assert run(*command) == 0
    return out, command


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The folder of two seeds of the same run, and the command that made them."""
    out = tmp_path_factory.mktemp("runs") / "seeds"
    command = ("train", "--preset", "pendulum-small", "--steps", 300, "--seeds", 2, "--out", out, "--device", "cpu")
    assert run(*command) == 0
    return out, command


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_what_there_is(kind, capsys):
    assert run("list", "--kind", kind) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run("list", kind, "--json") == 0
    names = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == list(names)
    assert names


def test_list_names_28_control_tasks_and_the_grids(capsys):
    run("list", "--json")
    ids = list(json.loads(capsys.readouterr().out))
    assert ids == [spec.id for spec in TASKS.values()]
    assert sum(not name.startswith(("prefenvs/Grid", "prefenvs/Text")) for name in ids) == 28
    assert sum(name.startswith("prefenvs/Grid") for name in ids) == 5


def test_the_same_command_again_gives_the_finished_result(finished, capsys):
    out, command = finished
    result = json.loads((out / "result.json").read_text())
    assert result["device"] == "cpu"
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(*command) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before, "nothing was written"
    assert run(*command[:-1]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"true return {result['final']:.1f} +- ")
    assert shown.err == ""


def test_a_stopped_run_says_how_to_resume_and_goes_on_at_its_checkpoint(tmp_path, capsys, monkeypatch):
    base = PRESETS["cartpole-small"]
    asked = replace(base.preferences, queries=10, sessions=2, first_session=256, last_session=512, segment_steps=8)
    tiny = replace(base, total_steps=768, preferences=asked, checkpoint_every=512)
    monkeypatch.setitem(PRESETS, "tiny", tiny)
    command = ("train", "--preset", "tiny", "--out", tmp_path / "run", "--json")
    begin = Barrier._restart

    def press_ctrl_c(self):
        if self.barrier:  # right after the checkpoint was written
            raise KeyboardInterrupt
        begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(Barrier, "_restart", press_ctrl_c)
        assert run(*command) == 130
    assert "Resume with the same command: prefenvs train --preset tiny" in capsys.readouterr().err
    assert run(*command) == 0
    shown = capsys.readouterr()
    assert "resumed at step 512 of 768" in shown.err
    assert json.loads(shown.out)["asked"] == 10


def test_a_seed_among_others_gives_what_it_gives_alone(finished, seeds):
    alone, among = (json.loads((path / "result.json").read_text()) for path in (finished[0], seeds[0] / "seed-0"))
    assert {**among, "seconds": 0} == {**alone, "seconds": 0}
    other = json.loads((seeds[0] / "seed-1" / "result.json").read_text())
    assert other["seed"] == 1
    assert other["final"] != among["final"]


def test_seeds_are_printed_one_a_line_and_run_once(seeds, capsys):
    out, command = seeds
    ran = (out / "seed-0" / "table.json").stat().st_mtime_ns
    results = [json.loads((out / name / "result.json").read_text()) for name in ("seed-0", "seed-1")]
    assert run(*command, "--jobs", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out) == results
    assert run(*command) == 0
    assert (out / "seed-0" / "table.json").stat().st_mtime_ns == ran
    lines = [f"true return {r['final']:.1f} +- {r['sd']:.1f} over 20 episodes; {out}/seed-{r['seed']}" for r in results]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_report_takes_the_folders_of_seeds(seeds, capsys):
    assert run("report", seeds[0] / "seed-0", seeds[0] / "seed-1") == 0
    assert Path(capsys.readouterr().out.strip()).exists()


def test_a_seed_that_fails_exits_1_and_leaves_the_others(seeds, capsys, tmp_path):
    out, command = tmp_path / "copy", list(seeds[1])
    shutil.copytree(seeds[0], out)
    command[command.index("--out") + 1] = out
    (out / "seed-1" / "table.json").unlink()
    (out / "seed-1" / "result.json").write_text('{"final": ')
    assert run(*command) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].endswith(f"{out}/seed-0")
    assert len(shown.out.splitlines()) == 1
    assert "seed-1 failed: prefenvs.error.DamagedFile" in shown.err
    assert str(out / "seed-1" / "error.txt") in shown.err
    assert run(*command[:3], "--steps", 400, *command[5:]) == 1
    assert "total_steps" in capsys.readouterr().err


def test_a_runs_folder_says_how_to_repeat_it(finished):
    out, _ = finished
    config = json.loads((out / "config.json").read_text())
    assert config["command"].startswith("prefenvs train --preset pendulum-small --steps 300")
    assert config["seed"] == 0
    assert {"prefenvs", "torch", "mujoco", "python"} <= set(config["versions"])


def test_eval_repeats_the_final_score_of_a_run(finished, capsys):
    out, _ = finished
    assert run("eval", "--run-folder", out, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["mean"] == pytest.approx(json.loads((out / "result.json").read_text())["final"])
    assert shown["episodes"] == 20


def test_eval_scores_random_play(capsys):
    assert run("eval", "--env", "Pendulum", "--episodes", 3) == 0
    short = capsys.readouterr().out
    assert re.fullmatch(r"true return -\d+\.\d+ \+- \d+\.\d+ over 3 episodes of prefenvs/Pendulum-v0\n", short)
    assert run("eval", "--env", "prefenvs/Pendulum-v0", "--episodes", 3) == 0
    assert capsys.readouterr().out == short, "by id as by name, and the same episodes every time"


OWN = """import dataclasses
import prefenvs
from prefenvs.tasks import TASKS
prefenvs.register(dataclasses.replace(TASKS["MountainCar"], name="OwnCar"))
"""


def test_a_task_of_ones_own_is_known_by_its_module(capsys, tmp_path, monkeypatch):
    (tmp_path / "own_car.py").write_text(OWN)
    assert run("eval", "--env", "own_car:prefenvs/OwnCar-v0") == 2
    assert "env=own_car:prefenvs/OwnCar-v0: No module named 'own_car'. PYTHONPATH says" in capsys.readouterr().err
    assert run("eval", "--env", "OwnCar") == 2
    assert "once its module is imported: --env my_module:prefenvs/" in capsys.readouterr().err
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert run("eval", "--env", "own_car:prefenvs/OwnCar-v0", "--episodes", 1) == 0
        assert "over 1 episodes of prefenvs/OwnCar-v0" in capsys.readouterr().out
    finally:
        TASKS.pop("OwnCar", None)
        gym.registry.pop("prefenvs/OwnCar-v0", None)
        sys.modules.pop("own_car", None)


def test_report_writes_a_page(finished, capsys):
    out, _ = finished
    assert run("report", out) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--env", "Pendulm"), "Did you mean 'Pendulum'"),
        (("train", "--env", "prefenvs/HalfCheeta-v0"), "Did you mean 'HalfCheetah'"),
        (("train", "--preset", "pendulum-smal"), "Did you mean 'pendulum-small'"),
        (("train", "--env", "Pendulum", "--agent", "peble"), "Did you mean 'pebble'"),
        (("train", "--env", "Pendulum", "--oracle", "regrett"), "Did you mean 'regret'"),
        (("train", "--env", "Pendulum", "--teacher", "mistke"), "Did you mean 'mistake'"),
        *(
            (("train", "--env", env, "--device", "cuda:99"), "device='cuda:99', but torch finds")
            for env in ("Pendulum", "TextEnum")
        ),
        (("train", "--env", "Pendulum", "--device", "gpu"), "Expected cpu, cuda or auto"),
        (("train",), "give --env or --preset"),
        (("train", "--env", "CartPole", "--agent", "pebble"), "Use --agent prefppo"),
        (("train", "--env", "MountainCar", "--agent", "sac"), "Use --agent ppo"),
        (("train", "--preset", "pendulum-small", "--agent", "prefppo"), "Leave --preset out"),
        (("list", "--kind", "orcales"), "Did you mean 'oracles'"),
        *[
            (("train", "--env", "Pendulum", f"--{flag}", n), f"--{flag} {n} is too small, expected 1 or more")
            for flag in ("steps", "budget", "seeds", "jobs")
            for n in (0, -3)
        ],
        (("train", "--env", "Pendulum", "--seed", -1), "--seed -1 is too small, expected 0 or more"),
        (("train", "--env", "Pendulum", "--clips", -1), "--clips -1 is too small"),
        (("train", "--env", "Pendulum", "--seeds", 2, "--oracle", "regrett"), "Did you mean 'regret'"),
        (("demo", "--steps", 0), "--steps 0 is too small"),
        (("demo", "--seed", -1), "--seed -1 is too small"),
        (("eval", "--env", "Pendulum", "--episodes", 0), "--episodes 0 is too small"),
        (("eval",), "give one of --env"),
        (("eval", "--env", "Pendulum", "--run-folder", "x"), "give one of --env"),
        (("eval", "--run-folder", "no-such-run"), "holds no run"),
    ],
)
def test_bad_usage_exits_2_and_says_what_was_expected(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("prefenvs: ")
    assert shown.out == ""
    assert not list(tmp_path.iterdir()), "nothing was written"


class Buggy:
    def utility(self, segments):
        return segments.rewards + None


def test_an_error_while_training_is_no_bad_usage_and_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setitem(ORACLES, "buggy", Buggy)
    with pytest.raises(TypeError, match="NoneType") as raised:  # Python prints it and exits 1
        main(["train", "--preset", "cartpole-small", "--oracle", "buggy", "--out", str(tmp_path / "run")])
    assert raised.traceback[-1].name == "utility"


@pytest.mark.parametrize("arguments", [("tarin",), ("train", "--sed", "1"), ("train", "--seed", "one"), ()])
def test_an_unreadable_command_line_exits_2(arguments, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err


def test_a_folder_of_another_run_exits_1_and_says_how_to_go_on(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"task": "CartPole", "command": "prefenvs train --env CartPole"}')
    assert run("train", "--preset", "pendulum-small", "--out", tmp_path) == 1
    assert "repeat its own command: prefenvs train --env CartPole" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_damaged_and_unfinished_runs_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"task": "Pendu')
    for verb in (("train", "--preset", "pendulum-small", "--out"), ("eval", "--run-folder")):
        assert run(*verb, tmp_path) == 1
        assert "config.json cannot be read" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"task": "Pendulum", "agent": "pebble"}')
    assert run("eval", "--run-folder", tmp_path) == 2
    assert "the run has not finished" in capsys.readouterr().err
    (tmp_path / "agent.zip").write_bytes(b"PK")
    assert run("eval", "--run-folder", tmp_path) == 1
    assert "cannot be read as an agent" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_exits_1(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("train", "--preset", "pendulum-small", "--out", tmp_path / "file" / "run") == 1
    assert capsys.readouterr().err.startswith("prefenvs: ")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_explains_every_flag(verb, capsys):
    assert run(verb, "--help") == 0
    shown = "".join(re.sub(r"[│╭╮╰╯─]", "", capsys.readouterr().out).split())
    assert "".join(VERBS[verb].__doc__.split()) in shown
    if verb == "train":
        assert "(default:partial_return)" in shown
        assert "(default:0)" in shown
