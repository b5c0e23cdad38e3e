"""Every example runs, with few steps."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path):
    if "sb3_contrib" in example.read_text():
        pytest.importorskip("sb3_contrib", reason="needs the contrib extra")
    command = [sys.executable, str(example), "520"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "true return" in done.stdout
