"""Every example runs, with few steps."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


def code_lines(example):
    """Lines that do something: not imports, comments, blank lines or the docstring."""
    lines = [line.strip() for line in example.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith(("#", '"""', "import ", "from "))]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path):
    if "sb3_contrib" in example.read_text():
        pytest.importorskip("sb3_contrib", reason="needs the contrib extra")
    command = [sys.executable, str(example), "310"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "true return" in done.stdout
    assert "asked" in done.stdout


def test_an_sb3_algorithm_learns_from_preferences_in_under_15_lines():
    lengths = {example.stem: len(code_lines(example)) for example in EXAMPLES}
    assert lengths["tqc_from_preferences"] < 15
    assert lengths["gym_loop"] < 30
