"""Temporally extended exploration: an exploratory action is repeated for a while."""

from __future__ import annotations

import numpy as np

LONGEST = 100
"""Cap of a duration, in steps. The zeta law with mu = 2 has no mean; 1 of 165 durations is longer."""


class RepeatedActions:
    """Epsilon-greedy with repeated exploratory actions, for several environments side by side.

    Where no action is being repeated, with probability epsilon a uniform action begins and lasts n steps, n from the
    zeta law P(n) ~ n^-2. Epsilon-z-greedy of Dabney, Ostrovski and Barreto 2021, Temporally-extended epsilon-greedy
    exploration, arXiv:2006.01782. Plain epsilon-greedy hardly leaves a path whose every side-step is costly.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Nothing is being repeated."""
        self._rng = rng
        self._actions = self._left = np.zeros(0, dtype=int)

    def mix(self, greedy: np.ndarray, actions: int, epsilon: float, begins: np.ndarray) -> np.ndarray:
        """Replace some of the greedy actions.

        Args:
            greedy: (E,) action of each environment.
            actions: how many there are.
            epsilon: probability that an exploratory action begins.
            begins: (E,) whether an episode begins, so that what was repeated in the last one ends.

        Returns:
            (E,) actions to take.
        """
        e = len(greedy)
        if len(self._left) != e:
            self._actions, self._left = np.zeros((2, e), dtype=int)
        self._left = np.where(begins, 0, self._left)
        start = (self._left == 0) & (self._rng.random(e) < epsilon)
        self._actions = np.where(start, self._rng.integers(actions, size=e), self._actions)
        self._left = np.where(start, np.minimum(self._rng.zipf(2.0, size=e), LONGEST), self._left)
        exploring = self._left > 0
        self._left = self._left - exploring
        return np.where(exploring, self._actions, greedy)
