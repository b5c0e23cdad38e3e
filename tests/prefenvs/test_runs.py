from pathlib import Path

import pytest

from prefenvs.runs import Job, execute


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


def note(key, **row):
    return Job(key, "jobs_to_run:note", row)


def test_tables_come_in_the_order_of_the_plan_and_failures_do_not_stop_the_others(tmp_path):
    hows = ("exception", "sys.exit", "os._exit", "SIGKILL", "SIGSEGV")
    plan = [note("b", a=1)] + [Job(how, "jobs_to_run:fail", {"how": how}) for how in hows] + [note("a", a=2)]
    outcome = execute(plan, tmp_path, workers=2)
    assert outcome.tables == {"b": [{"a": 1}], "a": [{"a": 2}]}
    assert list(outcome.tables) == ["b", "a"]
    assert list(outcome.failures) == list(hows)
