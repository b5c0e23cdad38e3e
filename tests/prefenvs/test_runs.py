"""Plans run by real worker processes; the jobs are in jobs_to_run.py beside this file."""

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefenvs.error import DamagedFile, FolderInUse, RunMismatch
from prefenvs.runs import Job, execute

HERE = Path(__file__).parent
HOWS = ("exception", "sys.exit", "os._exit", "SIGKILL", "SIGSEGV")


@pytest.fixture(autouse=True)
def jobs_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


def job(key, name="note", **kwargs):
    return Job(key, f"jobs_to_run:{name}", kwargs)


def processes(folder, key="a"):
    """Who ran a job `note`."""
    return (folder / key / "ran").read_text().split()


def wait_until(condition):
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def gone(folder):
    """Whether all processes of a job that called `hold` have ended."""
    with open(folder / "held") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_tables_come_in_the_order_of_the_plan_and_failures_do_not_stop_the_others(tmp_path):
    plan = [job("z", a=1), *(job(how, "fail", how=how) for how in HOWS), job("a", a=2)]
    outcome = execute(plan, tmp_path, workers=2)
    assert list(outcome.tables.items()) == [("z", [{"a": 1}]), ("a", [{"a": 2}])]
    assert list(outcome.failures) == list(HOWS)
    says = {"exception": "RuntimeError: boom", "sys.exit": "SystemExit: 0", "os._exit": "exit status 3"}
    says |= {"SIGKILL": "killed by SIGKILL (out of memory, or kill -9)", "SIGSEGV": "in fail\n"}
    for how, text in outcome.failures.items():
        assert says[how] in text
        assert (tmp_path / how / "error.txt").read_text() == text
        assert f"about to fail {how}" in (tmp_path / how / "log.txt").read_text()
        assert not (tmp_path / how / "table.json").exists()


def test_one_worker_does_many_jobs_and_finished_ones_are_skipped(tmp_path):
    plan = [job(key, x=key) for key in "abc"]
    first = execute(plan, tmp_path)
    assert processes(tmp_path, "a") == processes(tmp_path, "b") == processes(tmp_path, "c")
    more = execute([job("d", x="d"), *plan], tmp_path)
    assert more.tables == {"d": [{"x": "d"}], **first.tables}
    assert len(processes(tmp_path, "a")) == 1
    assert processes(tmp_path, "d") != processes(tmp_path, "a")


def test_a_failed_job_is_tried_again_in_its_folder(tmp_path):
    plan = [job("a", "die_once")]
    assert "SIGKILL" in execute(plan, tmp_path).failures["a"]
    outcome = execute(plan, tmp_path)
    assert outcome.tables == {"a": [{"found": "way"}]}
    assert outcome.failures == {}
    assert not (tmp_path / "a" / "error.txt").exists()


def test_numbers_survive_the_round_trip_and_resuming_gives_the_same(tmp_path):
    plan = [job("a", "numbers"), job("b", "environment")]
    fresh, resumed = execute(plan, tmp_path), execute(plan, tmp_path)
    assert repr(fresh) == repr(resumed)  # nan is not equal to itself
    [row] = fresh.tables["a"]
    assert math.isnan(row.pop("nan"))
    assert row == {"float": 0.1 + 0.2, "inf": -math.inf, "int": 2**70, "text": "é\n", "no": None, "yes": True}
    assert fresh.tables["b"] == [{"threads": "1", "folder": "b", "absolute": True}]


def test_two_workers_run_at_the_same_time(tmp_path):
    plan = [job("a", "meet", mine="here", other="there"), job("b", "meet", mine="there", other="here")]
    assert list(execute(plan, tmp_path, workers=2).tables) == ["a", "b"]


def test_what_is_no_table_or_no_function_is_a_failure_that_says_so(tmp_path):
    plan = [job(what, "untidy", what=what) for what in ("list", "array", "key")]
    plan += [job("missing", "no_such_function"), Job("module", "no_such_module:f")]
    failures = execute(plan, tmp_path).failures
    assert "expected a table: a list of dict rows" in failures["list"]
    assert "returned 'x': [1, 2] of type list" in failures["array"]
    assert "returned 1: 2" in failures["key"]
    assert "no attribute 'no_such_function'" in failures["missing"]
    assert "No module named 'no_such_module'" in failures["module"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([job("a"), job("b"), job("a", x=1)], "key='a' is in the plan twice"),
        ([job("a"), job("A")], "key='A' is in the plan twice"),
        *[([job(key)], "cannot name a folder") for key in ("", ".", "..", "../a", "a/b", ".lock", "a\n", "x" * 151)],
        ([Job("a", "jobs_to_run.note")], "'module:function'"),
        ([Job("a", "__main__:note")], "move them into a module"),
        ([job("a", folder="here")], "name folder="),
        ([job("a", x={1, 2})], "not JSON"),
    ],
)
def test_a_plan_that_cannot_be_run_starts_nothing(plan, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        execute([job("fine"), *plan], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_fewer_than_one_worker_is_refused(tmp_path):
    with pytest.raises(ValueError, match="workers=0"):
        execute([job("a")], tmp_path, workers=0)


def test_an_empty_plan_gives_nothing(tmp_path):
    assert execute([], tmp_path, workers=3).tables == {}


def test_a_finished_job_with_other_kwargs_is_refused_before_anything_starts(tmp_path):
    execute([job("a", x=1)], tmp_path)
    kept = (tmp_path / "a" / "table.json").read_bytes()
    for other in (job("a", x=2), Job("a", "jobs_to_run:other", {"x": 1})):
        with pytest.raises(RunMismatch, match=r"job 'a' .* was done with another function or other kwargs"):
            execute([job("b"), other], tmp_path)
    assert (tmp_path / "a" / "table.json").read_bytes() == kept
    assert not (tmp_path / "b").exists()
    assert execute([job("a", x=1)], tmp_path).tables == {"a": [{"x": 1}]}


def test_a_begun_job_with_other_kwargs_may_not_go_on_from_files_that_are_not_its_own(tmp_path):
    execute([job("a", "die_once"), job("b", "fail", how="exception")], tmp_path)
    with pytest.raises(RunMismatch, match="was begun with"):
        execute([job("a", x=1)], tmp_path)
    assert execute([job("b", x=1)], tmp_path).tables == {"b": [{"x": 1}]}, "b left no files"


@pytest.mark.parametrize("text", ["", '{"job": "', "[]", '{"job": "x"}', "\udcff"])
def test_a_damaged_table_is_refused_and_left(text, tmp_path):
    path = tmp_path / "a" / "table.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DamagedFile, match=r"a/table.json cannot be read"):
        execute([job("b"), job("a")], tmp_path)
    assert path.read_bytes() == text.encode(errors="surrogateescape")
    assert not (tmp_path / "b").exists()


def test_progress_goes_to_stderr_and_only_when_asked(tmp_path, capfd):
    plan = [job("a"), job("b", "fail", how="exception")]
    execute(plan, tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    execute(plan, tmp_path / "shown", progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "1 done, 1 failed, 0 left" in shown.err


def test_what_a_dead_job_started_ends_with_it(tmp_path):
    outcome = execute([job("a", "die_with_a_fork"), job("b")], tmp_path)
    assert "SIGKILL" in outcome.failures["a"]
    assert list(outcome.tables) == ["b"]
    wait_until(lambda: gone(tmp_path / "a"))


@pytest.fixture
def running(tmp_path):
    """A program that runs a plan whose second job never ends, once that job runs."""
    script = tmp_path / "script.py"  # without a __main__ guard, which plans do not need
    plan = [["a", "jobs_to_run:note", {"x": 1}], ["b", "jobs_to_run:hang", {}]]
    paths = [str(HERE), str(HERE.parents[1])]
    script.write_text(
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell ignores behind a &
        f"import sys; sys.path[:0] = {paths}\nfrom prefenvs.runs import Job, execute\n"
        f"execute([Job(*job) for job in {plan}], {str(tmp_path / 'out')!r})\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True) as program:
        try:
            wait_until((tmp_path / "out" / "b" / "hangs").exists)
            assert not gone(tmp_path / "out" / "b")
            yield program, tmp_path / "out"
        finally:
            program.kill()


def test_ctrl_c_ends_the_workers_and_says_that_finished_jobs_are_kept(running):
    program, out = running
    program.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt: 1 of 2 jobs are finished and kept" in program.communicate(timeout=20)[1]
    wait_until(lambda: gone(out / "b"))
    assert execute([job("a", x=1)], out).tables == {"a": [{"x": 1}]}
    assert len(processes(out)) == 1


def test_workers_end_with_a_killed_executor_and_what_they_started_too(running):
    program, out = running
    program.kill()
    wait_until(lambda: gone(out / "b"))
    assert json.loads((out / "a" / "table.json").read_text())["table"] == [{"x": 1}]


def test_two_executors_do_not_share_a_folder(running):
    _, out = running
    with pytest.raises(FolderInUse, match="another process runs a plan in it"):
        execute([job("a", x=1)], out)


def test_a_worker_that_is_killed_between_jobs_is_replaced(tmp_path, monkeypatch):
    from prefenvs import runs

    class Mortal(runs.Worker):
        def report(self):
            report = super().report()
            if report is not None and self.alive():
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            return report

    monkeypatch.setattr(runs, "Worker", Mortal)
    assert list(execute([job("a"), job("b")], tmp_path).tables) == ["a", "b"]
    assert processes(tmp_path, "a") != processes(tmp_path, "b")
