"""Text generation: language tasks with a true reward that is a program, small enough to train on here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prefenvs.tasks.task import Score, TaskSpec

if TYPE_CHECKING:
    from prefenvs.tasks.text.language import Language


def _text(
    name: str,
    module: str,
    horizon: int,
    factors: tuple[str, ...],
    random: tuple[float, float],
    reference: float,
    source: str = "",
    **rest: Any,
) -> TaskSpec:
    """A line of the registry; `random` is mean and deviation of random tokens, `reference` the mean of good answers."""
    measured = "python -m prefenvs.tasks.text.scores"
    return TaskSpec(
        name,
        f"prefenvs.tasks.text.{module}:{name}",
        factors,
        horizon,
        kwargs={"view": "token"},
        time_limit=False,
        random_score=Score(*random, measured),
        reference_score=Score(reference, None, f"{source or 'written by the task itself'}: {measured}"),
        batched="prefenvs.tasks.text.batched:BatchedText",
        **rest,
    )


_EXACT: dict[str, Any] = {
    "source": "exact, the best completion of each prompt",
    "has_success": True,
    "exact_values": True,
}

TEXT_TASKS: tuple[TaskSpec, ...] = (
    _text("TextBandit", "enumerable", 1, ("topic", "style"), (-0.1198, 1.1981), 2.3407, **_EXACT),
    _text("TextEnum", "enumerable", 4, ("bigrams", "finished"), (0.7055, 1.3689), 3.9642, **_EXACT),
)
"""The text tasks. Importing this imports neither torch nor transformers."""


def language_of(source: Any) -> Language:
    """The language of a text task: its words, prompts and demonstrations.

    Args:
        source: name or id of a text task, the task, an environment or a batch of it, or a Language.

    Raises:
        ValueError: for an unknown name.
        TypeError: if it is no text task.
    """
    from prefenvs.tasks.text.language import Language

    if isinstance(source, Language):
        return source
    if isinstance(source, str):
        specs = {spec.name: spec for spec in TEXT_TASKS}
        name = source.removeprefix("prefenvs/").split("-v")[0]
        if name not in specs:
            raise ValueError(f"{source!r} is not a text task. Expected one of: {', '.join(sorted(specs))}.")
        module, _, entry = specs[name].entry_point.partition(":")
        source = getattr(importlib.import_module(module), entry)(**specs[name].kwargs)
    language = getattr(source, "metadata", {}).get("language")
    if language is None:
        raise TypeError(f"{source!r} is not a text task and has no language.")
    return language
