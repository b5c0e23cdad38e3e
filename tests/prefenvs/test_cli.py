import json

import pytest

from prefenvs.cli import main


def run(*arguments):
    """The exit status of the program."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.mark.parametrize("kind", ["tasks", "oracles", "teachers", "strategies", "agents", "presets"])
def test_list_names_what_there_is(kind, capsys):
    assert run("list", "--kind", kind) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run("list", "--kind", kind, "--json") == 0
    names = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == list(names)


def test_the_issue_of_names_28_control_tasks_and_the_grids(capsys):
    run("list", "--json")
    ids = json.loads(capsys.readouterr().out)
    assert len(ids) == 32
    assert sum(name.startswith("prefenvs/Grid") for name in ids) == 4


def test_a_run_is_trained_once_scored_and_reported(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ("train", "--preset", "pendulum-small", "--steps", 300, "--out", out, "--device", "cpu", "--json")
    assert run(*arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(*arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert run("eval", "--run-folder", out, "--episodes", 20, "--json") == 0
    assert json.loads(capsys.readouterr().out)["mean"] == pytest.approx(first["final"])
    assert run("report", out) == 0
    assert (out / "report.html").exists()
    config = json.loads((out / "config.json").read_text())
    assert config["command"].startswith("prefenvs train --preset pendulum-small")


def test_a_folder_of_another_run_exits_1_and_says_how_to_go_on(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"task": "CartPole", "command": "prefenvs train --env CartPole"}')
    assert run("train", "--preset", "pendulum-small", "--out", tmp_path) == 1
    assert "repeat its own command: prefenvs train --env CartPole" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--env", "Pendulm"), "Did you mean 'Pendulum'"),
        (("train", "--preset", "pendulum-smal"), "Did you mean 'pendulum-small'"),
        (("train",), "give --env or --preset"),
        (("list", "--kind", "orcales"), "Did you mean 'oracles'"),
        (("eval",), "give one of --env"),
    ],
)
def test_bad_usage_exits_2_and_says_what_was_expected(arguments, message, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_help_shows_defaults(capsys):
    assert run("train", "--help") == 0
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    assert "(default:partial_return)" in shown
