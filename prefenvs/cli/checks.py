"""Checks of what was typed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefenvs.error import unknown_name

IMPORT_FIRST = "A task of your own is known once its module is imported: --env my_module:prefenvs/TextMine-v0."


@contextmanager
def usage() -> Iterator[None]:
    """Where what was typed is checked: an error is told in a sentence and the program exits 2.

    A ValueError or TypeError anywhere else is a failure, and keeps its traceback.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        print(f"prefenvs: {error}", file=sys.stderr)
        sys.exit(2)


def at_least(least: int, **flags: int | None) -> None:
    """Check numbers given as flags; None was not given.

    Raises:
        ValueError: naming the flag that is too small.
    """
    for name, value in flags.items():
        if value is not None and value < least:
            raise ValueError(f"--{name} {value} is too small, expected {least} or more.")


def task_name(env: str) -> str:
    """The name of a task from its id or name; after "my_module:", which is imported, as `gym.make` does.

    Raises:
        ValueError: with the nearest known name, or if there is no such module.
    """
    from prefenvs.tasks import TASKS

    module, _, env = env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"env={module}:{env}: {error}. PYTHONPATH says where modules are looked for.") from error
    name = env.removeprefix("prefenvs/")
    for spec in TASKS.values():
        if env in (spec.id, spec.name) or name == spec.id.removeprefix("prefenvs/"):
            return spec.name
    raise unknown_name("env", name.split("-v")[0], TASKS, IMPORT_FIRST)
