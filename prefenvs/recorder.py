"""What the environment remembers for the oracle: true rewards, factors and states. A learner never sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefenvs.error import SegmentForgotten
from prefenvs.segments import JUDGED, Arrays
from prefenvs.tasks.task import State

SNAPSHOT_EVERY = 50
"""Steps between the states that are kept of an episode."""


@dataclass
class _Episode:
    """One episode, as lists that grow a step at a time or arrays that grow by several."""

    observations: Any = field(default_factory=list)
    actions: Any = field(default_factory=list)
    rewards: Any = field(default_factory=list)
    factors: Any = field(default_factory=list)
    terminated: bool = False
    states: dict[int, State] = field(default_factory=dict)

    def pack(self) -> None:
        """Turn lists into arrays, once no more steps are to come; dicts of observations stay as they are."""
        for name in ("observations", "actions", "rewards", "factors"):
            values = getattr(self, name)
            if not isinstance(values[0], dict):
                setattr(self, name, np.asarray(values))


class Recorder:
    """The last episodes of one stream, as the oracle needs them.

    An episode's observation t is followed by action t, reward t and observation t + 1. Snapshots of the task are kept
    at the reset and every `snapshot_every` steps, so that any step can be restored by replaying at most that many.
    """

    def __init__(
        self, factor_names: tuple[str, ...], episodes: int = 100, snapshot_every: int = SNAPSHOT_EVERY
    ) -> None:
        self.factor_names, self.snapshot_every, self.capacity = factor_names, snapshot_every, episodes
        self.episode = -1
        """Number of the present episode; -1 before the first reset."""
        self._episodes: dict[int, _Episode] = {}
        self._recent_returns: deque[tuple[float, int]] = deque(maxlen=10)

    @property
    def step(self) -> int:
        """Steps taken in the present episode."""
        return len(self._episodes[self.episode].rewards)

    def reset(self, observation: Any) -> None:
        """Begin an episode; the oldest one beyond the capacity is forgotten."""
        if self.episode >= 0 and self.step:
            ended = self._episodes[self.episode]
            self._recent_returns.append((float(np.sum(ended.rewards)), len(ended.rewards)))
            ended.pack()
        self.episode += 1
        self._episodes[self.episode] = _Episode(observations=[_copy(observation)])
        self._episodes.pop(self.episode - self.capacity - 1, None)

    def add(
        self, action: Any, observation: Any, reward: float, factors: tuple[float, ...], *, terminated: bool
    ) -> None:
        """Record a step and the task's own observation after it."""
        episode = self._episodes[self.episode]
        episode.actions.append(_copy(action))
        episode.observations.append(_copy(observation))
        episode.rewards.append(reward)
        episode.factors.append(factors)
        episode.terminated = terminated

    def extend(
        self,
        actions: np.ndarray,
        observations: Arrays,
        rewards: np.ndarray,
        factors: np.ndarray,
        *,
        terminated: bool,
    ) -> None:
        """Record several steps, as arrays (steps, ...) that it copies; only the last may have terminated."""
        episode = self._episodes[self.episode]
        episode.actions = _append(episode.actions, actions)
        if isinstance(observations, dict):
            episode.observations += [
                {key: values[step].copy() for key, values in observations.items()} for step in range(len(rewards))
            ]
        else:
            episode.observations = _append(episode.observations, observations)
        episode.rewards = _append(episode.rewards, rewards)
        episode.factors = _append(episode.factors, factors)
        episode.terminated = terminated

    def wants_snapshot(self) -> bool:
        """Whether the present step is one at which the task's state is kept."""
        return self.step % self.snapshot_every == 0

    def add_snapshot(self, state: State, step: int | None = None) -> None:
        """Keep the task's state at the present step, or at `step` where that is known to be the present one."""
        self._episodes[self.episode].states[self.step if step is None else step] = state

    def recent_returns(self) -> tuple[float, float]:
        """Mean true return and mean number of steps of the last ten finished episodes; zeros before the first."""
        if not self._recent_returns:
            return 0.0, 0.0
        returns, steps = np.mean(self._recent_returns, axis=0)
        return float(returns), float(steps)

    def judge(
        self,
        episodes: np.ndarray,
        first: np.ndarray,
        lengths: np.ndarray,
        steps: int,
        reads: Collection[str] = JUDGED,
    ) -> dict[str, Any]:
        """Gather windows as the fields of `JudgedSegments`.

        Args:
            episodes: (n,) episode numbers.
            first: (n,) index of the first step.
            lengths: (n,) steps that happened; the rest is padding.
            steps: T.
            reads: fields of `JudgedSegments` to fill; those of JUDGED that are not among them stay empty.

        Raises:
            SegmentForgotten: if an episode is gone or a window reaches past its end.
        """
        numbers, position = np.unique(episodes, return_inverse=True)
        for number in numbers:
            if int(number) not in self._episodes:
                raise SegmentForgotten(
                    f"episode {number} is no longer recorded: the last {self.capacity} are kept, now {self.episode}. "
                    "Query newer segments or make the env with a larger recorded_episodes=. Nothing was spent."
                )
        held = [self._episodes[int(number)] for number in numbers]
        sizes = np.array([len(episode.rewards) for episode in held])
        if ((first < 0) | (first + lengths > sizes[position])).any():
            worst = int(np.argmax(first + lengths - sizes[position]))
            raise SegmentForgotten(
                f"steps {first[worst]} to {first[worst] + lengths[worst] - 1} of episode {episodes[worst]} were never "
                f"recorded: it has {sizes[position][worst]} steps. Nothing was spent."
            )
        mask = np.arange(steps) < lengths[:, None]
        step_at = np.where(mask, (np.cumsum(sizes) - sizes)[position][:, None] + first[:, None] + np.arange(steps), 0)

        def gather(parts: list[Any], at: np.ndarray, valid: np.ndarray) -> np.ndarray:
            window = np.concatenate([np.asarray(part) for part in parts if len(part)])[at]
            window[~valid] = 0
            return window

        def gather_space(parts: list[list[Any]], at: np.ndarray, valid: np.ndarray) -> Arrays:
            first_value = parts[0][0]
            if isinstance(first_value, dict):
                return {key: gather([[v[key] for v in part] for part in parts], at, valid) for key in first_value}
            return gather(parts, at, valid)

        empty = np.zeros((len(mask), 0))
        judged: dict[str, Any] = {"observations": empty, "actions": empty, "rewards": empty, "factors": {}}
        judged["mask"] = mask
        judged["terminated"] = np.array([e.terminated for e in held])[position] & (first + lengths == sizes[position])
        if "observations" in reads:
            wide = np.arange(steps + 1) <= lengths[:, None]
            begin = (np.cumsum(sizes + 1) - sizes - 1)[position][:, None] + first[:, None]
            at = np.where(wide, begin + np.arange(steps + 1), 0)
            judged["observations"] = gather_space([episode.observations for episode in held], at, wide)
        if "actions" in reads:
            judged["actions"] = gather_space([episode.actions for episode in held], step_at, mask)
        if "rewards" in reads:
            judged["rewards"] = gather([episode.rewards for episode in held], step_at, mask).astype(np.float64)
        if "factors" in reads:
            factors = gather([episode.factors for episode in held], step_at, mask).astype(np.float64)
            judged["factors"] = {name: factors[..., i] for i, name in enumerate(self.factor_names)}
        return judged

    def replay_from(self, episode: int, step: int) -> tuple[State, list[Any], int]:
        """The newest snapshot at or before a step, all later actions of the episode, and the snapshot's step.

        Raises:
            SegmentForgotten: if the episode is gone or the task keeps no snapshots.
        """
        if episode not in self._episodes or not self._episodes[episode].states:
            raise SegmentForgotten(f"no state of episode {episode} is kept, so its steps cannot be drawn.")
        held = self._episodes[episode]
        at = max(key for key in held.states if key <= step)
        return held.states[at], list(held.actions[at:]), at

    def state(self) -> dict[str, np.ndarray]:
        """Everything recorded, as named arrays, for the oracle's side of a checkpoint."""
        state: dict[str, np.ndarray] = {
            "episode": np.array(self.episode),
            "recent_returns": np.array(self._recent_returns, np.float64).reshape(-1, 2),
            "numbers": np.array(list(self._episodes), np.int64),
            "sizes": np.array([len(episode.rewards) for episode in self._episodes.values()], np.int64),
            "terminated": np.array([episode.terminated for episode in self._episodes.values()], bool),
        }
        held = list(self._episodes.values())
        for name in ("observations", "actions", "rewards", "factors"):
            parts = [part for part in (getattr(episode, name) for episode in held) if len(part)]
            if parts and isinstance(parts[0][0], dict):
                state |= {f"{name}/{key}": np.array([v[key] for part in parts for v in part]) for key in parts[0][0]}
            elif parts:
                state[name] = np.concatenate([np.asarray(part) for part in parts])
        snapshots = [(n, at, s) for n, e in self._episodes.items() for at, s in e.states.items()]
        state["snapshots"] = np.array([(number, at) for number, at, _ in snapshots], np.int64).reshape(-1, 2)
        if snapshots:
            for key in snapshots[0][2]:  # an array may be empty at a reset, so they are kept flat beside their shapes
                arrays = [snapshot[key] for _, _, snapshot in snapshots]
                state[f"snapshot/{key}"] = np.concatenate([array.ravel() for array in arrays])
                state[f"shape/{key}"] = np.array([array.shape for array in arrays], np.int64)
        return state

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `state` gave."""
        self.episode = int(state["episode"])
        self._recent_returns = deque([(float(r), int(n)) for r, n in state["recent_returns"]], maxlen=10)
        sizes = state["sizes"]
        self._episodes = {}
        steps, observations = np.cumsum(sizes) - sizes, np.cumsum(sizes + 1) - sizes - 1
        for index, number in enumerate(state["numbers"].tolist()):
            size, at, observed = int(sizes[index]), int(steps[index]), int(observations[index])
            self._episodes[number] = _Episode(
                observations=_rows("observations", state, slice(observed, observed + size + 1)),
                actions=_rows("actions", state, slice(at, at + size)),
                rewards=[float(reward) for reward in state["rewards"][at : at + size]] if size else [],
                factors=[tuple(map(float, row)) for row in state["factors"][at : at + size]] if size else [],
                terminated=bool(state["terminated"][index]),
            )
        for number, at in state["snapshots"].tolist():
            self._episodes[number].states[at] = {}
        for name in [name for name in state if name.startswith("snapshot/")]:
            key = name.removeprefix("snapshot/")
            shapes = state[f"shape/{key}"]
            ends = np.cumsum(shapes.prod(1, dtype=np.int64))
            parts = np.split(state[name], ends[:-1])
            for (number, at), part, shape in zip(state["snapshots"].tolist(), parts, shapes, strict=True):
                self._episodes[number].states[at][key] = part.reshape(shape)


def _rows(name: str, state: dict[str, np.ndarray], at: slice) -> list[Any]:
    if name in state:
        return list(state[name][at])
    parts = {key.removeprefix(f"{name}/"): array[at] for key, array in state.items() if key.startswith(f"{name}/")}
    return (
        [{key: part[i] for key, part in parts.items()} for i in range(len(next(iter(parts.values()))))] if parts else []
    )


def _append(held: Any, values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(held), values]) if len(held) else values.copy()


def _copy(value: Any) -> Any:
    return {key: np.array(part) for key, part in value.items()} if isinstance(value, dict) else np.array(value)
