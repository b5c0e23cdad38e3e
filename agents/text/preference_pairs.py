"""Pairs of completions of one prompt, one preferred to the other: asked of the teacher, or any that a user has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

import prefenvs
from prefenvs.agents.text.learner import TextLearner, check_language_model
from prefenvs.error import BudgetSpent
from prefenvs.queries import pairs_within, queries_to_ask
from prefenvs.segments import Label, Query
from prefenvs.tasks.text.language import Language, prompts_and_completions, shared_prompts

WITHOUT_BUDGET = 1000
"""Pairs that are asked about where neither the config nor a budget says how many."""


@dataclass(frozen=True, eq=False)
class PreferencePairs:
    """n pairs as direct alignment reads them. Whatever has no answer is not among them."""

    prompts: Tensor
    """(n, P) int64, left-padded."""
    chosen: Tensor
    """(n, T) int64, right-padded."""
    rejected: Tensor
    """(n, T) int64, right-padded."""
    weight: Tensor
    """(n,) float32: 1 for an answer; a tie is both ways round by 1/2 each, a probability by its share."""
    scores: Tensor | None = None
    """(n, 2) reward of the chosen and the rejected one, for losses that read them."""
    sampled: Tensor | None = None
    """(n, T) a third completion of the prompt, of the reference."""
    reference: Tensor | None = None
    """(n, 2 or 3) log-probability in nats of chosen, rejected and sampled under the reference."""

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Any) -> PreferencePairs:
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> PreferencePairs:
        """The same pairs on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, function: Callable[[Tensor], Tensor]) -> PreferencePairs:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if v is None else function(v) for name, v in values.items()}
        return PreferencePairs(**changed)

    @staticmethod
    def concatenate(parts: Sequence[PreferencePairs]) -> PreferencePairs:
        """All pairs, in order; the optional fields are kept where every part has them."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(PreferencePairs)}
        joined: dict[str, Any] = {
            name: None if any(value is None for value in values) else torch.cat(values)
            for name, values in columns.items()
        }
        return PreferencePairs(**joined)

    @staticmethod
    def of(query: Query, label: Label, language: Language) -> PreferencePairs:
        """What a teacher answered about pairs of completions.

        Args:
            query: n questions with k = 2, of a text task.
            label: the answers; skipped questions are left out.
            language: of the task.

        Raises:
            ValueError: for another k, and for completions of two prompts, or windows that begin at other places.
        """
        if query.k != 2:
            raise ValueError(f"query shows k={query.k} completions together, expected pairs: k=2.")
        prompts, tokens = prompts_and_completions(query.segments, language)
        width = language.prompt_tokens.shape[1]
        if (prompts[:, :-width] == language.pad).all():  # no window begins within a completion
            prompts = prompts[:, -width:]
        shared = shared_prompts(prompts, 2, language)
        both = torch.from_numpy(tokens).reshape(query.n, 2, -1)
        share = torch.as_tensor(label.choice, dtype=torch.float32)
        return PreferencePairs.weighted(torch.from_numpy(shared), both[:, 0], both[:, 1], share.nan_to_num(0.0))

    @staticmethod
    def weighted(prompts: Tensor, first: Tensor, second: Tensor, share: Tensor) -> PreferencePairs:
        """Pairs both ways round where both have a share.

        Args:
            prompts: (n, P).
            first: (n, T).
            second: (n, T).
            share: (n, 2) how much each is preferred; both 0 leaves the pair out.
        """
        ways = [(first, second, share[:, 0]), (second, first, share[:, 1])]
        rows = [torch.nonzero(weight > 0)[:, 0] for _, _, weight in ways]
        order = torch.cat(rows).argsort(stable=True)  # in the order of the questions, whichever way they went
        parts = [
            (prompts[row], chosen[row], rejected[row], weight[row])
            for (chosen, rejected, weight), row in zip(ways, rows, strict=True)
        ]
        return PreferencePairs(*(torch.cat(tensors)[order] for tensors in zip(*parts, strict=True)))


def ask_pairs(
    learner: TextLearner, queries: int | None, rng: torch.Generator, *, writer: Any = None
) -> tuple[Query, Label]:
    """Ask the teacher about pairs that one model writes; two equal completions are not worth a question.

    Args:
        learner: whose environments are used.
        queries: how many to ask, None for the whole budget or 1000 without one; a smaller budget wins.
        rng: of prompts and completions.
        writer: a LanguageModel; None for the learner's reference.

    Raises:
        BudgetSpent: if nothing may be asked.
        EvaluationOnly: at the evaluation door.
        TypeError: for a writer that is no LanguageModel.
        ValueError: for no queries, a writer with another end, padding or number of tokens than the task's language, and
            if the writer hardly ever writes two different completions of a prompt.
    """
    if queries is not None and queries < 1:
        raise ValueError(f"queries={queries}, expected 1 or more. Nothing was asked.")
    if writer is not None:
        check_language_model("writer", writer, learner.language)
    feedback = prefenvs.feedback(learner.envs)
    queries = queries_to_ask(queries, feedback.remaining, WITHOUT_BUDGET)
    if not queries:
        raise BudgetSpent(
            f"the budget of {feedback.budget} queries is spent, and there is nothing to learn from. "
            "Make the environments with a larger budget=."
        )
    name, writer = ("the reference", learner.reference) if writer is None else ("the writer", writer)
    parts: list[tuple[Query, Label]] = []
    asked = written = 0
    while asked < queries:
        rollout = learner.write(learner.draw_prompts(2, rng), writer, rng)
        pairs = pairs_within(np.arange(len(rollout.prompt_ids)) // 2)
        different = (rollout.tokens[pairs[:, 0]] != rollout.tokens[pairs[:, 1]]).any(1).cpu().numpy()
        pairs = pairs[different][: queries - asked]
        written += len(rollout.prompt_ids) // 2
        if written > 100 * queries and asked < written // 50:
            raise ValueError(f"{name} writes the same completions again and again: there are no pairs to ask about.")
        if len(pairs):
            query = Query(rollout.segments[pairs.ravel()], context={"prompt": rollout.prompt_ids[pairs[:, 0]]})
            parts.append((query, feedback.ask(query)))
            asked += len(pairs)
    return Query.concatenate([query for query, _ in parts]), Label.concatenate([label for _, label in parts])
