"""What a batch of environments remembers for the oracle: one copy a step for all of them, then N Recorders."""

from __future__ import annotations

from typing import Any

import numpy as np

from prefenvs.recorder import Recorder
from prefenvs.segments import Arrays, map_arrays
from prefenvs.tasks.task import State


class BatchedRecorder:
    """The latest steps of N streams in arrays, and a `Recorder` for each that gets them when it needs them.

    A step writes one line of a ring, whatever N. The lines of a stream move on to its Recorder when its episode ends,
    the ring is full or somebody asks, so all that is answered, bounded and saved is the Recorder's.
    """

    def __init__(self, num_envs: int, factors: tuple[str, ...], episodes: int, lines: int = 256) -> None:
        """Make N empty streams.

        Args:
            num_envs: N.
            factors: names of the reward factors.
            episodes: finished episodes that each stream keeps.
            lines: steps the ring has room for.
        """
        self.recorders = [Recorder(factors, episodes) for _ in range(num_envs)]
        self.steps = np.zeros(num_envs, np.int64)
        """(N,) steps taken in the present episodes."""
        self.episodes = np.full(num_envs, -1)
        """(N,) numbers of the present episodes; -1 before the first reset."""
        self._lines, self._line = lines, 0
        self._first = np.zeros(num_envs, np.int64)  # line of each stream's first step that its Recorder lacks
        self._terminated = np.zeros(num_envs, bool)
        self._ring: dict[str, Any] = {}

    def begin(self, rows: np.ndarray, observations: Arrays) -> None:
        """Begin episodes of these rows with their (N, *obs) observations."""
        for row in rows.tolist():
            self.stream(row).reset(map_arrays(lambda array, row=row: array[row], observations))
        self.episodes[rows] += 1
        self.steps[rows] = 0
        self._first[rows] = self._line

    def add(
        self,
        actions: np.ndarray,
        observations: Arrays,
        rewards: np.ndarray,
        factors: np.ndarray,
        terminated: np.ndarray,
        acted: np.ndarray,
    ) -> None:
        """Record a step, as arrays (N, ...), of the rows that (N,) `acted`; the others have just begun an episode."""
        values = {"actions": actions, "observations": observations, "rewards": rewards, "factors": factors}
        if not self._ring:
            self._ring = {name: map_arrays(self._lines_of, value) for name, value in values.items()}
        for row in np.flatnonzero(self._line - self._first == self._lines).tolist():
            self.stream(row)
        at = self._line % self._lines
        for name, value in values.items():
            if isinstance(value, dict):
                for key, part in value.items():
                    self._ring[name][key][at] = part
            else:
                self._ring[name][at] = value
        self._line += 1
        self._first[~acted] = self._line
        self.steps += acted
        np.copyto(self._terminated, terminated, where=acted)

    def _lines_of(self, array: np.ndarray) -> np.ndarray:
        return np.zeros((self._lines, *array.shape), array.dtype)

    def snapshots_due(self, after: int = 0) -> np.ndarray:
        """Rows whose state is kept once `after` more steps are taken; that of the reset not counted."""
        steps = self.steps + after
        return np.flatnonzero((steps % self.recorders[0].snapshot_every == 0) & (steps > 0))

    def add_snapshot(self, row: int, state: State) -> None:
        """Keep the task's state at the present step of a stream."""
        self.recorders[row].add_snapshot(state, int(self.steps[row]))

    def stream(self, row: int) -> Recorder:
        """The Recorder of a stream, up to date."""
        recorder, first, count = self.recorders[row], self._first[row] % self._lines, self._line - self._first[row]
        if count:
            whole = first + count <= self._lines  # a view, of which the Recorder makes its copy
            lines: Any = slice(first, first + count) if whole else np.arange(first, first + count) % self._lines
            recorder.extend(
                **{name: map_arrays(lambda ring: ring[lines, row], rings) for name, rings in self._ring.items()},
                terminated=bool(self._terminated[row]),
            )
        self._first[row] = self._line
        return recorder

    def load_stream(self, row: int, state: dict[str, np.ndarray]) -> None:
        """Put back what `stream(row).state()` gave."""
        recorder = self.recorders[row]
        recorder.load_state(state)
        self.episodes[row], self._first[row] = recorder.episode, self._line
        self.steps[row] = recorder.step if recorder.episode >= 0 else 0
