"""How near a learned reward is to the true one, on a batch of steps whose true rewards are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prefenvs.metrics.correlation import pearson, spearman
from prefenvs.metrics.sampled_canonical import (
    RewardFunction,
    Transitions,
    fitted_advantages,
    fourier_features,
    least_rewards,
)
from prefenvs.metrics.sampled_distance import sampled_epic_distance, vector_distance

FEATURES = 64
"""Random cosines in which values and potentials are linear."""


@dataclass(frozen=True)
class RewardComparison:
    """B steps with both rewards. Holds true rewards: for metrics, never for learners."""

    transitions: Transitions
    true: np.ndarray
    """(B,) true reward of each step."""
    learned: np.ndarray
    """(B,) learned reward of each step, in any unit."""
    gamma: float
    """Discount a step of the learner."""
    seed: int = 0
    """Of what a metric draws."""
    true_reward: RewardFunction | None = None
    """The true reward of any (observation, action, next observation), where it is known in closed form."""
    learned_reward: RewardFunction | None = None
    """The learned one."""

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, d) features of observations and of next observations, the latter 0 where the episode ended."""
        steps = self.transitions
        features = fourier_features(steps.observations, FEATURES, np.random.default_rng(self.seed))
        return features(steps.observations), features(steps.next_observations) * ~steps.terminated[:, None]


def pearson_of(held: RewardComparison) -> float:
    """Pearson's correlation of the rewards of steps; nan if one is constant."""
    return float(pearson(held.true, held.learned))


def spearman_of(held: RewardComparison) -> float:
    """Spearman's rank correlation of the rewards of steps; nan if one is constant."""
    return float(spearman(held.true, held.learned))


def starc_of(held: RewardComparison) -> float:
    """STARC's distance by the least rewards that a potential can make; see `least_rewards`.

    Not by VAL: a value fitted to a replay of several policies is ill-conditioned, and what it adds to both rewards
    alike is read as agreement. Random play of Pendulum, gamma = 0.99, 8 or 64 cosines, four rewards uncorrelated with
    the true one: distances from 0.21 to 0.96 by `val`, from 0.63 to 0.75 here. It takes dynamics for deterministic.
    """
    both = np.stack([held.true, held.learned])
    canonical = least_rewards(both, *held.features(), held.gamma)
    return float(vector_distance(canonical[0], canonical[1], centre=False))


def val_of(held: RewardComparison) -> float:
    """STARC's distance by VAL, V fitted to the policies that made the steps; see `fitted_advantages` and `starc_of`."""
    both = np.stack([held.true, held.learned])
    canonical = fitted_advantages(both, *held.features(), held.gamma)
    return float(vector_distance(canonical[0], canonical[1], centre=False))


def epic_of(held: RewardComparison) -> float:
    """EPIC's distance; it reads rewards of triples that were never seen, so both rewards have to be functions."""
    if held.true_reward is None or held.learned_reward is None:
        raise ValueError("metric 'epic' needs both rewards as functions: pass true_reward=f(obs, act, next_obs).")
    rng = np.random.default_rng(held.seed)
    functions = (held.true_reward, held.learned_reward)
    return sampled_epic_distance(*functions, held.transitions, gamma=held.gamma, rng=rng, samples=64).value


REWARD_METRICS: dict[str, Callable[[RewardComparison], float]] = {
    "pearson": pearson_of,
    "spearman": spearman_of,
    "starc": starc_of,
    "val": val_of,
    "epic": epic_of,
}
"""Metrics of a learned reward by name. Correlations are 1 at best, distances 0. `REWARD_METRICS["mine"] = f` adds."""

NEED_FUNCTIONS = frozenset({"epic"})
"""Those that need the true reward in closed form."""
