"""Where a learner keeps its own experience to cut segments from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from prefenvs.segments import Arrays, Segments, map_arrays


@dataclass
class _Episode:
    """One unbroken stretch of an episode in the ring."""

    row: int
    """Index of the environment in the batch."""
    key: tuple[int, int]
    """(stream, episode)."""
    first: int
    """Index in the episode of the stretch's first step."""
    start: int
    """Position of that step, counted from the store's beginning."""
    length: int = 0
    terminated: bool = False
    truncated: bool = False
    closed: bool = False
    last_observation: Any = None
    """The observation after the last step; it may not be in the ring."""


class SegmentStore:
    """The latest episodes of `num_envs` parallel environments, kept to cut segments from.

    All environments write one column a step, so `add` costs one array copy whatever the number of environments.

    Example:
        >>> import numpy as np, gymnasium as gym
        >>> store = SegmentStore(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), num_envs=1)
        >>> for t in range(1, 9):
        ...     store.add(np.zeros((1, 3)), np.array([0]), np.zeros((1, 3)), [t == 8], [False], np.array([[0, 0, t]]))
        >>> store.sample(4, steps=5, rng=np.random.default_rng(0)).mask.shape
        (4, 5)
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        num_envs: int = 1,
        *,
        episodes: int = 100,
        capacity: int = 100_000,
        task: str = "",
    ) -> None:
        """Make an empty store.

        Args:
            observation_space: space of one environment's observations: Box, Discrete, MultiDiscrete or a Dict of them.
            action_space: space of one environment's actions.
            num_envs: environments that step together.
            episodes: latest episodes of each environment to sample from; at most what the recorder keeps.
            capacity: latest steps of each environment to keep; memory grows up to it as needed.
            task: name written into the segments.
        """
        self.num_envs, self.episodes, self.capacity, self.task = num_envs, episodes, capacity, task
        self._spaces = (observation_space, action_space)
        self._size = min(capacity, 1024)
        self._observations = self._allocate(observation_space, self._size)
        self._actions = self._allocate(action_space, self._size)
        self._position = 0
        self._open: list[_Episode | None] = [None] * num_envs
        self._closed: list[list[_Episode]] = [[] for _ in range(num_envs)]
        self._expected = np.full((num_envs, 3), -1, np.int64)  # the id that continues each open episode

    def _allocate(self, space: gym.Space[Any], size: int) -> Any:
        if isinstance(space, gym.spaces.Dict):
            if any(isinstance(part, gym.spaces.Dict) for part in space.spaces.values()):
                raise TypeError(f"cannot store {space}, a Dict in a Dict. Flatten it to one level with a wrapper.")
            return {key: self._allocate(part, size) for key, part in space.spaces.items()}
        if space.shape is None or space.dtype is None:
            raise TypeError(
                f"cannot store {space}. Expected Box, Discrete, MultiBinary, MultiDiscrete or a Dict of them."
            )
        return np.zeros((self.num_envs, size, *space.shape), space.dtype)

    def _grow(self) -> None:
        size = min(2 * self._size, self.capacity)

        def widen(array: np.ndarray) -> np.ndarray:
            wider = np.zeros((self.num_envs, size, *array.shape[2:]), array.dtype)
            wider[:, : self._size] = array
            return wider

        self._observations = map_arrays(widen, self._observations)
        self._actions = map_arrays(widen, self._actions)
        self._size = size

    def __len__(self) -> int:
        """Steps taken by each environment since the store was made."""
        return self._position

    def add(
        self,
        observations: Arrays,
        actions: Arrays,
        next_observations: Arrays,
        terminated: Any,
        truncated: Any,
        ids: np.ndarray,
    ) -> None:
        """Record one step of every environment.

        Args:
            observations: (E, *obs) in which the actions were taken.
            actions: (E, *act).
            next_observations: (E, *obs) that followed, the terminal ones included (not those after a reset; see
                `prefenvs.collecting.step_ends`).
            terminated: (E,) bool.
            truncated: (E,) bool.
            ids: (E, 3) the `info["segment_id"]` that came with `next_observations`. Rows whose step is 0 came from a
                reset (Gymnasium's NEXT_STEP mode) and are left out.

        Raises:
            ValueError: if `ids` has another shape, jumps from an episode's first step on, as a wrapper that repeats
                actions does, or is that of a reset where an episode ended. Nothing was recorded. Where it jumps later,
                since steps were taken elsewhere, the episode is split.
        """
        ids = np.asarray(ids, np.int64)
        if ids.shape != (self.num_envs, 3):
            raise ValueError(f"ids has shape {ids.shape}, expected (num_envs, 3) = ({self.num_envs}, 3).")
        begun = np.flatnonzero((ids != self._expected).any(1))  # a new episode, or steps that we did not see
        for row in begun.tolist():
            self._check_begun(row, ids[row].tolist(), ended=bool(terminated[row] or truncated[row]))
        if self._position == self._size and self._size < self.capacity:
            self._grow()
        slot = self._position % self._size
        _write(self._observations, observations, slot)
        _write(self._actions, actions, slot)

        for row in begun:
            self._close(row, truncated=False)
            stream, episode, step = (int(part) for part in ids[row])
            if step > 0:
                self._open[row] = _Episode(int(row), (stream, episode), step - 1, self._position)
        self._position += 1
        self._expected = ids + np.array([0, 0, 1])
        for row, opened in enumerate(self._open):
            if opened is None:
                self._expected[row] = -1
                continue
            opened.length += 1
            opened.last_observation = map_arrays(lambda a, row=row: np.array(a[row]), next_observations)
            if terminated[row] or truncated[row]:
                opened.terminated, opened.truncated = bool(terminated[row]), bool(truncated[row])
                self._close(row, truncated=opened.truncated)

    def _check_begun(self, row: int, begun: list[int], *, ended: bool) -> None:
        """Refuse what would make an episode of each step, or lose the last step of each."""
        stream, episode, step = begun
        opened, expected = self._open[row], int(self._expected[row, 2])
        first = opened is not None and opened.key == (stream, episode) and opened.length == 1
        if first and step > expected:  # a gap after more than one step is of steps taken elsewhere
            raise ValueError(
                f"ids jump from step {expected - 1} to {step} in episode {episode} of stream {stream}: does a wrapper "
                "repeat actions? Put it below the preference environment, as in prefenvs.wrap(Repeat(env)), so that "
                "what it repeats is one step. If steps were taken elsewhere on purpose, call cut() before going on. "
                "Nothing was recorded."
            )
        if step == 0 and ended:
            raise ValueError(
                f"the episode of environment {row} ended, but ids[{row}] = {begun} is that of a reset. Under SAME_STEP "
                "autoreset next_observations and ids are those of prefenvs.collecting.step_ends. Nothing was recorded."
            )

    def _close(self, row: int, *, truncated: bool) -> None:
        opened = self._open[row]
        if opened is not None:
            opened.truncated, opened.closed = truncated, True
            self._closed[row].append(opened)
            del self._closed[row][: -self.episodes]
        self._open[row] = None
        self._expected[row] = -1

    def cut(self) -> None:
        """End all episodes that are under way: their environments are reset or stepped from outside."""
        for row in range(self.num_envs):
            self._close(row, truncated=False)

    def _starts(self, episode: _Episode, steps: int, whole_windows: bool) -> tuple[int, int]:
        """First position and number of positions at which a window of `steps` may start in `episode`."""
        oldest = max(episode.start, self._position - self._size)
        length = episode.start + episode.length - oldest
        if whole_windows:
            return oldest, max(length - steps + 1, 0)
        if episode.terminated:
            return oldest, max(length, 0)  # short windows too: failing early is part of the answer
        if episode.truncated and episode.length < steps and oldest == episode.start:
            return oldest, 1  # the whole episode is shorter than a window
        return oldest, max(length - steps + 1, 0)

    def windows(self, steps: int, newest: int | None = None, *, whole_windows: bool = False) -> int:
        """The number of different windows that `sample` chooses from when it is given the same arguments."""
        return int(self._table(steps, newest, whole_windows)[1].sum())

    def _table(
        self, steps: int, newest: int | None, whole_windows: bool
    ) -> tuple[list[_Episode], np.ndarray, np.ndarray]:
        if newest is not None and newest < 1:
            raise ValueError(f"newest={newest}, expected a number of episodes, 1 or more, or None for all.")
        episodes: list[_Episode] = []
        for closed, opened in zip(self._closed, self._open, strict=True):
            stretch = [*closed, *([] if opened is None else [opened])]
            episodes += stretch[-(self.episodes if newest is None else newest) :]
        starts = np.array([self._starts(episode, steps, whole_windows) for episode in episodes], np.int64).reshape(
            -1, 2
        )
        return episodes, starts[:, 1], starts[:, 0]

    def sample(
        self, n: int, steps: int, rng: np.random.Generator, newest: int | None = None, *, whole_windows: bool = False
    ) -> Segments:
        """Draw n windows uniformly from all that the store holds.

        Full windows lie within one episode; an episode that terminated also yields the short ones at its end.

        Args:
            n: windows to draw, with replacement.
            steps: T, steps a window.
            rng: source of randomness.
            newest: draw only from this many latest episodes of each environment (on-policy queries).
            whole_windows: leave the short windows out, so that all have `steps` steps.

        Raises:
            ValueError: if no episode is long enough yet, or `newest` is below 1.
        """
        episodes, counts, first = self._table(steps, newest, whole_windows)
        total = int(counts.sum())
        if total == 0:
            raise ValueError(
                f"no episode has {steps} steps yet ({self._position} steps recorded). Collect more, or ask for shorter."
            )
        draws = rng.integers(total, size=n)
        which = np.searchsorted(np.cumsum(counts), draws, side="right")
        before = np.cumsum(counts)[which] - counts[which]
        return self._gather(episodes, which, first[which] + draws - before, steps)

    def _gather(self, episodes: list[_Episode], which: np.ndarray, start: np.ndarray, steps: int) -> Segments:
        facts = [(e.row, e.start, e.length, e.first, e.terminated, e.truncated, *e.key) for e in episodes]
        rows, begin, size, first, terminated, truncated, stream, number = np.array(facts, np.int64)[which].T
        length = np.minimum(begin + size - start, steps)
        mask = np.arange(steps) < length[:, None]
        slots = (start[:, None] + np.arange(steps + 1)) % self._size
        at_end = start + length == begin + size
        ends = np.flatnonzero(at_end)
        ended, which_ended = np.unique(which[ends], return_inverse=True)

        def cut(array: np.ndarray, last: Any, width: int) -> np.ndarray:
            window = array[rows[:, None], slots[:, :width]]
            window[np.arange(width) > (length[:, None] if width > steps else length[:, None] - 1)] = 0
            if width > steps and len(ends):  # the observation after an episode's last step is not in the ring
                window[ends, length[ends]] = np.stack([last(episodes[index]) for index in ended])[which_ended]
            return window

        if isinstance(self._observations, dict):
            observations: Arrays = {
                key: cut(array, lambda episode, key=key: episode.last_observation[key], steps + 1)
                for key, array in self._observations.items()
            }
        else:
            observations = cut(self._observations, lambda episode: episode.last_observation, steps + 1)
        return Segments(
            observations,
            map_arrays(lambda array: cut(array, None, steps), self._actions),
            mask,
            terminated=at_end & (terminated == 1),
            truncated=at_end & (truncated == 1),
            ids=np.stack([stream, number, first + start - begin], 1),
            task=self.task,
        )

    def state(self) -> dict[str, np.ndarray]:
        """Everything in the store as named arrays, for a checkpoint. Open episodes are not cut."""
        used = min(self._position, self._size)
        episodes = [episode for _, episode in self._all()]
        state = {
            "position": np.array(self._position),
            "size": np.array(self._size),
            "expected": self._expected.copy(),
            "episodes": np.array(
                [(e.row, *e.key, e.first, e.start, e.length, e.terminated, e.truncated, e.closed) for e in episodes],
                np.int64,
            ).reshape(-1, 9),
        }
        _flatten("observations", map_arrays(lambda a: a[:, :used].copy(), self._observations), state)
        _flatten("actions", map_arrays(lambda a: a[:, :used].copy(), self._actions), state)
        if episodes:
            last = [episode.last_observation for episode in episodes]
            if isinstance(self._observations, dict):
                stacked: Arrays = {key: np.stack([value[key] for value in last]) for key in self._observations}
            else:
                stacked = np.stack(last)
            _flatten("last", stacked, state)
        return state

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `state` gave, into a store made with the same spaces and number of environments."""
        self._position, self._size = int(state["position"]), int(state["size"])
        self._expected = np.array(state["expected"])
        for name, space in zip(("observations", "actions"), self._spaces, strict=True):
            ring = self._allocate(space, self._size)
            saved = _unflatten(name, state)
            for array, part in zip(_leaves(ring), _leaves(saved), strict=True):
                array[:, : part.shape[1]] = part
            setattr(self, f"_{name}", ring)
        self._open = [None] * self.num_envs
        self._closed = [[] for _ in range(self.num_envs)]
        last: Any = _unflatten("last", state) if len(state["episodes"]) else None
        for index, fields in enumerate(state["episodes"].tolist()):
            row, stream, number, first, start, length, terminated, truncated, closed = fields
            episode = _Episode(row, (stream, number), first, start, length, bool(terminated), bool(truncated))
            episode.closed, episode.last_observation = bool(closed), map_arrays(lambda a, i=index: np.array(a[i]), last)
            if closed:
                self._closed[row].append(episode)
            else:
                self._open[row] = episode

    def _all(self) -> list[tuple[int, _Episode]]:
        pairs = [(row, episode) for row, closed in enumerate(self._closed) for episode in closed]
        return pairs + [(row, episode) for row, episode in enumerate(self._open) if episode is not None]


def _leaves(arrays: Arrays) -> list[np.ndarray]:
    return [arrays[key] for key in sorted(arrays)] if isinstance(arrays, dict) else [arrays]


def _write(ring: Arrays, values: Arrays, slot: int) -> None:
    if isinstance(ring, dict):
        for key, array in ring.items():
            array[:, slot] = values[key]
    else:
        ring[:, slot] = values


def _flatten(name: str, arrays: Arrays, into: dict[str, np.ndarray]) -> None:
    if isinstance(arrays, dict):
        into.update({f"{name}/{key}": array for key, array in arrays.items()})
    else:
        into[name] = arrays


def _unflatten(name: str, state: dict[str, np.ndarray]) -> Arrays:
    if name in state:
        return state[name]
    return {key.removeprefix(f"{name}/"): array for key, array in state.items() if key.startswith(f"{name}/")}
