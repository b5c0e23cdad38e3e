"""Every example runs, with few steps."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prefenvs.agents.distributional import best_cvar
from prefenvs.tasks.grid.ledge import ledge_world

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


def code_lines(example):
    """Lines that do something: not imports, comments, blank lines or the docstring."""
    lines = [line.strip() for line in example.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith(("#", '"""', "import ", "from "))]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What an example prints; each runs once, in a folder of its own."""

    @functools.cache
    def run(example):
        for package in ("sb3_contrib", "matplotlib"):
            if package in example.read_text():
                pytest.importorskip(package, reason="needs the contrib or bench extra")
        folder = tmp_path_factory.mktemp(example.stem)
        command = [sys.executable, str(example), "310"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, folder

    return run


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, output):
    printed, _ = output(example)
    assert "true return" in printed
    assert "asked" in printed


def test_the_risk_averse_policy_learned_from_preferences_gives_up_mean_for_its_worst_quarter(output):
    printed, folder = output(next(path for path in EXAMPLES if path.stem == "risk_averse_from_preferences"))
    number = r"(-?[\d.]+)"
    found = re.findall(rf"true return {number} in the mean, {number} in the worst quarter", printed)
    (mean, worst), (careful_mean, careful_worst) = np.array(found, dtype=float)
    assert careful_worst > worst + 2
    assert careful_mean < mean - 0.5
    assert careful_worst == pytest.approx(best_cvar(ledge_world().mdp, 0.25, 20).value, abs=0.3)
    assert (folder / "310.png").read_bytes()[:4] == b"\x89PNG"


def test_an_sb3_algorithm_learns_from_preferences_in_under_15_lines():
    lengths = {example.stem: len(code_lines(example)) for example in EXAMPLES}
    assert lengths["tqc_from_preferences"] < 15
    assert lengths["gym_loop"] < 30
