"""The types that learners, oracles and feedback exchange: segments, queries and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Arrays = np.ndarray | dict[str, np.ndarray]
"""One array, or one a key of a Dict space."""


def map_arrays(function: Any, arrays: Arrays) -> Any:
    """Apply `function` to an array or to each array of a dict."""
    if isinstance(arrays, dict):
        return {key: function(value) for key, value in arrays.items()}
    return function(arrays)


@dataclass(frozen=True)
class Segments:
    """A batch of windows from a learner's own stream of experience. Holds no rewards and no factors.

    Windows shorter than T (an episode that ended early) are padded with zeros where `mask` is 0.
    """

    observations: Arrays
    """(n, T + 1, *obs) in the space's dtype; index t + 1 is the observation after step t."""
    actions: Arrays
    """(n, T, *act)."""
    mask: np.ndarray
    """(n, T) bool, True on steps that happened; a window's steps come first, its padding last."""
    terminated: np.ndarray
    """(n,) bool, the window's last step ended the episode."""
    truncated: np.ndarray
    """(n,) bool, the window's last step was the last before the episode was cut."""
    ids: np.ndarray
    """(n, 3) int64: stream, episode, index of the first step."""
    task: str = ""
    """Name of the task they come from."""

    def __post_init__(self) -> None:
        n, steps = self.mask.shape
        expected = {"ids": (n, 3), "terminated": (n,), "truncated": (n,)}
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"{name} has shape {got}, expected {shape} beside mask {self.mask.shape}.")
        for name, length in (("observations", steps + 1), ("actions", steps)):
            arrays = getattr(self, name)
            for array in arrays.values() if isinstance(arrays, dict) else (arrays,):
                if array.shape[:2] != (n, length):
                    raise ValueError(f"{name} has shape {array.shape}, expected ({n}, {length}, ...).")

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def steps(self) -> int:
        """T, the steps a window has room for."""
        return self.mask.shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, steps that happened in each window."""
        return self.mask.sum(1)

    def __getitem__(self, index: Any) -> Segments:
        """The windows that `index` (a slice, integers or a mask) selects."""
        return Segments(
            map_arrays(lambda a: a[index], self.observations),
            map_arrays(lambda a: a[index], self.actions),
            self.mask[index],
            self.terminated[index],
            self.truncated[index],
            self.ids[index],
            self.task,
        )

    def torch(self, device: torch.device | str = "cpu") -> TorchSegments:
        """The windows as tensors on `device`, in float32 (images and integers keep their dtype)."""
        import torch

        def convert(array: np.ndarray) -> torch.Tensor:
            tensor = torch.as_tensor(np.ascontiguousarray(array), device=device)
            return tensor.float() if tensor.dtype == torch.float64 else tensor

        return TorchSegments(
            map_arrays(convert, self.observations), map_arrays(convert, self.actions), convert(self.mask)
        )

    @staticmethod
    def of_step(
        observations: Arrays,
        actions: np.ndarray,
        next_observations: Arrays,
        terminated: np.ndarray,
        truncated: np.ndarray,
        ids: np.ndarray,
        task: str = "",
    ) -> Segments:
        """One step of E environments as E windows of one step: whole completions, where a step is one.

        Args:
            observations: (E, *obs) in which the actions were taken.
            actions: (E, *act).
            next_observations: (E, *obs) that followed, the terminal ones included.
            terminated: (E,) bool.
            truncated: (E,) bool.
            ids: (E, 3) the `info["segment_id"]` that came with `next_observations`.
            task: name of the task.
        """
        if isinstance(observations, dict):
            both: Arrays = {key: np.stack([observations[key], next_observations[key]], 1) for key in observations}
        else:
            both = np.stack([observations, next_observations], 1)  # type: ignore[list-item]
        begun = ids - np.array([0, 0, 1])
        mask = np.ones((len(begun), 1), bool)
        return Segments(both, actions[:, None], mask, terminated.copy(), truncated.copy(), begun, task)

    @staticmethod
    def concatenate(parts: list[Segments]) -> Segments:
        """One batch of all windows, in order. All parts have the same T.

        Raises:
            ValueError: if the parts differ in their number of steps, or there are none.
        """
        if len({part.steps for part in parts}) != 1:
            raise ValueError(f"expected parts with one number of steps, got {[part.steps for part in parts]}.")

        def join(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], dict):
                return {key: np.concatenate([value[key] for value in values]) for key in values[0]}
            return np.concatenate(values)

        names = ("observations", "actions", "mask", "terminated", "truncated", "ids")
        return Segments(**{name: join(name) for name in names}, task=parts[0].task)


@dataclass(frozen=True)
class TorchSegments:
    """What a reward model reads of segments: (n, T + 1, *obs), (n, T, *act) and (n, T) bool tensors."""

    observations: Any
    actions: Any
    mask: torch.Tensor

    def __getitem__(self, index: Any) -> TorchSegments:
        return TorchSegments(
            map_arrays(lambda a: a[index], self.observations),
            map_arrays(lambda a: a[index], self.actions),
            self.mask[index],
        )


class ShownContext(dict[str, np.ndarray]):
    """What an oracle is shown of a question's context, by key; says what to do about a key that it lacks."""

    def __missing__(self, key: str) -> np.ndarray:
        raise ValueError(
            f"the oracle reads {key!r} of the context, which names {', '.join(self) or 'nothing'}: a question must be "
            f"asked with context={{{key!r}: (n, ...)}}, and the oracle's class name it in reads. Units of scores are "
            f"measured without a context: where a teacher needs them, read context.get({key!r}) or pass calibration=."
        )


@dataclass(frozen=True)
class JudgedSegments:
    """Segments as an oracle sees them: the task's own observations and actions, true rewards and factors.

    Only oracles and metrics hold these; a learner never does. An oracle that says in `reads` which of the first four it
    needs gets the others empty, as (n, 0) or {}. Of a question's context it gets what `reads` names: with
    `reads = ("factors", "user")` factors, and in `context` whom each segment is shown to.
    """

    observations: Arrays
    """(n, T + 1, *obs) of the task itself, before any wrapper of the learner."""
    actions: Arrays
    """(n, T, *act) as the task received them."""
    rewards: np.ndarray
    """(n, T) float64 true reward a step; 0 on padding."""
    factors: dict[str, np.ndarray]
    """(n, T) float64 a factor, the most important first; 0 on padding."""
    mask: np.ndarray
    """(n, T) bool."""
    terminated: np.ndarray
    """(n,) bool, the last step ended the episode."""
    task: str = ""
    context: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(n, ...) of the question that each segment is shown in, by key; empty where none is asked, as when units are
    measured."""

    def __post_init__(self) -> None:
        """Make `context` one that names what it lacks."""
        object.__setattr__(self, "context", ShownContext(self.context))

    def __len__(self) -> int:
        return len(self.mask)

    def steps(self) -> tuple[Arrays, Arrays]:
        """Observations (n, T, *obs) in which the actions (n, T, *act) were taken."""
        return map_arrays(lambda a: a[:, :-1], self.observations), self.actions

    def ends(self) -> tuple[Arrays, Arrays]:
        """The first and the last observation of each window, (n, *obs) both, padding left out."""
        rows, last = np.arange(len(self.mask)), self.mask.sum(1)
        return (
            map_arrays(lambda a: a[:, 0], self.observations),
            map_arrays(lambda a: a[rows, last], self.observations),
        )


JUDGED = ("observations", "actions", "rewards", "factors")
"""Fields of `JudgedSegments` that an oracle may leave out of its `reads`: to fetch all may double a label's cost."""


CONTEXT = ("user", "criterion", "principle")
"""Keys of a query's context that change what is asked: a question to an oracle that does not read them is refused."""


@dataclass(frozen=True)
class Query:
    """n questions, each showing k segments together: which do you prefer?"""

    segments: Segments
    """n * k windows; question i shows windows i * k to i * k + k - 1."""
    k: int = 2
    context: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(n, ...) arrays that go with a question, such as the prompt of texts. A question with another context is another
    one to the store of answers. Oracles are shown of it what they read, and must read those of its keys that are in
    CONTEXT: `user`, who is asked, (n,) whole numbers that the label keeps; `criterion` or `principle`, what to judge
    by."""

    def __post_init__(self) -> None:
        if self.k < 1 or len(self.segments) % self.k:
            raise ValueError(f"{len(self.segments)} segments do not make queries of k={self.k} segments each.")
        for key, value in self.context.items():
            if len(value) != self.n:
                raise ValueError(f"context[{key!r}] has {len(value)} rows, expected one a query: n={self.n}.")

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.segments) // self.k

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Query:
        """The questions that `index` (a slice, integers or a mask) selects."""
        rows = np.atleast_1d(np.arange(self.n)[index])
        windows = (rows[:, None] * self.k + np.arange(self.k)).reshape(-1)
        return Query(self.segments[windows], self.k, {key: value[rows] for key, value in self.context.items()})

    @staticmethod
    def concatenate(parts: list[Query]) -> Query:
        """One query of all questions, in order.

        Raises:
            ValueError: if the parts differ in k or in the keys of their context, or there are none.
        """
        if len({part.k for part in parts}) != 1:
            raise ValueError(f"expected queries with one number of segments, got k={[part.k for part in parts]}.")
        if len({frozenset(part.context) for part in parts}) != 1:
            keys = [sorted(part.context) for part in parts]
            raise ValueError(f"expected queries with the same context, got {keys}. Give all parts the same keys.")
        context = {key: np.concatenate([part.context[key] for part in parts]) for key in parts[0].context}
        return Query(Segments.concatenate([part.segments for part in parts]), parts[0].k, context)


@dataclass(frozen=True)
class Label:
    """The answers given to n questions. The law they were drawn from is not part of it."""

    choice: np.ndarray
    """(n, k) float64: 1 for the preferred segment, equal shares on a tie, nan where the teacher skipped."""
    ranking: np.ndarray | None = None
    """(n, k) int64: place of each segment, 0 is best; -1 where skipped."""
    ratings: np.ndarray | None = None
    """(n, k) float64: a rating of each segment; nan where skipped."""
    strength: np.ndarray | None = None
    """(n,) float64: how strongly the answer was held; nan where skipped."""
    user: np.ndarray | None = None
    """(n,) int64: public id of who answered, or -1."""
    soft: bool = False
    """Whether `choice` holds probabilities, asked for by `answer="soft"`, in place of answers."""

    def __post_init__(self) -> None:
        if self.choice.ndim != 2:
            raise ValueError(
                f"label has shape {self.choice.shape}, expected (n, k). Turn winners into it with prefenvs.one_hot."
            )

    def __len__(self) -> int:
        return len(self.choice)

    @property
    def skipped(self) -> np.ndarray:
        """(n,) bool, where the teacher gave no answer."""
        return np.isnan(self.choice).any(1)

    @property
    def tied(self) -> np.ndarray:
        """(n,) bool, where more than one segment shares the preference."""
        return (self.choice > 0).sum(1) > 1

    def __getitem__(self, index: Any) -> Label:
        def pick(name: str) -> Any:
            value = getattr(self, name)
            return None if value is None else value[index]

        names = ("choice", "ranking", "ratings", "strength", "user")
        return Label(**{name: pick(name) for name in names}, soft=self.soft)

    @staticmethod
    def concatenate(parts: list[Label]) -> Label:
        """All answers, in order; optional kinds are kept where every part has them, users where any part has."""

        def join(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            if name == "user" and any(value is not None for value in values):
                pairs = zip(values, parts, strict=True)
                values = [np.full(len(part), -1) if value is None else value for value, part in pairs]
            return None if any(value is None for value in values) else np.concatenate(values)

        names = ("choice", "ranking", "ratings", "strength", "user")
        return Label(**{name: join(name) for name in names}, soft=any(part.soft for part in parts))


def one_hot(winners: np.ndarray, k: int = 2) -> np.ndarray:
    """(n,) indices of the preferred segments, -1 for a skip, as the (n, k) `choice` of a Label."""
    winners = np.asarray(winners)
    choice = (winners[:, None] == np.arange(k)).astype(np.float64)
    choice[winners < 0] = np.nan
    return choice
