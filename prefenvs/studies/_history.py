"""What git knows of a study: which commit fixed it, and at which one it ran."""

from __future__ import annotations

import subprocess
from pathlib import Path

import prefenvs
from prefenvs.error import PrefenvsError
from prefenvs.studies._study import Statement, fixed_hash

HERE = Path(prefenvs.__file__).resolve().parent


def checkout() -> Path:
    """The folder of the checkout that the package is imported from.

    Raises:
        PrefenvsError: if it is installed elsewhere: results are recorded in a checkout.
    """
    root = HERE.parent
    if not (root / "pyproject.toml").is_file() or not (root / "docs").is_dir():
        raise PrefenvsError(f"{root} is no checkout of prefenvs. Record results from a clone installed with pip -e.")
    return root


def head() -> str | None:
    """The commit that the package is at; None outside of git."""
    return _git(HERE, "rev-parse", "HEAD")


def is_clean() -> bool:
    """Whether the package is as that commit has it."""
    return _git(HERE.parent, "status", "--porcelain", "--", "prefenvs", "agents", "tasks") == ""


def commit_that_fixed(study: Statement) -> str | None:
    """The first commit in which the study's file fixed what it fixes now; None if none has, or git knows nothing."""
    folder, name = study.path.parent, study.path.name
    commits = _git(folder, "log", "--format=%H", "--reverse", "--", name)
    for commit in (commits or "").split():
        source = _git(folder, "show", f"{commit}:./{name}")
        try:
            if source and fixed_hash(source) == study.fixed:
                return commit
        except SyntaxError:
            continue
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
