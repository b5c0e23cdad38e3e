"""The worker process of `prefenvs.runs`: both ends of it."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from prefenvs.registration import own_tasks, register

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A process that takes one job after another; the executor's end."""

    def __init__(self) -> None:
        # Not multiprocessing's spawn, which would run the caller's script again in every worker.
        self.connection, theirs = Pipe()
        place = theirs.fileno()
        paths = [os.path.abspath(entry) for entry in sys.path]
        program = f"import sys; sys.path[:] = {paths}; from prefenvs._worker import serve; serve({place})"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-c", program],
            pass_fds=(place,),
            stdin=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(_THREADS, "1"),
            start_new_session=True,  # Ctrl-C is for the executor, which then ends the worker and all it started
        )
        theirs.close()
        self._job: dict[str, Any] = {}
        with suppress(OSError):  # as in `start`
            self.connection.send(own_tasks())

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def start(self, job: dict[str, Any]) -> None:
        """Give it a job."""
        self._job = job
        with suppress(OSError):  # it has died: the report will say so
            self.connection.send_bytes(json.dumps(job).encode())

    def report(self) -> str | None:
        """None while the job runs, "" when its table is written, else why there is none."""
        ended = not self.alive()  # asked before the pipe, so that a last report is not missed
        try:
            if self.connection.poll():
                return json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            ended = True
        if not ended:
            return None
        self.stop(patience=5)
        folder = Path(self._job["folder"])
        if (folder / "table.json").exists():  # it died just after
            return ""
        return f"{_cause(self._process.returncode)} Last lines of {folder / 'log.txt'}:\n{_tail(folder / 'log.txt')}"

    def stop(self, patience: float = 0) -> None:
        """End the process, at once or when it has not ended by itself after so many seconds, and all it started."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()


def _cause(status: int) -> str:
    if status >= 0:
        return f"Its process ended with exit status {status} before the job was done."
    name = signal.Signals(-status).name
    guess = " (out of memory, or kill -9)" if name == "SIGKILL" else ""
    return f"Its process was killed by {name}{guess}."


def _tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def serve(place: int) -> None:
    """Do jobs from the connection with this file descriptor until it is closed; the worker's end.

    What the executor registered beside the suite's tasks comes first.
    """
    connection = Connection(place)
    with suppress(EOFError, OSError):  # `_listen` will find the executor gone
        for task in connection.recv():
            register(task)
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    while True:
        report = _attempt(**jobs.get())
        connection.send_bytes(json.dumps(report).encode())


def _listen(connection: Connection, jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass jobs on; when the executor is gone, end this process and all it started, whatever it is doing."""
    with suppress(EOFError, OSError):
        while True:
            jobs.put(json.loads(connection.recv_bytes()))
    os.killpg(0, signal.SIGKILL)


def _attempt(function: str, kwargs: dict[str, Any], digest: str, folder: str) -> str:
    """Call the function and write its table; returns "" or the traceback."""
    place = Path(folder)
    with open(place / "log.txt", "ab") as log:  # what C code and crashes print goes there too
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    try:
        module, _, name = function.partition(":")
        table = getattr(importlib.import_module(module), name)(folder=place, **kwargs)
        _check_table(function, table)
        write_atomically(place / "table.json", json.dumps({"job": digest, "table": table}, indent=1))
    except BaseException:  # sys.exit() in a job is its failure, not the worker's end
        return traceback.format_exc()
    return ""


def _check_table(function: str, table: Any) -> None:
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise TypeError(f"{function} returned {type(table).__name__}, expected a table: a list of dict rows.")
    for row in table:
        for name, value in row.items():
            if not isinstance(name, str) or not isinstance(value, str | int | float | None):
                raise TypeError(
                    f"{function} returned {name!r}: {value!r} of type {type(value).__name__}, expected names that are "
                    "str and values that are str, int, float, bool or None. Numpy scalars become such by .item()."
                )


def write_atomically(path: Path, text: str) -> None:
    """Write a file in one go: a reader, or a crash, finds the old content or the new, whole."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
