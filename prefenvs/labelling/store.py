"""The answers given, in one SQLite file: written before anybody sees them, never asked for twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128_digest

from prefenvs.error import DamagedFile, PrefenvsError, RunMismatch
from prefenvs.segments import Arrays, Label, Query

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, config TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    run TEXT NOT NULL, first INTEGER NOT NULL, payloads BLOB NOT NULL, answers BLOB NOT NULL,
    PRIMARY KEY (run, first));
"""
_OVERLAPPING = """
SELECT first, payloads, answers FROM batches WHERE run = :run AND first <= :last AND first >=
    (SELECT COALESCE(MAX(first), 0) FROM batches WHERE run = :run AND first <= :first) ORDER BY first
"""
PAYLOAD_BYTES = 16
"""Bytes of a question's hash."""
_FIELDS = ("choice", "ranking", "ratings", "strength", "user")


class AnswerStore:
    """Answers keyed by run and query number, each with a hash of the question it answers.

    A question asked again under the same number (after a resume) is served from here; another question under that
    number is refused. Questions asked together are one row: `payloads` holds PAYLOAD_BYTES a question, `answers` what
    `pack` made of the labels, and the numbers count on from `first`.
    """

    def __init__(
        self,
        path: str | Path | None,
        run: str,
        config: dict[str, Any],
        changed: Callable[[dict[str, Any]], str | None] = lambda kept: None,
    ) -> None:
        """Open or make a store.

        Args:
            path: SQLite file, or None for memory.
            run: name of the run within the file.
            config: what decides the answers (oracle, teacher, seed, kind), as JSON, kept where the run begins.
            changed: what of the config that was kept is another now, None where nothing is; such a run is refused.

        Raises:
            DamagedFile: if the file is not a store.
            RunMismatch: if the run was begun with another configuration, or by an earlier version.
            PrefenvsError: if another process is writing the file, or it cannot be written.
        """
        self.path, self.run = None if path is None else Path(path), run
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, sort_keys=True)
        with self._explained():
            self._connection = sqlite3.connect(self.path or ":memory:", check_same_thread=False)
            earlier = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone()
            if earlier:
                raise RunMismatch(
                    f"{self.path} was written by an earlier version of prefenvs, which kept one answer a row. It was "
                    "left as it is; go on with that version or name another store=."
                )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            with self._connection:
                self._connection.executescript(_SCHEMA)
                self._connection.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (run, text))
            row = self._connection.execute("SELECT config FROM runs WHERE run = ?", (run,)).fetchone()
        if row[0] != text and (found := changed(self._read(row[0]))) is not None:
            raise RunMismatch(
                f"run {run!r} in {self.path} was begun with {found}. Use another run= or store=, or the settings that "
                "it was begun with."
            )

    def _read(self, config: str) -> dict[str, Any]:
        try:
            return dict(json.loads(config))
        except (TypeError, ValueError) as error:
            raise DamagedFile(f"the settings of run {self.run!r} in {self.path} cannot be read ({error}).") from error

    def find(self, first: int, payloads: np.ndarray, *, soft: bool) -> dict[int, Label]:
        """Answers already given to questions, in pieces by the index of the first question of each.

        Args:
            first: number of the first question; the others count on from it.
            payloads: (n, PAYLOAD_BYTES) from `payload_hashes`.
            soft: whether the answers are probabilities.

        Raises:
            RunMismatch: if a number was used for another question.
            DamagedFile: if the file or an answer cannot be read.
        """
        found = {}
        for begun, hashes, answers in self._overlapping(first, len(payloads)):
            kept = np.frombuffer(hashes[: len(hashes) // PAYLOAD_BYTES * PAYLOAD_BYTES], np.uint8)
            kept = kept.reshape(-1, PAYLOAD_BYTES)
            low, high = max(begun, first), min(begun + len(kept), first + len(payloads))
            if low >= high:
                continue
            changed = (kept[low - begun : high - begun] != payloads[low - first : high - first]).any(1)
            if changed.any():
                raise RunMismatch(
                    f"query {low + changed.argmax()} of run {self.run!r} was about other segments or context when "
                    "it was answered. A resumed run must repeat its steps exactly; start a new run= or store= "
                    "otherwise. Nothing was spent."
                )
            found[low - first] = unpack(answers, len(kept), soft=soft)[low - begun : high - begun]
        return found

    def add(self, batches: Mapping[int, tuple[np.ndarray, Label]]) -> None:
        """Keep answers; they are on disk when this returns, all of them or none.

        Args:
            batches: (n, PAYLOAD_BYTES) hashes of questions and their n answers, by the number of the first question.

        Raises:
            RunMismatch: if another process has answered one of them meanwhile.
            DamagedFile: if the file cannot be read.
            PrefenvsError: if another process is writing the file, or it cannot be written.
        """
        with self._explained(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for first, (payloads, label) in batches.items():
                for begun, hashes, _ in self._overlapping(first, len(payloads)):
                    if begun + len(hashes) // PAYLOAD_BYTES > first:
                        raise RunMismatch(
                            f"another process has answered query {max(begun, first)} of run {self.run!r} meanwhile. "
                            "Give each process a run= or store= of its own."
                        )
                row = (self.run, first, payloads.tobytes(), pack(label))
                self._connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", row)

    def _overlapping(self, first: int, count: int) -> list[tuple[int, bytes, bytes]]:
        """Rows that may hold one of `count` numbers from `first` on: first number, payloads, answers."""
        numbers = {"run": self.run, "first": first, "last": first + count - 1}
        with self._explained():
            return self._connection.execute(_OVERLAPPING, numbers).fetchall()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of SQLite's errors whether the file is damaged or cannot be had at present."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            # SQLITE_ERROR is a table or column that another program's database does not have.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
                raise PrefenvsError(
                    f"{self.path} is in use by another process, or cannot be written ({error}). It was left as it is; "
                    "try again when it is free, or name another store=."
                ) from error
            raise DamagedFile(
                f"{self.path} cannot be read as a store of answers ({error}). It was left as it is; "
                "move it away or name another store=."
            ) from error

    def count(self) -> int:
        """Answers kept for this run."""
        query = "SELECT COALESCE(SUM(LENGTH(payloads)), 0) FROM batches WHERE run = ?"
        return int(self._connection.execute(query, (self.run,)).fetchone()[0]) // PAYLOAD_BYTES

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def payload_hashes(query: Query) -> np.ndarray:
    """(n, PAYLOAD_BYTES) uint8 that change with a question's segments (where they are, what they show) or context.

    Ids alone would not do: another seed or another agent gives other segments the same ids.
    """
    segments, keys = query.segments, sorted(query.context)
    shown = [array for held in (segments.observations, segments.actions) for array in _leaves(held)]
    parts = [
        np.tile(np.frombuffer(json.dumps([query.k, keys]).encode(), np.uint8), (query.n, 1)),
        *(_bytes(part.astype("<i8"), query.n) for part in (segments.ids, segments.lengths)),
        *(_digests(_bytes(array, query.n)) for array in shown),
        *(_bytes(query.context[key], query.n) for key in keys),
    ]
    return _digests(np.concatenate(parts, 1))


def _bytes(array: np.ndarray, n: int) -> np.ndarray:
    """An array as n rows of bytes, where it lies if it is contiguous."""
    return np.ascontiguousarray(array).reshape(n, -1).view(np.uint8)


def _digests(rows: np.ndarray) -> np.ndarray:
    """(n, PAYLOAD_BYTES) uint8 hashes of (n, width) bytes."""
    flat, width = rows.reshape(-1).data, rows.shape[1]
    digests = [xxh3_128_digest(flat[i * width : (i + 1) * width]) for i in range(len(rows))]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(rows), PAYLOAD_BYTES)


def _leaves(arrays: Arrays) -> list[np.ndarray]:
    return [arrays[key] for key in sorted(arrays)] if isinstance(arrays, dict) else [arrays]


def pack(label: Label) -> bytes:
    """A JSON description of the kinds of answer, a zero byte, and a row an answer."""
    fields = {name: getattr(label, name) for name in _FIELDS if getattr(label, name) is not None}
    dtype = np.dtype([(name, value.dtype.newbyteorder("<"), value.shape[1:]) for name, value in fields.items()])
    table = np.zeros(len(label), dtype)
    for name, value in fields.items():
        table[name] = value
    head = json.dumps([[name, value.dtype.str, list(value.shape[1:])] for name, value in fields.items()])
    return head.encode() + b"\0" + table.tobytes()


def unpack(answers: bytes, count: int, *, soft: bool) -> Label:
    """The Label of `count` answers that `pack` was given.

    Raises:
        DamagedFile: if it is cut short.
    """
    head, _, body = answers.partition(b"\0")
    try:
        dtype = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in json.loads(head)])
        table = np.frombuffer(body, dtype)
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"a stored answer cannot be read ({error}).") from error
    if len(table) != count:
        raise DamagedFile(f"a stored answer cannot be read ({len(table)} answers to {count} questions).")
    return Label(**{name: table[name].copy() for name in dtype.names or ()}, soft=soft)
