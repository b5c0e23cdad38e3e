"""A finite Markov decision process as arrays: the input of the exact solvers and the inside of every grid task."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite MDP whose reward may be linear in named features.

    An episode ends on entering a terminal state: its value is 0 and its row of `transitions`, whatever stands there, is
    never used. So a terminal self-loop cannot be counted, and states that nothing enters (walls) may be terminal too.

    Example:
        >>> P = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])               # one action: 0 -> 1, and 1 ends the episode
        >>> mdp = TabularMDP(P, 5 * P, 0.9, start=np.array([1.0, 0.0]), terminal=np.array([False, True]))
        >>> mdp.expected_rewards()
        array([[5.],
               [0.]])
    """

    transitions: np.ndarray
    """(S, A, S) probability of the next state; rows sum to 1."""
    rewards: np.ndarray
    """(S, A, S) true reward of each transition."""
    gamma: float
    """Discount a step, in (0, 1]; 1 is meant for episodic problems."""
    start: np.ndarray
    """(S,) probability of each first state; sums to 1, and no terminal state is a first one."""
    terminal: np.ndarray
    """(S,) bool, whether the episode is over there."""
    features: np.ndarray | None = None
    """(S, A, S, d) reward features phi, or None. With `weights`, rewards == phi @ w on every transition."""
    weights: np.ndarray | None = None
    """(d,) reward of one unit of each feature, w."""
    feature_names: tuple[str, ...] = ()
    """(d) names of the features."""

    def __post_init__(self) -> None:
        """Checks shapes, probabilities and linearity, and makes the arrays read-only copies."""
        self._freeze("transitions", float)
        self._freeze("rewards", float)
        self._freeze("start", float)
        self._freeze("terminal", bool)
        if self.transitions.ndim != 3 or self.transitions.shape[0] != self.transitions.shape[2]:
            raise ValueError(f"transitions has shape {self.transitions.shape}, expected (S, A, S).")
        shape, states = self.transitions.shape, self.transitions.shape[0]
        for name, array, expected in (
            ("rewards", self.rewards, shape),
            ("start", self.start, (states,)),
            ("terminal", self.terminal, (states,)),
        ):
            if array.shape != expected:
                raise ValueError(f"{name} has shape {array.shape}, expected {expected} as transitions is {shape}.")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma} is not a discount, expected a number in (0, 1].")
        if not np.isfinite(self.rewards).all():
            raise ValueError("rewards must be finite; write an impossible transition as probability 0, not as -inf.")
        _check_probabilities("transitions", self.transitions)
        _check_probabilities("start", self.start)
        if self.start[self.terminal].any():
            raise ValueError(
                f"start gives probability {self.start[self.terminal].sum():g} to terminal states, expected 0."
            )
        self._check_features()

    def _freeze(self, name: str, dtype: type) -> None:
        array: np.ndarray = np.asarray(getattr(self, name), dtype=dtype)
        if array.flags.writeable:  # else it is another MDP's, and shared
            array = array.copy()
            array.setflags(write=False)
        object.__setattr__(self, name, array)

    def _check_features(self) -> None:
        if self.features is None or self.weights is None:
            if not (self.features is None and self.weights is None and self.feature_names == ()):
                raise ValueError("features and weights belong together, and feature_names to both: give them or none.")
            return
        self._freeze("features", float)
        self._freeze("weights", float)
        dims = self.weights.shape
        if self.features.shape != self.rewards.shape + dims or len(dims) != 1:
            raise ValueError(
                f"features has shape {self.features.shape} and weights {dims}, "
                f"expected {(*self.rewards.shape, 'd')} and (d,)."
            )
        if len(self.feature_names) not in (0, *dims):
            raise ValueError(f"feature_names has {len(self.feature_names)} names, expected {dims[0]}, one a feature.")
        gap = np.abs(self.features @ self.weights - self.rewards)
        if gap.max() > 1e-9 * (1 + np.abs(self.rewards).max()):
            s, a, t = np.unravel_index(gap.argmax(), gap.shape)
            raise ValueError(
                f"rewards[{s}, {a}, {t}] = {self.rewards[s, a, t]:g} but features @ weights gives "
                f"{self.features[s, a, t] @ self.weights:g} there; a linear reward must match on every transition."
            )

    @property
    def num_states(self) -> int:
        """How many states there are, S."""
        return self.transitions.shape[0]

    @property
    def num_actions(self) -> int:
        """How many actions there are, A."""
        return self.transitions.shape[1]

    @property
    def deterministic(self) -> bool:
        """Whether every action leads to one state for sure."""
        return bool((self.transitions.max(axis=-1)[~self.terminal] == 1).all())

    def expected_rewards(self) -> np.ndarray:
        """(S, A) mean true reward of an action; 0 in terminal states."""
        return np.where(self.terminal[:, None], 0.0, (self.transitions * self.rewards).sum(axis=-1))

    def expected_features(self) -> np.ndarray:
        """(S, A, d) mean features of an action; 0 in terminal states.

        Raises:
            ValueError: The MDP has no features.
        """
        if self.features is None:
            raise ValueError("this MDP has no features; build it with features= and weights=.")
        mean = np.einsum("sat,satd->sad", self.transitions, self.features)
        return np.where(self.terminal[:, None, None], 0.0, mean)

    def continuing(self) -> np.ndarray:
        """(S, A, S) probability of the next state and of going on there: 0 from and into terminal states."""
        alive = ~self.terminal
        return self.transitions * alive[:, None, None] * alive

    def with_rewards(self, rewards: np.ndarray) -> TabularMDP:
        """The same dynamics under (S, A, S) other rewards, features dropped."""
        return replace(self, rewards=rewards, features=None, weights=None, feature_names=())

    def with_weights(self, weights: np.ndarray) -> TabularMDP:
        """The same dynamics and features under (d,) other weights, as a linear reward model learns them."""
        if self.features is None:
            raise ValueError("this MDP has no features to weight; use with_rewards.")
        return replace(self, rewards=self.features @ weights, weights=weights)


def _check_probabilities(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all() or array.min() < 0 or np.abs(array.sum(axis=-1) - 1).max() > 1e-9:
        raise ValueError(
            f"{name} must hold probabilities that sum to 1 over the last axis; "
            f"its least entry is {array.min():g} and its sums lie in "
            f"[{array.sum(axis=-1).min():g}, {array.sum(axis=-1).max():g}]."
        )
