"""The one way to learn from the teacher."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from prefenvs.calibration import Calibration, measure, reference_set, utility_of, weighted_scores
from prefenvs.error import BudgetSpent, RunMismatch, SegmentForgotten
from prefenvs.labelling.described import changed, described, told
from prefenvs.labelling.random_stream import uniforms
from prefenvs.labelling.source import LocalSource, Source, find_source
from prefenvs.labelling.store import AnswerStore, payload_hashes
from prefenvs.making import changed_arguments
from prefenvs.oracles import make_oracle
from prefenvs.preference_env import FeedbackConfig
from prefenvs.segments import CONTEXT, JUDGED, JudgedSegments, Label, Query, Segments, map_arrays
from prefenvs.tasks import TASKS
from prefenvs.teacher import (
    Thresholds,
    answer_margins,
    answer_scores,
    draws_needed,
    make_teacher,
    no_answers,
    rate_scores,
)

CHUNK = 4096
"""Segments whose observations are fetched at a time: memory that is used again costs less than fresh memory."""
CHUNK_OF_REWARDS = 32_768
"""The same where neither observations nor actions are."""


class Feedback:
    """Asks the teacher of an environment, keeps the budget and the answers. Made by `prefenvs.feedback(env)`.

    Answer number i depends on the feedback seed, i and the segments shown, and on nothing else.
    """

    def __init__(self, source: Source, *, store: str | None = None, run: str | None = None) -> None:
        """Attach to the environments behind `source`; see `prefenvs.feedback`."""
        self._source = source
        replies = source.ask_all("attach", [(stream,) for stream in range(source.num_streams)])
        first = replies[0]
        self.config: FeedbackConfig = first["config"]
        if store is not None or run is not None:
            self.config = dataclasses.replace(self.config, store=store or self.config.store, run=run or self.config.run)
        self.task: str = first["task"]
        self._task_kwargs: dict[str, Any] | None = first["task_kwargs"]
        self.recorded_episodes: int = first["episodes"]
        known = None if self._task_kwargs is None else self.task  # a user's own may be called as one of the suite is
        self._oracle = make_oracle(self.config.oracle, known, self._task_kwargs)
        self._reads = vars(type(self._oracle)).get("reads", JUDGED)  # not inherited: a subclass may read more
        self._teacher = make_teacher(self.config.teacher)
        self._calibrations: dict[tuple[int, float], Calibration] = {}
        self._pending: list[tuple[np.ndarray, Label]] = []
        self._next = 0
        self._answered = 0
        self._closed = False
        kept = self.config.store is not None  # in memory nobody else is served
        settings = self._settings() if kept else {}
        self._store = AnswerStore(self.config.store, self.config.run, settings, self._changed)

    def _settings(self) -> dict[str, Any]:
        """What decides the answers, for the store to compare.

        Raises:
            TypeError: if the settings of the oracle or the task cannot be told.
        """
        other = changed_arguments(TASKS[self.task], self._task_kwargs) if self._task_kwargs else {}
        return {
            "task": self.task,
            **{name: told(value, name) for name, value in self._told().items()},
            "answer": self.config.answer,
            "feedback_seed": self.config.feedback_seed,
            **({"task_kwargs": described(other, "task_kwargs")} if other else {}),
        }

    def _told(self) -> dict[str, Any]:
        """Settings whose fields the store compares one by one."""
        own = self.config.calibration
        return {"oracle": self._oracle, "teacher": self._teacher} | ({} if own is None else {"calibration": own})

    def _changed(self, kept: Mapping[str, Any]) -> str | None:
        """What is not as the store kept it; None where all is."""
        parts, now = self._told(), self._settings()
        kept = {name: value for name, value in kept.items() if value is not None}  # earlier versions kept no units so
        for name in sorted(kept.keys() | now.keys()):
            if name in kept and name in parts:
                was = kept[name]
                if name != "oracle" and "kind" in was:  # of teacher and units the fields alone are read
                    was = {**was, "kind": type(parts[name]).__name__}
                found = changed(was, parts[name], name)
            else:
                was, given = (settings.get(name, "none") for settings in (kept, now))
                found = None if was == given else f"{name} = {was}, now it is {given}"
            if found is not None:
                return found
        return None

    @property
    def num_streams(self) -> int:
        """Environments that are asked about."""
        return self._source.num_streams

    @property
    def budget(self) -> int | None:
        """Queries that may be asked in all; None for no limit."""
        return self.config.budget

    @property
    def asked(self) -> int:
        """Queries asked so far, skipped ones included."""
        return self._next

    @property
    def answered(self) -> int:
        """Queries that got an answer."""
        return self._answered

    @property
    def remaining(self) -> float:
        """Queries that may still be asked; infinity without a budget."""
        return math.inf if self.config.budget is None else self.config.budget - self._next

    def submit(self, query: Query) -> np.ndarray:
        """Ask n questions without waiting for the answers.

        Returns:
            (n,) int64 tickets: the numbers of the questions in this run.

        Raises:
            BudgetSpent: if fewer than n queries are left; none was asked.
            SegmentForgotten: if a segment is no longer recorded; none was asked.
            RunMismatch: if the store holds answers to other questions, or to nobody where these name a user.
            ValueError: after `close`, if open questions show another number of segments, if the context names what the
                oracle does not read, or if a segment is of another task or has no finite score; none was asked.
        """
        if self._closed:
            raise ValueError("this feedback was closed. Make the environment anew to ask again; nothing was asked.")
        self._check_context(query)
        if query.n > self.remaining:
            raise BudgetSpent(
                f"asked for {query.n} labels, {int(self.remaining)} of {self.config.budget} are left. "
                "Ask for fewer, or make the env with a larger budget=. No label was recorded."
            )
        open_k = {label.choice.shape[1] for _, label in self._pending if len(label)}
        if query.n and open_k - {query.k}:
            raise ValueError(
                f"k={query.k}, but open questions show k={open_k.pop()} segments, and collect() "
                "gives one label of all. Call collect() first. Nothing was asked."
            )
        numbers = np.arange(self._next, self._next + query.n)
        if query.n:
            payloads = payload_hashes(query)
            parts = self._store.find(self._next, payloads, soft=self.config.answer == "soft")
            if "user" in query.context and any(part.user is None for part in parts.values()):
                raise RunMismatch(
                    f"run {self._store.run!r} in {self._store.path} holds answers that name no user, given when "
                    "oracles did not read whom they answer for. Use another run= or store=. Nothing was asked."
                )
            stops = [start + len(part) for start, part in parts.items()]
            new = [slice(a, b) for a, b in zip([0, *stops], [*parts, query.n], strict=True) if a < b]
            if new:
                given = self._answer(query, numbers)
                parts |= {at.start: given[at] for at in new}
                self._store.add({self._next + at.start: (payloads[at], given[at]) for at in new})
            label = Label.concatenate([parts[start] for start in sorted(parts)])
        else:
            label = no_answers(query.k, self.config.answer)
        self._pending.append((numbers, label))
        self._answered += int((~label.skipped).sum())
        self._next += query.n
        return numbers

    def collect(self, *, wait: bool = True) -> tuple[np.ndarray, Label]:
        """Answers to submitted questions that are there, in the order they were asked.

        Simulated teachers answer at once, so `wait` changes nothing for them.

        Returns:
            (n,) tickets and their Label.

        Raises:
            ValueError: if nothing was submitted.
        """
        if not self._pending:
            raise ValueError("no question is open. Call submit(query) first.")
        answered = [part for part in self._pending if len(part[1])] or self._pending[-1:]
        numbers, labels = zip(*answered, strict=True)
        collected = np.concatenate(numbers), Label.concatenate(list(labels))
        self._pending = []
        return collected

    def ask(self, query: Query) -> Label:
        """Ask n questions and wait for the answers. They are in the store when this returns.

        Raises:
            BudgetSpent: if fewer than n queries are left; none was asked.
            SegmentForgotten: if a segment is no longer recorded; none was asked.
        """
        earlier, self._pending = self._pending, []
        try:
            self.submit(query)
            return self.collect()[1]
        finally:
            self._pending = earlier

    def _check_context(self, query: Query) -> None:
        """Refuse what would change the answer if the oracle read it, and ids of users that a label cannot hold."""
        if ignored := [key for key in CONTEXT if key in query.context and key not in self._reads]:
            reads = (*self._reads, *ignored)
            raise ValueError(
                f"the context names {', '.join(ignored)}, which {type(self._oracle).__name__} does not read: it would "
                f"answer as it does without. Leave that out, or ask an oracle that reads it: with reads = {reads!r} in "
                f"its class it is in segments.context[{ignored[0]!r}]. Nothing was asked."
            )
        user = np.asarray(query.context.get("user", np.zeros(query.n, np.int64)))
        if user.shape != (query.n,) or user.dtype.kind not in "iu":
            raise ValueError(
                f"context['user'] is {user.dtype} of shape {user.shape}, expected whole numbers (n,) = ({query.n},): a "
                "user's public id for each question. Nothing was asked."
            )

    def _answer(self, query: Query, numbers: np.ndarray) -> Label:
        label = self._chosen(query, numbers)
        user = query.context.get("user")
        return label if user is None else dataclasses.replace(label, user=np.array(user, np.int64))

    def _chosen(self, query: Query, numbers: np.ndarray) -> Label:
        segments, k = query.segments, query.k
        context = {key: np.repeat(query.context[key], k, 0) for key in query.context if key in self._reads}
        oracle = self._oracle
        if hasattr(oracle, "calibrated") and getattr(oracle, "units", None) is None:
            oracle = oracle.calibrated(self._calibration(segments.steps))
        draws = draws_needed(k) + k * (k - 1) // 2
        random = uniforms(self.config.feedback_seed, numbers, draws)
        if not hasattr(oracle, "utility"):
            margins = _margins(oracle, self._judge(segments, self._reads, context), k)
            return answer_margins(self._teacher, margins, random, self.config.answer)
        scores = self._scores(oracle, segments, context)
        _check_finite(scores[0], segments)
        plain, weighted = (part.reshape(-1, k) for part in scores)
        calibration = self._calibration(segments.steps) if self._teacher.needs_unit else Calibration()
        recent = self._recent_returns() if self._teacher.scale == "raw" else (0.0, 0.0)
        thresholds = Thresholds.of(self._teacher, calibration, segments.steps, recent)
        if self.config.answer == "rating":
            skipped = plain.max(1) <= thresholds.skip_below
            remembered = self._calibration(segments.steps, self._teacher.myopia)
            return rate_scores(self._teacher, remembered, weighted, random[:, : draws_needed(k)], skipped)
        return answer_scores(
            self._teacher, thresholds, plain, weighted, random[:, : draws_needed(k)], self.config.answer
        )

    def _calibration(self, steps: int, myopia: float = 1.0) -> Calibration:
        """The units of scores, plain or (for ratings) weighted as the teacher remembers them."""
        own = self.config.calibration
        if own is not None:
            if own.steps not in (0, steps):
                raise ValueError(
                    f"calibration was measured with segments of {own.steps} steps, these have {steps}, and units "
                    f"depend on that. Measure with prefenvs.calibrate(..., segment_steps={steps}). Nothing was asked."
                )
            if self.config.answer == "rating" and own.myopia != self._teacher.myopia:
                raise ValueError(
                    f"calibration was measured with myopia={own.myopia}, the teacher who rates has "
                    f"myopia={self._teacher.myopia}. Measure it with prefenvs.calibrate(..., myopia=...)."
                )
            return own
        if self._task_kwargs is None:
            raise ValueError(
                f"the teacher or oracle needs units for {self.task!r}, an environment of your own. "
                "Pass calibration=prefenvs.calibrate(my_env, segment_steps=...) to prefenvs.wrap."
            )
        if (steps, myopia) not in self._calibrations:
            reference = reference_set(self.task, steps, task_kwargs=self._task_kwargs)
            self._calibrations[steps, myopia] = measure(self._oracle, reference, myopia)
        return self._calibrations[steps, myopia]

    def _recent_returns(self) -> tuple[float, float]:
        means = np.array(self._source.ask_all("recent_returns", [()] * self.num_streams))
        seen = means[means[:, 1] > 0]
        return (float(seen[:, 0].mean()), float(seen[:, 1].mean())) if len(seen) else (0.0, 0.0)

    def _scores(self, oracle: Any, segments: Segments, context: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(n,) scores by a utility, plain and as the teacher remembers them, from CHUNK segments at a time."""
        parts = []
        chunk = CHUNK if {"observations", "actions"} & {*self._reads} else CHUNK_OF_REWARDS
        for start in range(0, len(segments), chunk):
            part = slice(start, start + chunk)
            judged = self._judge(segments[part], self._reads, {key: rows[part] for key, rows in context.items()})
            parts.append(weighted_scores(utility_of(oracle, judged), judged.mask, self._teacher.myopia))
        plain, weighted = zip(*parts, strict=True)
        return np.concatenate(plain), np.concatenate(weighted)

    def _judge(
        self, segments: Segments, reads: Collection[str] = JUDGED, context: Mapping[str, np.ndarray] | None = None
    ) -> JudgedSegments:
        """What `reads` names of segments, fetched from the recorders, with the context (n, ...) they are shown in."""
        streams = self._streams(segments)
        rows = [np.flatnonzero(streams == stream) for stream in range(self.num_streams)]
        ids, lengths = segments.ids, segments.lengths
        requests = [(ids[at, 1], ids[at, 2], lengths[at], segments.steps, reads) if len(at) else None for at in rows]
        replies = self._source.ask_all("judge", requests)
        parts = [(at, reply) for at, reply in zip(rows, replies, strict=True) if reply is not None]

        def join(values: list[Any]) -> Any:
            if isinstance(values[0], dict):
                return {key: join([value[key] for value in values]) for key in values[0]}
            if len(values) == 1:  # its rows are all rows, in order
                return values[0]
            whole = np.empty((len(segments), *values[0].shape[1:]), values[0].dtype)
            for (at, _), value in zip(parts, values, strict=True):
                whole[at] = value
            return whole

        names = parts[0][1]
        fetched = {name: join([reply[name] for _, reply in parts]) for name in names}
        return JudgedSegments(**fetched, task=self.task, context=context or {})

    def _streams(self, segments: Segments) -> np.ndarray:
        """(n,) index of the environment that each segment comes from; refuses those of another task."""
        names = {"", self.task, TASKS[self.task].id if self.task in TASKS else self.task}
        if segments.task not in names:
            raise ValueError(
                f"segments are of task {segments.task!r}, this feedback is of {self.task!r}, which may have recorded "
                "other steps under their ids. Ask the feedback of their own environment; one SegmentStore keeps the "
                "steps of one task, whose name its task= is. Nothing was spent."
            )
        streams = segments.ids[:, 0].copy()
        if self.num_streams == 1:
            streams[streams == -1] = 0  # steps taken before the feedback was made
        unknown = (streams < 0) | (streams >= self.num_streams)
        if unknown.any():
            raise SegmentForgotten(
                f"segments name stream {streams[unknown][0]}, streams are 0 to {self.num_streams - 1}. "
                "Call prefenvs.feedback(env) before the first reset. Nothing was spent."
            )
        return streams

    def close(self) -> None:
        """Close the store of answers; asking again raises ValueError."""
        self._closed = True
        self._store.close()

    def state(self) -> dict[str, np.ndarray]:
        """What a resumed run needs: counters and recordings, as named arrays. Holds true rewards: not for learners."""
        state = {"next": np.array(self._next), "answered": np.array(self._answered)}
        for stream, recorded in enumerate(self._source.ask_all("state", [()] * self.num_streams)):
            state |= {f"{stream}/{name}": array for name, array in recorded.items()}
        return state

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `state` gave. Questions asked after it are served from the store when they are asked again."""
        parts = [
            {name.removeprefix(f"{s}/"): array for name, array in state.items() if name.startswith(f"{s}/")}
            for s in range(self.num_streams)
        ]
        self._source.ask_all("load_state", [(part,) for part in parts])
        self._next, self._answered = int(state["next"]), int(state["answered"])
        self._pending = []


def feedback(env: Any, *, store: str | None = None, run: str | None = None) -> Feedback:
    """The feedback of an environment: one object, one budget and one store, whatever layers `env` is reached through.

    Args:
        env: a preference environment, wrapped or not, a Gymnasium VectorEnv of them or an SB3 VecEnv of them. For more
            than one, call this before the first reset.
        store: SQLite file for the answers, in place of the one the environment was made with. First call only.
        run: name of the run within the store. First call only.

    Raises:
        TypeError: if there is no preference environment inside.
        EvaluationOnly: if it was made with evaluation=True.
        ValueError: if the environments already belong to another feedback, or store comes too late.
    """
    source = find_source(env)
    known = getattr(source.base, "_feedback", None)
    if known is None:
        members = source.envs if isinstance(source, LocalSource) else []
        if any(getattr(member, "_feedback", None) is not None for member in members):
            raise ValueError(
                "some of these environments already belong to another feedback, with a budget of its own. "
                "Call prefenvs.feedback on the whole batch first."
            )
        known = Feedback(source, store=store, run=run)
        for owner in (source.base, *members):
            owner._feedback = known
    elif (store, run) != (None, None) and (store or known.config.store, run or known.config.run) != (
        known.config.store,
        known.config.run,
    ):
        raise ValueError(f"feedback of this environment already writes to {known.config.store}; store= comes too late.")
    return known


def true_scores(env: Any, segments: Segments) -> np.ndarray:
    """(n,) true return of each segment, in units of reward. For metrics only; spends no budget.

    Raises:
        SegmentForgotten: if a segment is no longer recorded.
    """
    judged = feedback(env)._judge(segments, ("rewards",))
    return (judged.rewards * judged.mask).sum(1)


def render(env: Any, segments: Segments, *, every: int = 1) -> list[np.ndarray]:
    """Draw segments by restoring the recorded states and replaying the actions; the environment continues unharmed.

    Args:
        env: what `prefenvs.feedback` takes, made with render_mode="rgb_array".
        segments: n segments that are still recorded.
        every: draw every so many steps.

    Returns:
        n arrays (frames, H, W, 3) uint8.

    Raises:
        SegmentForgotten: if an episode is no longer recorded.
        ValueError: if the environment cannot draw or cannot restore states.
    """
    asked = feedback(env)
    source, streams = asked._source, asked._streams(segments).tolist()
    clips = []
    for stream, (_, episode, first), length in zip(
        streams, segments.ids.tolist(), segments.lengths.tolist(), strict=True
    ):
        steps = list(range(first, first + length, every))
        requests: list[tuple[Any, ...] | None] = [None] * source.num_streams
        requests[stream] = (episode, steps)
        clips.append(np.stack(source.ask_all("render", requests)[stream]))
    return clips


def _check_finite(scores: np.ndarray, segments: Segments) -> None:
    """Refuse (n,) scores that are nan or infinite: comparisons with nan are False, which would pass for an answer."""
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        stream, episode, first = segments.ids[bad[0]].tolist()
        raise ValueError(
            f"{len(bad)} of {len(scores)} segments have no finite score. The first is {scores[bad[0]]}, of steps "
            f"{first} to {first + int(segments.lengths[bad[0]]) - 1} in episode {episode} of stream {stream}: the true "
            "reward or the oracle gave nan or infinity there. Mend that, or leave such segments out; nothing was asked."
        )


def _margins(oracle: Any, judged: JudgedSegments, k: int) -> np.ndarray:
    """(n, k, k) margins of all pairs, from one call of the comparing oracle."""
    n = len(judged) // k
    first, second = np.triu_indices(k, 1)
    rows = np.arange(n)[:, None] * k
    margins = np.zeros((n, k, k))
    pairs = np.asarray(oracle.compare(_pick(judged, (rows + first).ravel()), _pick(judged, (rows + second).ravel())))
    if pairs.shape != (n * len(first),):
        raise ValueError(
            f"{type(oracle).__name__}.compare gave shape {pairs.shape}, expected a margin a pair, (n,) = "
            f"({n * len(first)},). Nothing was asked."
        )
    margins[:, first, second] = pairs.reshape(n, -1)
    margins[:, second, first] = -pairs.reshape(n, -1)
    return margins


def _pick(judged: JudgedSegments, rows: np.ndarray) -> JudgedSegments:
    return JudgedSegments(
        map_arrays(lambda a: a[rows], judged.observations),
        map_arrays(lambda a: a[rows], judged.actions),
        judged.rewards[rows],
        {name: values[rows] for name, values in judged.factors.items()},
        judged.mask[rows],
        judged.terminated[rows],
        judged.task,
        {key: values[rows] for key, values in judged.context.items()},
    )
