"""The tables of benchmarks/learning.py; its runs are the executor's and the trainer's."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def learning(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import learning

    yield learning
    del sys.modules["learning"]


def finals(*values):
    return {str(10 + i): {"final": value, "seconds": 60.0, "asked": 7} for i, value in enumerate(values)}


def test_a_seeds_score_divides_by_the_median_of_sac(learning):
    # random 0, SAC's median 100 whatever the order of its seeds: scores 0.5, 1 and 2
    line = learning.score_line({"random": 0.0, "runs": {"pebble": finals(50, 100, 200), "sac": finals(400, 100, 10)}})
    assert "seeds 10, 11, 12: 0.50, 1.00, 2.00; median 1.00 [0.50, 2.00], least 0.50." in line


def test_a_row_gives_every_seed_and_the_median(learning):
    row = learning.arm_row("Pendulum", "pebble", finals(1, 3, 2))
    assert row == "| Pendulum | pebble | 10, 11, 12 | 1, 3, 2 | 2 [1, 3] | 7 | 1.0 |"


def test_the_arms_differ_in_what_they_are_named_for_alone(learning):
    runs = learning.plan("CartPole")
    assert {seed for _, seed in runs} == set(learning.SEEDS)
    first = learning.SEEDS[0]
    with_short, control = runs["prefppo", first].describe(), runs["prefppo-whole-windows", first].describe()
    assert control["preset"]["preferences"].pop("whole_windows") is True
    assert with_short["preset"]["preferences"].pop("whole_windows") is False
    assert control == with_short
    assert [run.preset.agent for (arm, seed), run in learning.plan("HalfCheetah").items() if seed == first] == [
        "pebble",
        "sac",
    ]


def test_a_described_run_is_restored(learning):
    for task in learning.ARMS:
        for run in learning.plan(task).values():
            assert type(run).from_description(run.describe()) == run
