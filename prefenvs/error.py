"""What a caller may want to catch, and the sentence for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrefenvsError(Exception):
    """Base of all errors below. Bad arguments raise ValueError or TypeError instead."""


class BudgetSpent(PrefenvsError):
    """More labels were asked for than the budget has left. Nothing was recorded."""


class SegmentForgotten(PrefenvsError):
    """A queried segment is no longer (or was never) in the environment's recorder. Nothing was spent."""


class NoExpert(PrefenvsError):
    """Regret was asked for where no optimal values are known."""


class EvaluationOnly(PrefenvsError):
    """Feedback was asked for through the evaluation door, or the reverse."""


class RunMismatch(PrefenvsError):
    """A run folder, checkpoint or feedback store belongs to another configuration."""


class DamagedFile(PrefenvsError):
    """A checkpoint or store cannot be read in full. The file was left as it is."""


class FolderInUse(PrefenvsError):
    """Another process is running the plan of this folder. Nothing was started."""


def unknown_name(argument: str, value: object, known: Iterable[str], hint: str = "") -> ValueError:
    """The error for `argument=value` where one of `known` was expected, with the nearest of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value), names, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(
        f"{argument}={value!r} is not known. Expected one of: {', '.join(names)}.{guess}{' ' + hint if hint else ''}"
    )
