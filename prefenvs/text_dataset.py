"""Answered queries about completions as the files that other tools read: JSONL and parquet of the common columns.

Pairs have the columns `prompt`, `chosen`, `rejected`, and `margin` where answers have a strength; single completions
have `prompt`, `completion` and `label`, true for what was preferred. Texts are strings, or lists of messages with a
`content`, as TRL, datasets and their like write them.

Subwords may be cut in another way when their text is read, and a learner would learn of tokens that nobody wrote. Where
a text does not encode to its own tokens, columns of tokens stand beside those of texts, as `chosen_tokens`, and are
read in their place.

    >>> from prefenvs.text_dataset import load_preferences, save_preferences
    >>> save_preferences("pairs.jsonl", query, feedback.ask(query), language)                       # doctest: +SKIP
    >>> query, label = load_preferences("pairs.jsonl", language)                                    # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefenvs.error import DamagedFile, unknown_name
from prefenvs.segments import Label, Query, Segments
from prefenvs.tasks.text.language import (
    Language,
    completion_mask,
    left_padded,
    message_text,
    prompts_and_completions,
    right_padded,
    shared_prompts,
)

Row = dict[str, Any]
COLUMNS = {"pairs": ("prompt", "chosen", "rejected"), "completions": ("prompt", "completion", "label")}
"""Columns of each kind of dataset."""


def completion_segments(prompts: np.ndarray, completions: np.ndarray, language: Language, task: str = "") -> Segments:
    """Whole completions as segments of one step, as a text task shows them in the view "completion".

    They were written elsewhere: `Feedback` has not recorded them and answers nothing about them.

    Args:
        prompts: (n, P) left-padded tokens.
        completions: (n, T) right-padded tokens.
        language: of the task.
        task: its name.
    """
    mask = completion_mask(completions, language.eos, language.pad)
    completions = np.where(mask, completions, language.pad)
    lengths = (np.cumsum(prompts != language.pad, 1) > 0).sum(1)
    text = np.concatenate([prompts, completions], 1)
    places = np.arange(text.shape[1])
    from_front = np.minimum(places + (prompts.shape[1] - lengths)[:, None], text.shape[1] - 1)
    moved = np.take_along_axis(text, from_front, 1)  # padding behind, not in front
    seen = np.stack([places < lengths[:, None], places < (lengths + mask.sum(1))[:, None]], 1)  # before and after
    observations = {
        "mask": seen.astype(np.int8),
        "tokens": np.where(seen, moved[:, None], language.pad),
        "prompt_len": np.repeat(lengths[:, None], 2, 1),
    }
    n = len(prompts)
    ids = np.stack([np.full(n, -2), np.arange(n), np.zeros(n, np.int64)], 1)  # of no stream
    true = np.ones(n, bool)
    return Segments(observations, completions[:, None], true[:, None], true, ~true, ids, task)


def preference_rows(query: Query, label: Label, language: Language, kind: str = "pairs") -> list[Row]:
    """Answers as rows of text; questions that were skipped or tied are left out.

    Args:
        query: about whole completions, in either view.
        label: its answers.
        language: of the task.
        kind: "pairs", the preferred completion against each other one; or "completions", each by itself.

    Raises:
        ValueError: for another kind, probabilities in place of answers, or pairs of completions of two prompts.
    """
    if kind not in COLUMNS:
        raise unknown_name("kind", kind, COLUMNS)
    if label.soft:
        raise ValueError('this label holds probabilities (answer="soft"), expected answers.')
    if kind == "pairs":
        shared_prompts(prompts_and_completions(query.segments, language)[0], query.k, language)
    clear = np.flatnonzero((label.choice == 1).any(1))
    best = label.choice[clear].argmax(1)
    prompts, texts = ([(language.decode(row), row) for row in part] for part in _unpadded(query.segments, language))
    told: list[tuple[dict[str, tuple[str, list[int]]], Row]] = []  # each text with its tokens, and what is no text
    for i, winner in zip((clear * query.k).tolist(), best.tolist(), strict=True):
        chosen, *others = (i + winner, *(i + j for j in range(query.k) if j != winner))
        if kind == "pairs":
            extra = {} if label.strength is None else {"margin": float(label.strength[i // query.k])}
            told += [
                ({"prompt": prompts[chosen], "chosen": texts[chosen], "rejected": texts[j]}, extra) for j in others
            ]
        else:
            both = (chosen, *others)
            told += [({"prompt": prompts[j], "completion": texts[j]}, {"label": j == chosen}) for j in both]
    rows: list[Row] = [{name: text for name, (text, _) in columns.items()} | extra for columns, extra in told]
    if not all(_comes_back(name, *pair, language) for columns, _ in told for name, pair in columns.items()):
        for row, (columns, _) in zip(rows, told, strict=True):
            row |= {f"{name}_tokens": tokens for name, (_, tokens) in columns.items()}
    return rows


def preferences_of(rows: Sequence[Mapping[str, Any]], language: Language, *, place: str = "row") -> tuple[Query, Label]:
    """Rows of text as a query and its answers.

    A completion shorter than the language allows gets an end token. Pairs become questions of two segments, the chosen
    one first; single completions become questions of one with a rating, 1 for what was preferred and 0.

    Args:
        rows: at least one; all with the columns of the first. Columns of tokens are read in place of their texts.
        language: whose words the texts are made of.
        place: what a row is called in errors.

    Raises:
        ValueError: naming the row and the column that is missing, of another type, or no text of the language; or
            tokens that do not say what the text beside them says.
    """
    if not rows:
        raise ValueError("no rows, expected at least one.")
    kind = "pairs" if "chosen" in rows[0] else "completions"
    first, *rest = COLUMNS[kind]
    texts = rest if kind == "pairs" else rest[:1]
    prompts, completions = [], []
    for number, row in enumerate(rows, 1):
        where = f"{place} {number}"
        prompt = _encoded(row, first, where, language)
        for name in texts:
            prompts.append(prompt)
            completions.append(_encoded(row, name, where, language))
    width = language.prompt_tokens.shape[1]
    padded = left_padded([[language.pad] * width, *prompts], language.pad)[1:]
    written = right_padded(completions, language.max_new_tokens, language.pad)
    query = Query(completion_segments(padded, written, language), k=len(texts))
    if kind == "completions":
        liked = np.array([_typed(row, "label", (bool,), f"{place} {n}") for n, row in enumerate(rows, 1)], float)
        return query, Label(np.ones((len(rows), 1)), ratings=liked[:, None])
    strength = None
    if "margin" in rows[0]:
        margins = [_typed(row, "margin", (int, float), f"{place} {n}") for n, row in enumerate(rows, 1)]
        strength = np.array(margins, float)
    return query, Label(np.tile([1.0, 0.0], (len(rows), 1)), strength=strength)


def save_preferences(path: str | Path, query: Query, label: Label, language: Language, kind: str = "pairs") -> int:
    """Write answers to a file, whole or not at all: JSONL, or parquet where the name ends so.

    Returns:
        The number of rows; what was skipped or tied is left out.

    Raises:
        ValueError: for another kind or ending, or where nothing is left to write.
        ImportError: for parquet without the extra "text".
    """
    path, rows = Path(path), preference_rows(query, label, language, kind)
    suffix = _suffix(path)
    if not rows:
        raise ValueError("nothing to write: every question was skipped or tied.")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    if suffix == ".parquet":
        _pyarrow("parquet").write_table(_pyarrow().Table.from_pylist(rows), part)
    else:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(part, path)
    return len(rows)


def load_preferences(path: str | Path, language: Language) -> tuple[Query, Label]:
    """Read answers from JSONL or parquet; see `preferences_of`.

    Raises:
        DamagedFile: naming the line and the column that cannot be read.
        ValueError: for another ending.
        ImportError: for parquet without the extra "text".
    """
    path = Path(path)
    parquet = _suffix(path) == ".parquet"
    rows = _read_parquet(path) if parquet else _read_jsonl(path)
    try:
        return preferences_of(rows, language, place=f"{path}, {'row' if parquet else 'line'}")
    except ValueError as error:
        raise DamagedFile(str(error)) from error


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DamagedFile(f"{path}, line {number}, column {error.colno}: no JSON ({error.msg}).") from error
        except UnicodeDecodeError as error:
            raise DamagedFile(f"{path}, line {number}, column {error.start + 1}: no UTF-8.") from error
        if not isinstance(row, dict):
            raise DamagedFile(f"{path}, line {number}: {row!r:.40}, expected an object of columns.")
        rows.append(row)
    return rows


def _read_parquet(path: Path) -> list[Row]:
    arrow, content = _pyarrow(), path.read_bytes()
    try:
        return _pyarrow("parquet").read_table(arrow.BufferReader(content)).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise DamagedFile(f"{path} cannot be read as parquet ({error}). It was left as it is.") from error


def _pyarrow(module: str = "") -> Any:
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise ImportError('parquet needs pyarrow: pip install "prefenvs[text]", or write .jsonl.') from error


def _suffix(path: Path) -> str:
    if path.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"{path} ends in {path.suffix!r}, expected .jsonl or .parquet.")
    return path.suffix


def _encoded(row: Mapping[str, Any], column: str, where: str, language: Language) -> list[int]:
    """The tokens of a text of a row, without padding; a completion's with their end."""
    value = _typed(row, column, (str, list), where)
    place = f"{where}, column {column!r}"
    if row.get(f"{column}_tokens") is not None:
        return _given(row, column, where, language)
    try:
        tokens = language.encode_prompt(value) if column == "prompt" else language.encode(message_text(value))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return tokens if column == "prompt" else _ended(tokens, language, place)


def _given(row: Mapping[str, Any], column: str, where: str, language: Language) -> list[int]:
    """The tokens that stand beside a text, refused where they are not of this text in this language."""
    name = f"{column}_tokens"
    tokens, place = _typed(row, name, (list,), where), f"{where}, column {name!r}"
    if not all(type(token) is int and 0 <= token < language.vocab_size for token in tokens):
        raise ValueError(f"{place}: {tokens!r:.40}, expected whole numbers in [0, {language.vocab_size}).")
    if language.decode(tokens) != row[column]:
        raise ValueError(
            f"{place}: the tokens say {language.decode(tokens)!r:.40} in this language, the text {row[column]!r:.40}. "
            "Was it written with another tokenizer, or changed? Leave the column out to encode the text."
        )
    return tokens if column == "prompt" else _fitting(tokens, language, place)


def _typed(row: Mapping[str, Any], column: str, types: tuple[type, ...], where: str) -> Any:
    if row.get(column) is None:
        known = ", ".join(sorted(row))
        raise ValueError(f"{where}, column {column!r}: missing, there are {known}. Expected those of {COLUMNS}.")
    if not isinstance(row[column], types) or (isinstance(row[column], bool) and bool not in types):
        names = " or ".join(each.__name__ for each in types)
        raise ValueError(f"{where}, column {column!r}: {row[column]!r:.40}, expected {names}.")
    return row[column]


def _fitting(tokens: list[int], language: Language, place: str) -> list[int]:
    """The tokens of a completion, refused where there are too many."""
    if len(tokens) > language.max_new_tokens:
        raise ValueError(f"{place}: {len(tokens)} tokens, the language allows {language.max_new_tokens}.")
    return tokens


def _ended(tokens: list[int], language: Language, place: str) -> list[int]:
    """The tokens of a completion with its end token, where there is room for it."""
    ends = language.eos in tokens or len(_fitting(tokens, language, place)) == language.max_new_tokens
    return tokens if ends else [*tokens, language.eos]


def _unpadded(segments: Segments, language: Language) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of n prompts, and of n completions with their end token."""
    prompts, completions = prompts_and_completions(segments, language)
    begun = np.cumsum(prompts != language.pad, 1) > 0
    kept = completion_mask(completions, language.eos, language.pad)
    both = ((prompts, begun), (completions, kept))
    shown, written = ([row[some].tolist() for row, some in zip(*part, strict=True)] for part in both)
    return shown, written


def _comes_back(column: str, text: str, tokens: list[int], language: Language) -> bool:
    """Whether reading the text gives its tokens."""
    try:
        return _encoded({column: text}, column, "", language) == tokens
    except ValueError:  # read anew it is too long
        return False
