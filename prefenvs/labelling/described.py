"""Settings as text, by which a store of answers tells whether it is asked about the same things again."""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import json
import sys
from collections.abc import Iterable, Mapping, Set
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from types import MethodType, ModuleType
from typing import Any

import numpy as np
from xxhash import xxh3_128_hexdigest

LONGEST = 200
"""Characters that are shown of what a container or an object holds; more are hashed."""


def described(value: Any, name: str, *, strict: bool = True) -> str:
    """A short text that changes when a setting does, and is the same in every process.

    Numbers, texts and containers are told by what they hold, arrays and torch modules by a hash of it, dataclasses by
    their fields, tokenizers by their vocabulary, functions and classes by their names alone. Any other object is told
    by its class if it has no state, and by a text `source` if it has one, with what else of it can be told.

    Args:
        value: the setting.
        name: what it is called in errors.
        strict: whether an object whose settings cannot be told is refused; if not, its class stands for it.

    Raises:
        TypeError: for such an object, or one within `value`.
    """

    def part(value: Any, at: str = "") -> str:
        return described(value, name + at, strict=strict)

    torch: Any = sys.modules.get("torch")  # where nobody imported it nothing is of it
    kind = type(value).__name__
    match value:
        case Enum():
            return f"{kind}.{value.name}"
        case np.generic() if value.dtype.kind in "biufcSU":
            return repr(value.item())
        case None | bool() | int() | float() | complex() | str() | bytes() | range() | slice():
            return _short([repr(value)])
        case PurePath() | np.dtype():
            return repr(str(value))
        case np.ndarray():
            return part(value.tolist()) if value.dtype.hasobject else _hashed(value.dtype.str, value.shape, value)
        case Mapping():
            return "{" + _short(sorted(f"{part(k)}: {part(v, f'[{k!r:.40}]')}" for k, v in value.items())) + "}"
        case Set():
            return "{" + _short(sorted(map(part, value))) + "}"
        case list() | tuple():
            return f"({_short(part(v, f'[{i}]') for i, v in enumerate(value))}{',' * (len(value) == 1)})"
        case functools.partial():
            return f"partial{part((value.func, value.args, value.keywords))}"
        case MethodType():
            return f"{part(value.__self__)}.{value.__name__}"
        case ModuleType():
            return value.__name__
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if torch is not None and isinstance(value, torch.dtype | torch.device):
        return str(value)
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _hashed(str(value.dtype), tuple(value.shape), flat)
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif torch is not None and isinstance(value, torch.nn.Module):
        own = {key: v for key, v in vars(value).items() if not key.startswith("_")}
        held = {**own, **value.state_dict(), "modules": [type(module) for module in value.modules()]}
    elif callable(getattr(value, "get_vocab", None)):
        held = {"vocabulary": value.get_vocab()}
    else:
        told = isinstance(getattr(value, "source", None), str)
        if not told and (not strict or not _has_state(value)):
            return kind
        if not told:
            raise TypeError(
                f"{name} is a {kind}, with settings that a store of answers cannot tell, so it might serve the answers "
                f"of one to another. Make {kind} a dataclass (@dataclass(frozen=True)), give it a text `source` that "
                "says which one it is, or leave out store=. Nothing was asked."
            )
        held = dict(getattr(value, "__dict__", {}))
    if isinstance(source := getattr(value, "source", None), str):
        held, strict = {**held, "source": source}, False
    return f"{kind}({_short([key + '=' + part(v, '.' + key) for key, v in held.items()])})"


Told = str | list[Any] | dict[str, Any]
"""Settings as JSON: a text, or what `told` makes of a dataclass."""


def told(value: Any, name: str, *, strict: bool = True) -> Told:
    """The text of `described`, and of a dataclass `{"kind": its class, field: the same of it}`.

    So fields can be compared one by one, also of dataclasses among the fields and in lists and tuples.

    Raises:
        TypeError: as `described`.
    """
    if isinstance(value, list | tuple) and any(map(_has_fields, value)):
        return [told(part, f"{name}[{i}]", strict=strict) for i, part in enumerate(value)]
    if not _has_fields(value):
        return described(value, name, strict=strict)
    held, strict = _held(value, strict)
    return {"kind": type(value).__name__, **{key: told(v, f"{name}.{key}", strict=strict) for key, v in held.items()}}


def changed(kept: Told, value: Any, name: str, *, strict: bool = True) -> str | None:
    """What of a setting is not as `told` told it once; None where all is.

    A field of which nothing was told has been added since, and counts as its default of today.

    Args:
        kept: what `told` gave, or an earlier version's text or fields.
        value: the setting now.
        name: what it is called.
        strict: as in `told`.
    """
    now = told(value, name, strict=strict)
    if kept in (now, described(value, name, strict=strict)):
        return None
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        pairs = enumerate(zip(kept, value, strict=True))
        return next(filter(None, (changed(*pair, f"{name}[{i}]", strict=strict) for i, pair in pairs)), None)
    if not isinstance(kept, dict) or not isinstance(now, dict):
        return f"{name} = {_plain(kept)}, now it is {_plain(now)}"
    if "kind" not in kept and json.dumps(kept, sort_keys=True) == _as_json(value):
        return None
    if kept.get("kind") != now["kind"]:
        return f"{name} = {_plain(kept)}, now it is {_plain(now)}"
    held, strict = _held(value, strict)
    for key, part in held.items():
        at = f"{name}.{key}"
        if key not in kept:
            if told(_default(value, key), at, strict=strict) != now[key]:
                return f"no {at}, now it is {_plain(now[key])}"
        elif (found := changed(kept[key], part, at, strict=strict)) is not None:
            return found
    gone = sorted(kept.keys() - now.keys())
    return f"{name}.{gone[0]} = {_plain(kept[gone[0]])}, now there is none" if gone else None


def _has_fields(value: Any) -> bool:
    """Whether `told` tells the fields of a value: those of a dataclass, unless one is called as it calls the class."""
    return (
        dataclasses.is_dataclass(value)
        and not isinstance(value, type)
        and "kind" not in (field.name for field in dataclasses.fields(value))
    )


def _held(value: Any, strict: bool) -> tuple[dict[str, Any], bool]:
    """Fields of a dataclass and the text that says which one it is, if it has one; then not all must be told."""
    held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    source = getattr(value, "source", None)
    return ({**held, "source": source}, False) if isinstance(source, str) else (held, strict)


_NO_DEFAULT = object()


def _default(value: Any, key: str) -> Any:
    """A field's default; what is like no setting where it has none."""
    field = {field.name: field for field in dataclasses.fields(value)}.get(key)
    if field is None:
        return _NO_DEFAULT
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _NO_DEFAULT if field.default is dataclasses.MISSING else field.default


def _as_json(value: Any) -> str:
    """How teachers and units were kept before their fields were told by `told`."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True, default=repr)


def _plain(told: Told) -> str:
    text = told if isinstance(told, str) else json.dumps(told)
    return text if len(text) <= 2 * LONGEST else f"{text[: 2 * LONGEST]} ..."


def _short(parts: Iterable[str]) -> str:
    text = ", ".join(parts)
    return text if len(text) <= LONGEST else sha256(text.encode()).hexdigest()


def _hashed(kind: str, shape: tuple[int, ...], array: np.ndarray) -> str:
    return repr((kind, shape, xxh3_128_hexdigest(array.tobytes())))


def _has_state(value: Any) -> bool:
    """Whether an object holds anything that its class does not say."""
    try:
        made = object.__reduce_ex__(value, 2)
    except Exception:  # its state is not Python's
        return True
    plain = not isinstance(made, str) and made[0] is copyreg.__newobj__ and len(made[1]) == 1  # type: ignore[attr-defined]
    return not plain or bool(made[2])
