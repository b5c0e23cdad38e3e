"""The answers given, in one SQLite file: written before anybody sees them, never asked for twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from prefenvs.error import DamagedFile, RunMismatch
from prefenvs.segments import Arrays, Label, Query

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, config TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    run TEXT NOT NULL, number INTEGER NOT NULL, payload BLOB NOT NULL, answer BLOB NOT NULL,
    PRIMARY KEY (run, number)) WITHOUT ROWID;
"""
_FIELDS = ("choice", "ranking", "ratings", "strength", "user")


class AnswerStore:
    """Answers keyed by run and query number, each with a hash of the question it answers.

    A question asked again under the same number (after a resume) is served from here; another question under that
    number is refused.
    """

    def __init__(self, path: str | Path | None, run: str, config: dict[str, Any]) -> None:
        """Open or make a store.

        Args:
            path: SQLite file, or None for memory.
            run: name of the run within the file.
            config: what decides the answers (oracle, teacher, seed, kind); a run reopened with another is refused.

        Raises:
            DamagedFile: if the file is not a store.
            RunMismatch: if the run was begun with another configuration.
        """
        self.path, self.run = None if path is None else Path(path), run
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, sort_keys=True, default=repr)
        try:
            self._connection = sqlite3.connect(self.path or ":memory:", check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            with self._connection:
                self._connection.executescript(_SCHEMA)
                self._connection.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (run, text))
            row = self._connection.execute("SELECT config FROM runs WHERE run = ?", (run,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        if row[0] != text:
            raise RunMismatch(
                f"run {run!r} in {self.path} was begun with {row[0]}, now it is {text}. "
                "Use another run= or store=, or the settings it was begun with."
            )

    def find(self, numbers: np.ndarray, payloads: list[bytes]) -> dict[int, bytes]:
        """Answers already given to these questions, by number.

        Raises:
            RunMismatch: if a number was used for another question.
            DamagedFile: if the file cannot be read.
        """
        try:
            rows = self._connection.execute(
                "SELECT number, payload, answer FROM answers WHERE run = ? AND number BETWEEN ? AND ?",
                (self.run, int(numbers.min()), int(numbers.max())),
            ).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        wanted = dict(zip(numbers.tolist(), payloads, strict=True))
        found = {}
        for number, payload, answer in rows:
            if number in wanted:
                if payload != wanted[number]:
                    raise RunMismatch(
                        f"query {number} of run {self.run!r} was about other segments when it was answered. A resumed "
                        "run must repeat its steps exactly; start a new run= or store= otherwise. Nothing was spent."
                    )
                found[number] = answer
        return found

    def add(self, numbers: np.ndarray, payloads: list[bytes], answers: list[bytes]) -> None:
        """Keep answers; they are on disk when this returns, all of them or none."""
        rows = [(self.run, n, p, a) for n, p, a in zip(numbers.tolist(), payloads, answers, strict=True)]
        with self._connection:
            self._connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows)

    def _damaged(self, error: sqlite3.DatabaseError) -> DamagedFile:
        return DamagedFile(
            f"{self.path} cannot be read as a store of answers ({error}). It was left as it is; "
            "move it away or name another store=."
        )

    def count(self) -> int:
        """Answers kept for this run."""
        query = "SELECT COUNT(*) FROM answers WHERE run = ?"
        return int(self._connection.execute(query, (self.run,)).fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def payload_hashes(query: Query) -> list[bytes]:
    """16 bytes a question that change with its segments (where they are, what they show), their number or its context.

    Ids alone would not do: another seed or another agent gives other segments the same ids.
    """
    segments = query.segments
    rows = np.concatenate([segments.ids, segments.lengths[:, None]], 1).astype("<i8")
    shown = [array for held in (segments.observations, segments.actions) for array in _leaves(held)]
    keys = sorted(query.context)
    parts = [np.ascontiguousarray(array) for array in (rows, *shown, *(query.context[key] for key in keys))]
    flat = [part.reshape(-1).view(np.uint8).data for part in parts]  # hashed where they lie, without a copy
    widths = [len(part) // max(query.n, 1) for part in flat]
    begin, hashes = json.dumps([query.k, keys]).encode(), []
    for i in range(query.n):
        question = xxh3_128(begin)
        for part, width in zip(flat, widths, strict=True):
            question.update(part[i * width : (i + 1) * width])
        hashes.append(question.digest())
    return hashes


def _leaves(arrays: Arrays) -> list[np.ndarray]:
    return [arrays[key] for key in sorted(arrays)] if isinstance(arrays, dict) else [arrays]


def pack(label: Label) -> list[bytes]:
    """One byte string an answer; the same kinds of answer give the same layout."""
    fields = {name: getattr(label, name) for name in _FIELDS if getattr(label, name) is not None}
    dtype = np.dtype([(name, value.dtype.newbyteorder("<"), value.shape[1:]) for name, value in fields.items()])
    table = np.zeros(len(label), dtype)
    for name, value in fields.items():
        table[name] = value
    head = (
        json.dumps([[name, value.dtype.str, list(value.shape[1:])] for name, value in fields.items()]).encode() + b"\0"
    )
    body, width = table.tobytes(), table.itemsize
    return [head + body[start : start + width] for start in range(0, len(body), width)]


def unpack(answers: list[bytes], *, soft: bool) -> Label:
    """The Label that `pack` was given.

    Raises:
        DamagedFile: if an answer is cut short.
    """
    head, _, _ = answers[0].partition(b"\0")
    try:
        dtype = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in json.loads(head)])
        table = np.frombuffer(b"".join(answer[len(head) + 1 :] for answer in answers), dtype)
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"a stored answer cannot be read ({error}).") from error
    return Label(**{name: table[name].copy() for name in dtype.names or ()}, soft=soft)
