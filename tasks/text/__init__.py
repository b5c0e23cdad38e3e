"""Text generation: language tasks with a true reward that is a program, small enough to train on here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefenvs.tasks.task import Score, TaskSpec

if TYPE_CHECKING:
    from prefenvs.tasks.text.language import Language


_BATCHED = "prefenvs.tasks.text.batched:BatchedText"


def text_spec(
    name: str,
    entry_point: str,
    horizon: int,
    factors: tuple[str, ...],
    *,
    settings: Mapping[str, Any] | None = None,
    has_success: bool = False,
    **rest: Any,
) -> TaskSpec:
    """What is known of a `TextTask` without importing it, for `prefenvs.register`.

    Args:
        name: CamelCase; the id is `prefenvs/<name>-v0`.
        entry_point: "module:Class".
        horizon: its `language.max_new_tokens`.
        factors: its `factor_names`.
        settings: further arguments of the class that `gym.make` takes, and their values by default.
        has_success: as of the class.
        **rest: further fields of TaskSpec.
    """
    kwargs = {"view": "token", **(settings or {})}
    return TaskSpec(
        name, entry_point, factors, horizon, kwargs, has_success, time_limit=False, batched=_BATCHED, **rest
    )


def _text(
    name: str,
    module: str,
    horizon: int,
    factors: tuple[str, ...],
    random: tuple[float, float],
    reference: float,
    *,
    source: str = "written by the task itself",
    has_success: bool = True,
    **rest: Any,
) -> TaskSpec:
    """A line of the registry; `random` is mean and deviation of random tokens, `reference` the mean of good answers."""
    measured = "python -m prefenvs.tasks.text.scores"
    return text_spec(
        name,
        f"prefenvs.tasks.text.{module}:{name}",
        horizon,
        factors,
        has_success=has_success,
        random_score=Score(*random, measured),
        reference_score=Score(reference, None, f"{source}: {measured}"),
        **rest,
    )


_EXACT: dict[str, Any] = {
    "source": "exact, the best completion of each prompt",
    "exact_values": True,
}

_OWN: dict[str, Any] = {
    "prompts": None,
    "scorer": "prefenvs.tasks.text.own:share_of_letters",
    "tokenizer": None,
    "max_new_tokens": 6,
    "demonstrations": None,
    "test_prompts": 0,
}
_DIALOGUE = ("harmless", "helpful", "follow_up", "repetition")

TEXT_TASKS: tuple[TaskSpec, ...] = (
    _text("TextArithmetic", "arithmetic", 16, ("answer", "steps", "length"), (-0.1144, 0.2224), 1.5000),
    _text("TextBandit", "enumerable", 1, ("topic", "style"), (-0.1198, 1.1981), 2.3407, **_EXACT),
    _text("TextDialogue", "dialogue", 12, _DIALOGUE, (-2.6100, 1.7763), 1.4528),
    _text("TextEnum", "enumerable", 4, ("bigrams", "finished"), (0.5645, 1.3374), 3.7387, **_EXACT),
    _text("TextInstruct", "instruct", 10, ("start", "include", "avoid", "words"), (0.2878, 0.2133), 1.0000),
    _text("TextKeyword", "keyword", 14, ("keywords", "fluency", "repetition", "length"), (-1.3240, 0.9296), 2.0000),
    _text("TextLength", "enumerable", 5, ("content", "flow"), (-0.0039, 1.0453), 1.3435, **_EXACT),
    _text("TextOwn", "own", 6, ("score",), (0.2707, 0.1916), 1.0000, settings=_OWN, has_success=False),
    _text("TextProgram", "program", 9, ("hidden", "shown", "runs", "length"), (-0.2647, 0.0519), 1.9758),
    _text("TextRetrieval", "retrieval", 4, ("answer", "citation", "abstention", "form"), (-0.4318, 0.5454), 1.5000),
    _text("TextSentiment", "sentiment", 14, ("sentiment", "fluency", "repetition"), (-1.8822, 1.5311), 1.9791),
    _text("TextSummary", "summary", 13, ("coverage", "unfaithful", "redundancy", "form"), (-0.7571, 0.6368), 2.0000),
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
        from prefenvs.tasks import TASKS

        specs = {name: spec for name, spec in TASKS.items() if spec.batched == _BATCHED}
        name = source.removeprefix("prefenvs/").split("-v")[0]
        if name not in specs:
            raise ValueError(f"{source!r} is not a text task. Expected one of: {', '.join(sorted(specs))}.")
        module, _, entry = specs[name].entry_point.partition(":")
        source = getattr(importlib.import_module(module), entry)(**specs[name].kwargs)
    language = getattr(source, "metadata", {}).get("language")
    if language is None:
        raise TypeError(f"{source!r} is not a text task and has no language.")
    return language
