"""Clips of queried segments: drawn from the recorder, kept as GIFs, shown side by side in the report."""

from __future__ import annotations

import base64
import json
import os
import string
import warnings
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from prefenvs.error import DamagedFile, PrefenvsError
from prefenvs.report.read import read_json
from prefenvs.segments import Label, Query

EVERY = 2
"""Steps between drawn frames."""
SIDE = 240
"""Pixels a clip is at most wide and high."""


def save_clips(env: Any, query: Query, label: Label, folder: Path, limit: int = 4) -> list[dict[str, str]]:
    """Draw the first questions of a query as GIFs, with `clips.json` saying which segment the teacher preferred.

    Args:
        env: what `prefenvs.feedback` takes, made with render_mode="rgb_array".
        query: questions whose segments are still recorded.
        label: their answers.
        folder: made if need be.
        limit: questions to draw.

    Returns:
        The entries of `clips.json`: `{"a": file, "b": file, "answer": "a", "b", "tie" or "skip"}` a question; empty,
        after a warning, where this machine cannot draw.

    Raises:
        ValueError: if query and label differ in length, or the env was made without render_mode="rgb_array".
        SegmentForgotten: if a segment is no longer recorded.
    """
    if len(query) != len(label):
        raise ValueError(f"label has {len(label)} answers, expected one a question: {len(query)}.")
    query, label = query[:limit], label[:limit]
    if not len(query):
        return []
    try:
        from prefenvs.labelling.feedback import render

        clips = render(env, query.segments, every=EVERY)
    except (ValueError, PrefenvsError):
        raise
    except (
        Exception
    ) as error:  # what a missing OpenGL raises has no common class: ImportError, AttributeError, mujoco's own
        warnings.warn(
            f"no clips were drawn: {type(error).__name__}: {error}. Drawing without a screen needs an OpenGL library "
            "(Debian and Ubuntu: apt-get install libosmesa6 or libegl1) and MUJOCO_GL=osmesa or MUJOCO_GL=egl set "
            f"before Python starts (it is {os.environ.get('MUJOCO_GL', 'not set')}); classic control tasks need "
            "pip install 'prefenvs[render]'.",
            stacklevel=2,
        )
        return []
    import imageio.v3 as imageio

    folder.mkdir(parents=True, exist_ok=True)
    frame_ms = 1000.0 * EVERY / float((getattr(env, "metadata", None) or {}).get("render_fps") or 30)
    entries = []
    for i in range(len(query)):
        entry = {}
        for letter, frames in zip(string.ascii_lowercase, clips[i * query.k : (i + 1) * query.k], strict=False):
            entry[letter] = f"query-{i:03d}-{letter}.gif"
            imageio.imwrite(folder / entry[letter], _small(frames), extension=".gif", duration=frame_ms, loop=0)
        entries.append({**entry, "answer": _answer(label.choice[i])})
    part = folder / "clips.part"
    part.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    os.replace(part, folder / "clips.json")
    return entries


def _answer(choice: np.ndarray) -> str:
    if np.isnan(choice).any():
        return "skip"
    best = np.flatnonzero(choice == choice.max())
    return string.ascii_lowercase[best[0]] if len(best) == 1 else "tie"


def _small(frames: np.ndarray) -> np.ndarray:
    """(frames, h, w, 3) with every so-many-th pixel, at most SIDE wide and high."""
    stride = -(-max(frames.shape[1:3]) // SIDE)
    return np.ascontiguousarray(frames[:, ::stride, ::stride])


def show_clips(folder: Path) -> str:
    """The clips of a run as HTML, embedded; empty if it has none.

    Raises:
        DamagedFile: if `clips.json` or a clip cannot be read.
    """
    index = folder / "clips.json"
    if not index.exists():
        return ""
    return "".join(_pair(folder, i, entry) for i, entry in enumerate(read_json(index, list)))


def _pair(folder: Path, i: int, entry: Any) -> str:
    if not isinstance(entry, dict) or not {"a", "b", "answer"} <= set(entry):
        raise DamagedFile(
            f"{folder / 'clips.json'} entry {i} is {entry!r}, expected "
            '{"a": file, "b": file, "answer": "a", "b", "tie" or "skip"}. Remove the folder to report without clips.'
        )
    answer = str(entry["answer"])
    verdicts = {"tie": "no preference: a tie", "skip": "the teacher gave no answer"}
    verdict = verdicts.get(answer, f"the teacher preferred {answer}")
    shown = []
    for letter in sorted(set(entry) - {"answer"}):
        preferred = letter == answer
        text = f"Segment {letter} of question {i + 1}; {verdict}."
        image = f'<img src="{_embed(folder, str(entry[letter]))}" alt="{escape(text)}">'
        mark = " \N{CHECK MARK} preferred" if preferred else ""
        style = "clip preferred" if preferred else "clip"
        shown.append(f'<div class="{style}">{image}<span>{escape(letter)}{mark}</span></div>')
    caption = f"<figcaption>Question {i + 1}: {escape(verdict)}.</figcaption>"
    return f'<figure><div class="pair">{"".join(shown)}</div>{caption}</figure>'


def _embed(folder: Path, name: str) -> str:
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        raise DamagedFile(f"{folder / 'clips.json'} names {name!r}, expected a file in the same folder.")
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{path} cannot be read ({error}). Remove {folder} to report without clips.") from error
    if not data.startswith((b"GIF87a", b"GIF89a")):
        raise DamagedFile(f"{path} is not a GIF. Remove {folder} to report without clips.")
    return f"data:image/gif;base64,{base64.b64encode(data).decode('ascii')}"
