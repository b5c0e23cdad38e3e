"""Answered queries about segments in one safetensors file: what a learner may see, to learn from offline."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from xxhash import xxh3_128

from prefenvs.error import DamagedFile
from prefenvs.segments import Label, Query, Segments

_OF_SEGMENTS = [field.name for field in fields(Segments) if field.name != "task"]
_OF_LABEL = [field.name for field in fields(Label) if field.name != "soft"]


def save_answers(path: str | Path, query: Query, label: Label) -> None:
    """Write answers and what they are about to a safetensors file, whole or not at all. No true reward is in it.

    Args:
        path: of the file; one that is there is replaced.
        query: n questions.
        label: their n answers.

    Raises:
        ValueError: if the label does not answer the query.
        TypeError: for a context of other values than numbers (of at most 8 bytes), truth values and texts.
    """
    _check_pair(query, label)
    path, segments = Path(path), query.segments
    arrays = _flat("segments", {name: getattr(segments, name) for name in _OF_SEGMENTS})
    arrays |= _flat("context", query.context)
    arrays |= _flat("label", {name: getattr(label, name) for name in _OF_LABEL if getattr(label, name) is not None})
    texts = [name for name, array in arrays.items() if array.dtype.kind == "U"]
    arrays = {name: _as_numbers(name, array) for name, array in arrays.items()}
    facts = {"k": query.k, "task": segments.task, "soft": label.soft, "texts": texts, "digest": _digest(arrays)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(arrays, part, metadata={"answers": json.dumps(facts)})
    os.replace(part, path)


def load_answers(path: str | Path) -> tuple[Query, Label]:
    """Read what `save_answers` wrote. The ids of segments mean something in the environment they were asked in alone.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFile: if it cannot be read in full.

    Example:
        >>> import torch
        >>> from prefenvs.agents.reward_models import PreferenceData, RewardEnsemble, fit
        >>> query, label = load_answers("answers.safetensors")                                   # doctest: +SKIP
        >>> model = RewardEnsemble(observation_space, action_space, rng=torch.Generator())       # doctest: +SKIP
        >>> data = PreferenceData()                                                              # doctest: +SKIP
        >>> data.add(model, query, label)                                                        # doctest: +SKIP
        >>> optimizer = torch.optim.Adam(model.parameters())                                     # doctest: +SKIP
        >>> fit(model, optimizer, data, rng=torch.Generator())                                   # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}. prefenvs.save_answers(path, query, label) writes one.")
    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {})["answers"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if _digest(arrays) != facts["digest"]:
            raise ValueError("its content is not what was written")
        arrays |= {name: _as_texts(arrays[name]) for name in facts["texts"]}
        segments = Segments(**_nested("segments", arrays), task=facts["task"])
        query = Query(segments, facts["k"], _nested("context", arrays))
        label = Label(**_nested("label", arrays), soft=facts["soft"])
        _check_pair(query, label)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read as answers ({error}). It was left as it is.") from error
    return query, label


def _check_pair(query: Query, label: Label) -> None:
    if label.choice.shape != (query.n, query.k):
        raise ValueError(
            f"label has shape {label.choice.shape}, expected (n, k) = {(query.n, query.k)}: the answers to the query."
        )


def _flat(part: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by `part/name`, those of a dict by `part/name/key`."""
    flat: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        if isinstance(value, dict):
            flat |= {f"{part}/{name}/{key}": np.asarray(array) for key, array in value.items()}
        else:
            flat[f"{part}/{name}"] = np.asarray(value)
    return flat


def _nested(part: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `_flat` was given."""
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        owner, _, rest = name.partition("/")
        if owner != part:
            continue
        first, slash, key = rest.partition("/")
        if slash and part == "segments":
            found.setdefault(first, {})[key] = array
        else:
            found[rest] = array
    return found


def _as_numbers(name: str, array: np.ndarray) -> np.ndarray:
    """An array that safetensors can hold: texts as the code points of their letters, along a last axis."""
    if array.dtype.kind == "U":
        letters = array.dtype.itemsize // 4
        return np.ascontiguousarray(array, f"<U{letters}").reshape(-1).view("<u4").reshape(*array.shape, letters)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} holds {array.dtype}, expected numbers of at most 8 bytes, truth values or texts. Nothing was "
            "written."
        )
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _as_texts(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"<U{array.shape[-1]}")[..., 0]


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = xxh3_128()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
