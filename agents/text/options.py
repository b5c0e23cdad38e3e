"""Settings and options, checked before anything is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from typing import Any

from prefenvs.error import unknown_name


def check_options(
    field: str,
    options: Mapping[str, Any],
    function: Callable[..., Any],
    reader: str,
    *,
    positional: int = 1,
    supplied: Collection[str] = (),
) -> None:
    """Refuse options that `function` does not take, and the lack of one that it needs.

    Args:
        field: of the settings that holds them, to be named in the error.
        options: arguments of the function by name.
        function: it is called with `positional` arguments, those named in `supplied` and the options.
        reader: how the function was chosen, such as "loss='dpo'".
        positional: arguments that its caller gives in order.
        supplied: arguments that its caller gives by name.

    Raises:
        ValueError: naming the field, the option and what was expected.
    """
    parameters = list(inspect.signature(function).parameters.values())
    ordered = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    given = {p.name for p in ordered[:positional]} | set(supplied)
    keywords = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    known = {p.name: p for p in parameters if p.kind in keywords and p.name not in given}
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    for name in options:
        if name in known or (takes_any and name not in given):
            continue
        if not known:
            raise ValueError(f"{field}={dict(options)!r}, and {reader} takes no options. Leave them out.")
        raise unknown_name(f"{field} of {reader}: option", name, known)
    missing = [name for name, p in known.items() if p.default is Parameter.empty and name not in options]
    if missing:
        raise ValueError(
            f"{field}={dict(options)!r} lacks {missing[0]!r}, which {reader} needs. "
            f"Give {field}={{{missing[0]!r}: ..., ...}}."
        )


def at_least(settings: Any, **least: float) -> None:
    """Refuse fields of the settings below a number; None is none of them.

    Raises:
        ValueError: naming the field.
    """
    _bounded(settings, least, lambda value, bound: value >= bound, "{} or more")


def above(settings: Any, **bounds: float) -> None:
    """Refuse fields of the settings that are not above a number; None is none of them.

    Raises:
        ValueError: naming the field.
    """
    _bounded(settings, bounds, lambda value, bound: value > bound, "more than {}")


def _bounded(settings: Any, bounds: Mapping[str, float], fits: Callable[[Any, float], bool], expected: str) -> None:
    for name, bound in bounds.items():
        value = getattr(settings, name)
        if value is not None and not fits(value, bound):  # nan fits nothing
            raise ValueError(f"{name}={value!r}, expected {expected.format(bound)}.")
