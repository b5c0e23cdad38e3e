"""Functions that the workers of test_runs.py and test_cli.py call."""

import fcntl
import math
import os
import signal
import subprocess
import sys
import time


def note(folder, **row):
    """One row; the job's own file says which processes ran it."""
    with open(folder / "ran", "a") as file:
        file.write(f"{os.getpid()}\n")
    return [row]


def numbers(folder):
    return [
        {"float": 0.1 + 0.2, "nan": math.nan, "inf": -math.inf, "int": 2**70, "text": "é\n", "no": None, "yes": True}
    ]


def environment(folder):
    return [{"threads": os.environ["OMP_NUM_THREADS"], "folder": folder.name, "absolute": folder.is_absolute()}]


def knows(folder, task):
    from prefenvs.tasks import TASKS

    return [{"knows": task in TASKS}]


def untidy(folder, what):
    return {"list": [1], "array": [{"x": [1, 2]}], "key": [{1: 2}]}[what]


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


def die_once(folder):
    """Is killed the first time, and goes on from its own file the second."""
    half = folder / "half"
    if not half.exists():
        half.write_text("way")
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"found": half.read_text()}]


def meet(folder, mine, other):
    """Ends only if the other job runs at the same time."""
    (folder.parent / mine).touch()
    give_up = time.monotonic() + 20
    while not (folder.parent / other).exists():
        if time.monotonic() > give_up:
            raise TimeoutError("alone")
        time.sleep(0.01)
    return [{}]


def hold(folder):
    """Lock a file; the lock is free again when this process and all that inherit the file are gone."""
    place = os.open(folder / "held", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(place, fcntl.LOCK_EX)
    os.set_inheritable(place, True)


def hang(folder):
    """Waits for ever beside a process of its own."""
    hold(folder)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    (folder / "hangs").touch()
    time.sleep(600)


def die_with_a_fork(folder):
    """Is killed while a forked process still holds its end of the pipe."""
    hold(folder)
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
