import json
from pathlib import Path

import numpy as np

from prefenvs.agents.demo import RECORDED_SAC, run_demo

ROOT = Path(__file__).resolve().parents[2]


def test_the_recorded_reference_is_the_one_that_was_measured():
    table = json.loads((ROOT / "docs" / "results" / "learning.json").read_text())
    runs = table["HalfCheetah"]["runs"]["sac"]
    assert np.median([run["final"] for run in runs.values()]) == RECORDED_SAC


def test_a_short_demo_ends_with_a_table_and_a_report(tmp_path, capsys):
    assert run_demo(tmp_path, 0, steps=2200, full=False, command="prefenvs demo --steps 2200") == 0
    shown = capsys.readouterr().out
    assert "preferences (PEBBLE)" in shown
    assert "random actions" in shown
    assert "recorded" not in shown, "the recorded figure belongs to the full number of steps"
    assert (tmp_path / "pebble-0" / "report.html").exists()
