"""Functions that the workers of test_runs.py call."""

import os
import signal
import sys
import time


def note(folder, **row):
    """One row, and a line in the job's own file for each time it ran."""
    with open(folder / "ran", "a") as file:
        file.write(f"{os.getpid()}\n")
    return [row]


def fail(folder, how):
    print("about to fail", how)
    if how == "exception":
        raise RuntimeError("boom")
    if how == "sys.exit":
        sys.exit(0)
    if how == "os._exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def fail_once(folder):
    """Dies the first time, and goes on from its own file the second."""
    kept = folder / "half"
    if kept.exists():
        return [{"found": kept.read_text()}]
    kept.write_text("way")
    os.kill(os.getpid(), signal.SIGKILL)
