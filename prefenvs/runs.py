"""Runs plans: many small jobs in worker processes, each with a folder, kept when done and isolated when they fail."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import re
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from prefenvs._worker import Worker, write_atomically
from prefenvs.error import DamagedFile, FolderInUse, RunMismatch

Table = list[dict[str, Any]]
"""Rows of JSON scalars: str, int, float (nan and inf included), bool or None."""

PACKAGES = ("prefenvs", "numpy", "torch", "gymnasium", "stable-baselines3", "mujoco")
"""What makes numbers."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,149}")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_OURS = {"job.json", "table.json", "table.json.part", "error.txt", "log.txt"}


@dataclass(frozen=True)
class Job:
    """One call of a function, in a folder of its own."""

    key: str
    """Unique in its plan, also in another case; names the job's folder: letters, digits and any of `._=+-`."""
    function: str
    """`"module:function"`, imported by the worker and called as `function(folder=Path, **kwargs)`; returns a Table.

    A job whose process was killed is called again with the same folder, and may go on from what it left there.
    """
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """JSON; tuples arrive as lists."""

    def describe(self) -> dict[str, Any]:
        """What decides the job's table, as JSON."""
        return {"function": self.function, "kwargs": json.loads(json.dumps(dict(self.kwargs)))}

    def digest(self) -> str:
        """A hash of function and kwargs."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What a plan gave. Both dictionaries are in the order of the plan."""

    tables: dict[str, Table]
    """Table of each finished job, by key."""
    failures: dict[str, str]
    """Traceback of each job that raised, or how its process ended, by key."""


def execute(plan: Sequence[Job], folder: Path, *, workers: int = 1, progress: bool = False) -> Outcome:
    """Run the jobs that are not finished yet, and return the tables of all.

    Each job runs in a worker process with one thread. Workers are started afresh, not forked, and take one job after
    another, so a job must not rely on module state. A job that raises, or whose process dies, is a failure and the
    others go on; call again with the same plan to retry it. In `folder/key` lie `table.json` (numbers as Python's json
    writes them: NaN and Infinity are themselves), `job.json`, `log.txt` (what the job printed), `error.txt` after a
    failure, and the job's own files.

    Example:
        A function `mean` in `mymodule.py`, called as `mean(folder=..., seed=0)`:

        >>> from pathlib import Path
        >>> from prefenvs.runs import Job, execute
        >>> plan = [Job(f"mean-{seed}", "mymodule:mean", {"seed": seed}) for seed in range(5)]
        >>> outcome = execute(plan, Path("runs/mean"), workers=2)  # doctest: +SKIP
        >>> outcome.tables["mean-0"]  # doctest: +SKIP
        [{'mean': 0.5}]

    Args:
        plan: jobs with different keys.
        folder: of this plan; made if need be.
        workers: processes at a time.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: for keys or functions that cannot be used, or fewer than one worker; nothing was started.
        TypeError: for kwargs that are not JSON; nothing was started.
        RunMismatch: if a job of that key was done, or begun, with another function or other kwargs.
        DamagedFile: if a finished job's table cannot be read.
        FolderInUse: if another process is running a plan in this folder.
        KeyboardInterrupt: saying how much is kept.
    """
    _check(plan, workers)
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        return _execute(plan, folder, workers, progress)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make numbers, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _execute(plan: Sequence[Job], folder: Path, workers: int, progress: bool) -> Outcome:
    tables = {job.key: table for job in plan if (table := _finished(job, folder / job.key)) is not None}
    left = [job for job in plan if job.key not in tables]
    failures: dict[str, str] = {}
    try:
        with _bar(len(plan), len(tables), progress) as show, closing(_perform(left, folder, workers)) as ended:
            for job, failure in ended:
                table = None if failure else _finished(job, folder / job.key)
                if table is None:
                    failures[job.key] = failure or "it left no table"
                else:
                    tables[job.key] = table
                show(len(tables), len(failures))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{len(tables)} of {len(plan)} jobs are finished and kept in {folder}; the same plan goes on from there."
        ) from None
    keys = [job.key for job in plan]
    return Outcome({k: tables[k] for k in keys if k in tables}, {k: failures[k] for k in keys if k in failures})


def _check(plan: Sequence[Job], workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers={workers}, expected 1 or more processes at a time.")
    seen: set[str] = set()
    for job in plan:
        if not _SAFE.fullmatch(job.key):
            raise ValueError(
                f"key={job.key!r} cannot name a folder. Expected at most 150 letters, digits and any of ._=+-, "
                "the first a letter or digit."
            )
        if job.key.lower() in seen:  # some file systems do not tell A from a
            raise ValueError(f"key={job.key!r} is in the plan twice. Give each job a key of its own.")
        seen.add(job.key.lower())
        if not _FUNCTION.fullmatch(job.function) or job.function.startswith("__main__:"):
            raise ValueError(
                f"function={job.function!r} of job {job.key!r} is not 'module:function' with a module that a worker "
                "can import (a script's own functions belong to __main__: move them into a module)."
            )
        if "folder" in job.kwargs:
            raise ValueError(f"kwargs of job {job.key!r} name folder=, which each job is given by the executor.")
        try:
            job.digest()
        except TypeError as error:
            raise TypeError(f"kwargs of job {job.key!r} are not JSON: {error}.") from error


def _finished(job: Job, folder: Path) -> Table | None:
    """The table of a job that is done; None if it must run."""
    held = _read(folder / "table.json", ("job", "table"))
    if held is not None:
        if held["job"] == job.digest():
            return list(held["table"])
    else:
        begun = _read(folder / "job.json", ("function", "kwargs"))
        kept = folder.is_dir() and any(path.name not in _OURS for path in folder.iterdir())
        if begun is None or begun == job.describe() or not kept:
            return None
    raise RunMismatch(
        f"job {job.key!r} in {folder} was {'begun' if held is None else 'done'} with another function or other kwargs: "
        f"compare {folder / 'job.json'} with {json.dumps(job.describe())}. Name another folder, or remove that one."
    )


def _read(path: Path, names: Sequence[str]) -> dict[str, Any] | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {name: held[name] for name in names}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(
            f"{path} cannot be read ({error!r}). It was left as it is; remove {path.parent} to run that job again."
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other executors out: two at the same job would write the same files. Ends with the process at the latest."""
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"{folder} is in use: another process runs a plan in it. Wait for it, or name another folder. "
                "Nothing was started."
            ) from None
        except OSError as error:  # some network file systems know no locks
            warnings.warn(f"{folder} cannot be locked ({error}); do not run two plans in it at once.", stacklevel=4)
        yield


def _perform(jobs: Sequence[Job], folder: Path, workers: int) -> Generator[tuple[Job, str | None], None, None]:
    """Run jobs; yields each as it ends, with how it failed or None."""
    waiting, team = deque(jobs), [Worker() for _ in range(min(workers, len(jobs)))]
    busy: dict[int, Job] = {}
    try:
        while waiting or busy:
            for place in range(len(team)):
                if place not in busy and waiting:
                    job = busy[place] = waiting.popleft()
                    if not team[place].alive():
                        team[place] = Worker()
                    _begin(job, folder / job.key)
                    team[place].start({**job.describe(), "digest": job.digest(), "folder": str(folder / job.key)})
            # A process that a job forked may hold a dead worker's end of the pipe open, so look at each now and then.
            wait([team[place].connection for place in busy], timeout=1)
            for place in list(busy):
                if (report := team[place].report()) is not None:
                    job = busy.pop(place)
                    if report:
                        write_atomically(folder / job.key / "error.txt", report)
                    yield job, report or None
    finally:
        for worker in team:
            worker.stop()


def _begin(job: Job, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.txt").unlink(missing_ok=True)
    write_atomically(folder / "job.json", json.dumps(job.describe(), indent=1))


@contextmanager
def _bar(total: int, done: int, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; yields what is called with the numbers of finished and failed jobs."""
    if not shown:
        yield lambda finished, failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.fields[finished]} done, {task.fields[failed]} failed, {task.fields[left]} left")
    with Progress(BarColumn(), text, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, completed=done, finished=done, failed=0, left=total - done)

        def show(finished: int, failed: int) -> None:
            ended = finished + failed
            progress.update(task, completed=ended, finished=finished, failed=failed, left=total - ended)

        yield show
