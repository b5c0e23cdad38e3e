"""What a study says of itself, read from its source without importing it, and the hash of what it fixes beforehand."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefenvs.error import unknown_name
from prefenvs.studies import STUDIES
from prefenvs.studies._check import Paper

SCALES = ("smoke", "full")
LITERAL = ("PAPER", "CLAIM", "MARGIN", "PARTS", "TESTS", "SEEDS")
REQUIRED = (*LITERAL, "arms", "run", "check")
FREE = ("PARTS", "TESTS")
"""Constants that may change without amending the study: they say where things are."""
AFTERWARDS = ("check", "draw", "summary")
"""Functions that read tables and do not make them; they may be assigned, as `summary = means(last=True)`."""


@dataclass(frozen=True)
class Statement:
    """What can be known of a study without running it."""

    name: str
    """On the command line."""
    module: str
    path: Path
    source: str
    paper: Paper
    claim: str
    margin: dict[str, float]
    parts: tuple[str, ...]
    tests: tuple[str, ...]
    seeds: dict[str, tuple[int, ...]]
    protocol: str

    @property
    def fixed(self) -> str:
        """Hash of what is fixed before the first full run."""
        return fixed_hash(self.source)


def statement(name: str) -> Statement:
    """Read a study.

    Raises:
        ValueError: if there is none of that name, or it lacks something or does not write it as a literal.
    """
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    spec = importlib.util.find_spec(STUDIES[name])
    if spec is None or spec.origin is None:
        raise ValueError(f"study {name!r} is said to be module {STUDIES[name]}, which is not there.")
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(source)
    constants = _constants(tree)
    defined = {*constants, *(node.name for node in tree.body if isinstance(node, ast.FunctionDef))}
    if missing := [key for key in REQUIRED if key not in defined]:
        raise ValueError(f"{spec.origin} has no {', '.join(missing)}; a study has {', '.join(REQUIRED)}.")
    read = {key: _literal(constants[key]) for key in LITERAL}
    if unread := [key for key in LITERAL if isinstance(read[key], _Text)]:
        raise ValueError(f"{', '.join(unread)} of {spec.origin}: expected literals, so that their hash is their value.")
    return Statement(
        name=name,
        module=STUDIES[name],
        path=Path(spec.origin),
        source=source,
        paper=Paper(**read["PAPER"]),
        claim=read["CLAIM"],
        margin=dict(read["MARGIN"]),
        parts=tuple(read["PARTS"]),
        tests=tuple(read["TESTS"]),
        seeds={scale: tuple(read["SEEDS"][scale]) for scale in SCALES},
        protocol=ast.get_docstring(tree) or "",
    )


def load(name: str) -> Any:
    """The module of a study."""
    return importlib.import_module(statement(name).module)


def fixed_hash(source: str) -> str:
    """SHA-256 over the canonical JSON of what a study's source fixes: its constants, PAPER to SEEDS, and its arms.

    All names in capitals count but `FREE`; comments, layout and docstrings do not.
    """
    tree = ast.parse(source)
    fixed = {name: _literal(value) for name, value in _constants(tree).items() if name not in FREE}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "arms":
            fixed["arms"] = ast.unparse(ast.Module([part for part in node.body if not _is_docstring(part)], []))
    return _sha256(fixed)


def making_hash(source: str) -> str:
    """SHA-256 of what makes a study's tables: all of it but the functions that read them."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not set(_names(node)) & set(AFTERWARDS)]
    return _sha256(ast.unparse(tree))


class _Text(str):
    """Source of an expression that is no literal."""


def _names(node: ast.stmt) -> list[str]:
    """What a statement defines: a function, or names that it assigns."""
    return [node.name] if isinstance(node, ast.FunctionDef) else list(_assigned(node))


def _assigned(node: ast.stmt) -> dict[str, ast.expr]:
    """What a statement assigns by name; of `A, B = 1, 2` each its own, of `A, *B = f()` each the whole."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return {}
    target, value = node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        pairs = list(zip(target.elts, value.elts, strict=True))
    else:
        pairs = [(part, value) for part in ast.walk(target)]  # type: ignore[misc]
    return {name.id: of for name, of in pairs if isinstance(name, ast.Name)}


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    found = {name: value for node in tree.body for name, value in _assigned(node).items()}
    return {name: value for name, value in found.items() if name.isupper()}


def _literal(node: ast.expr) -> Any:
    """The value of literals, of `tuple(range(...))`, and of Paper's keywords; else the source."""
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Paper" and not node.args:
            return {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
        if isinstance(node, ast.Dict) and all(node.keys):
            values = {ast.literal_eval(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True) if k}
            return _Text(ast.unparse(node)) if any(isinstance(v, _Text) for v in values.values()) else values
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tuple", "range"):
            inner = [_literal(argument) for argument in node.args]
            if not node.keywords and not any(isinstance(value, _Text) for value in inner):
                return tuple(range(*inner)) if ast.unparse(node.func) == "range" else tuple(*inner)
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return _Text(ast.unparse(node))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
