"""The `prefenvs` program."""

from __future__ import annotations

import ctypes.util
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from prefenvs.cli.experts import Experts
from prefenvs.cli.listing import List
from prefenvs.cli.study import Study
from prefenvs.cli.training import Demo, Eval, Report, Train
from prefenvs.error import PrefenvsError

VERBS = {
    "list": List,
    "train": Train,
    "eval": Eval,
    "experts": Experts,
    "report": Report,
    "demo": Demo,
    "study": Study,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; exits 0 when done, 1 when it failed, 2 on bad usage. Unforeseen errors keep their traceback."""
    if (renderer := offscreen_renderer()) is not None:
        os.environ["MUJOCO_GL"] = renderer
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(["prefenvs", *given])
    verb = tyro.extras.subcommand_cli_from_dict(
        {name: _identity(cls) for name, cls in VERBS.items()}, args=given, prog="prefenvs", description=__doc__
    )
    try:
        sys.exit(verb.run(command))
    except (PrefenvsError, ImportError, OSError) as error:
        print(f"prefenvs: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stopped:
        kept = f" {stopped}" if str(stopped) else ""
        print(f"\nstopped.{kept} Resume with the same command: {command}", file=sys.stderr)
        sys.exit(130)


def offscreen_renderer() -> str | None:
    """The MUJOCO_GL that draws without a screen here; None where that is decided already or nothing can draw."""
    if sys.platform != "linux" or os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return None
    libraries = {"osmesa": "OSMesa", "egl": "EGL"}  # egl may be there and still find no device
    return next((name for name, library in libraries.items() if ctypes.util.find_library(library)), None)


def _identity(cls: Any) -> Any:
    return cls
