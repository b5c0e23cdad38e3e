"""The oracle that measures what a segment gives up against acting optimally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prefenvs.oracles.values import ActionValues, Values
from prefenvs.segments import JudgedSegments


@dataclass(frozen=True)
class Regret:
    """Prefers the segment that gives up least against acting optimally. Knox et al. 2022, arXiv:2206.02231, sec. 3.

    General dynamics: minus regret is sum_t gamma^t (Q(s_t, a_t) - V(s_t)), the discounted sum of optimal advantages.
    """

    values: ActionValues
    """Optimal v(obs) and q(obs, act) over the task's own observations, in units of return."""
    discounted: bool = False
    """Weight step t by gamma^t within the segment. Knox et al. use 1; CPL (arXiv:2310.13639) discounts."""

    def __post_init__(self) -> None:
        """Raises TypeError for values without q."""
        if not callable(getattr(self.values, "q", None)):
            raise TypeError(
                f"values={self.values!r:.80} have no q(obs, act), which regret of general dynamics needs. "
                "Where transitions are deterministic, use DeterministicRegret(values)."
            )

    def utility(self, segments: JudgedSegments) -> np.ndarray:
        """(n, T) optimal advantage of each step; 0 for an optimal action, never above; padding counts 0."""
        observations, actions = segments.steps()
        advantage = self.values.q(observations, actions) - self.values.v(observations)
        weight = self.values.gamma ** np.arange(advantage.shape[1]) if self.discounted else 1.0
        return np.where(segments.mask, advantage * weight, 0.0)


@dataclass(frozen=True)
class DeterministicRegret:
    """Regret where transitions are deterministic, from state values and the rewards collected.

    Minus regret is sum_t gamma^t r_t + gamma^n (1 - terminated) V(s_n) - V(s_0). Knox et al. 2022, arXiv:2206.02231,
    eq. 3, there with gamma = 1 inside segments. Telescopes to the sum of advantages of the same values.
    """

    values: Values
    """Optimal v(obs) over the task's own observations, in units of return."""

    def utility(self, segments: JudgedSegments) -> np.ndarray:
        """(n, 1) minus the regret of each whole segment."""
        steps = segments.mask.shape[1]
        discount = self.values.gamma ** np.arange(steps)
        collected = (segments.rewards * segments.mask * discount).sum(1)
        first, last = segments.ends()
        n = segments.mask.sum(1)
        return (collected + self.values.gamma**n * ~segments.terminated * self.values.v(last) - self.values.v(first))[
            :, None
        ]
