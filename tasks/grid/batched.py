"""Many agents on one map that step together, as lookups in the arrays of its MDP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefenvs.tasks.grid.env import IMPORTANCE, GridTask, _cumulate
from prefenvs.tasks.task import BatchedStep, Rows, State, generator_to_array


class BatchedGrid:
    """N agents on the map of a `GridTask`, with the numbers of N of them.

    Example:
        >>> import numpy as np
        >>> from prefenvs.tasks.grid.windy import GridWindy
        >>> batch, rows = BatchedGrid(GridWindy(), num_envs=4), np.arange(4)
        >>> batch.reset(rows, [np.random.default_rng(row) for row in rows])
        >>> batch.step(np.array([0, 1, 2, 3]), rows).factors.shape
        (4, 3)
    """

    def __init__(self, task: GridTask, num_envs: int) -> None:
        """Put `num_envs` agents on the map of `task`."""
        self.task, self.num_envs = task, num_envs
        mdp = task.mdp
        assert mdp.features is not None and mdp.weights is not None  # build_grid gives them
        self._start, self._next = _cumulate(mdp.start), _cumulate(mdp.transitions)
        self._columns = [mdp.feature_names.index(name) for name in IMPORTANCE if name in mdp.feature_names]
        self._transitions = np.full((num_envs, 3), -1)  # last state, last action and present state
        self._generators: list[Any] = [None] * num_envs

    def reset(
        self, rows: Rows, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Begin episodes of these rows, each in a state drawn from its own generator, which the row keeps."""
        for row, generator in zip(rows.tolist(), generators, strict=True):
            self._generators[row] = generator
        self._transitions[rows] = -1
        self._transitions[rows, 2] = _inverse(self._start, self._draw(rows))

    def remember(self, rows: Rows) -> None:
        """Nothing: a state is known after any step."""

    def step(self, actions: np.ndarray, rows: Rows) -> BatchedStep:
        """Move these rows."""
        mdp, moved = self.task.mdp, self._transitions
        states = moved[rows, 2]
        ends = _inverse(self._next[states, actions[rows]], self._draw(rows))
        moved[rows] = np.stack([states, actions[rows], ends], 1)
        at = tuple(moved.T)  # (state, action, end); a row that never moved indexes from the back, and means nothing
        paid = mdp.features[at] * mdp.weights + 0.0  # type: ignore[index]
        return BatchedStep(mdp.rewards[at], paid[:, self._columns], mdp.terminal[at[2]], self.task.world.goal[at[2]])

    def observe(self) -> np.ndarray:
        """(N,) int64 present states."""
        return self._transitions[:, 2].copy()

    def get_state(self, row: int) -> State:
        """What `GridTask.set_state` takes."""
        return {"transition": self._transitions[row].copy(), "rng": generator_to_array(self._generators[row])}

    def close(self) -> None:
        """Free the single task."""
        self.task.close()

    def _draw(self, rows: Rows) -> np.ndarray:
        """(n,) numbers in [0, 1), one from each row's own generator."""
        generators = self._generators
        return np.array([generators[row].random() for row in rows.tolist()])


def _inverse(cumulated: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(n,) states at which the (S,) or (n, S) cumulated probabilities first exceed the (n,) draws."""
    return (cumulated <= draws[:, None]).sum(-1)
