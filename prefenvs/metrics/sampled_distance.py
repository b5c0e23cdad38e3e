"""Distances between rewards of continuous tasks, from a batch of transitions; `reward_distance` is the exact one.

Both rewards are canonicalised with the same draws, so that what they share cancels and equivalent rewards come out at
0 wherever the canonicalisation would be exact. What is left of sampling is reported beside the distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from prefenvs.metrics.sampled_canonical import (
    Dynamics,
    Features,
    RewardFunction,
    SampledCanonicalisation,
    Transitions,
    fourier_features,
    sampled_dard,
    sampled_epic,
    sampled_val,
)

ROUNDING = 1e-9
"""A canonical reward this small, relative to the raw reward, is rounding: the reward is equivalent to 0."""


@dataclass(frozen=True)
class SampledDistance:
    """A distance in [0, 1] and what sampling does to it."""

    value: float
    error: float
    """Standard error: spread of the distance over disjoint parts of the transitions, each with its own draws."""
    floor: float
    """The greater distance of either reward from itself, canonicalised with other draws; less cannot be told from 0."""


def vector_distance(c1: np.ndarray, c2: np.ndarray, *, centre: bool) -> np.ndarray:
    """Half the l2 distance of (..., B) canonical rewards after each was divided by its norm; 0 stays 0.

    Args:
        c1: (..., B).
        c2: (..., B).
        centre: Subtract means first, which makes it Pearson's distance sqrt((1 - rho) / 2).

    Returns:
        (...) in [0, 1].
    """
    gap = _unit(c1, centre) - _unit(c2, centre)
    return np.sqrt((gap**2).sum(axis=-1)) / 2


def sampled_distance(
    r1: RewardFunction,
    r2: RewardFunction,
    transitions: Transitions,
    canonicalise: SampledCanonicalisation,
    *,
    gamma: float,
    rng: np.random.Generator,
    centre: bool = True,
    groups: int = 10,
) -> SampledDistance:
    """The distance of two rewards over a batch, with its sampling error.

    Args:
        r1: A reward.
        r2: Another.
        transitions: B steps; the distance weighs them alike.
        canonicalise: `sampled_epic`, or such as `partial(sampled_val, features=f)`; gets the same draws for r1 and r2.
        gamma: Discount a step.
        rng: Seeds the draws.
        centre: Pearson's distance, as EPIC and DARD; False for STARC's.
        groups: Disjoint parts of the batch, at least 2, whose distances tell the standard error.

    Raises:
        ValueError: There are fewer than 2 steps a group, or fewer than 2 groups.
    """
    if groups < 2 or len(transitions) < 2 * groups:
        raise ValueError(
            f"{len(transitions)} transitions do not make groups={groups}; expected 2 steps a group or more."
        )

    def canonical(reward: RewardFunction, steps: Transitions, seed: int) -> np.ndarray:
        c = canonicalise(reward, steps, gamma, np.random.default_rng(seed))
        raw = reward(steps.observations, steps.actions, steps.next_observations)
        return c if np.abs(c - centre * c.mean()).max() > ROUNDING * np.abs(raw).max() else np.zeros_like(c)

    seed, other, *seeds = rng.integers(2**63, size=2 + groups).tolist()
    c1, c2 = (canonical(reward, transitions, seed) for reward in (r1, r2))
    again = (canonical(reward, transitions, other) for reward in (r1, r2))
    floor = max(float(vector_distance(c, d, centre=centre)) for c, d in zip((c1, c2), again, strict=True))
    parts = [transitions[at::groups] for at in range(groups)]
    spread = [
        vector_distance(canonical(r1, part, word), canonical(r2, part, word), centre=centre)
        for part, word in zip(parts, seeds, strict=True)
    ]
    error = float(np.std(spread, ddof=1) / np.sqrt(groups))
    return SampledDistance(float(vector_distance(c1, c2, centre=centre)), error, floor)


def sampled_starc_distance(
    r1: RewardFunction,
    r2: RewardFunction,
    transitions: Transitions,
    *,
    gamma: float,
    rng: np.random.Generator,
    features: Features | None = None,
    dynamics: Dynamics | None = None,
) -> SampledDistance:
    """STARC's distance by VAL, l2, weighing the batch's steps alike; see `sampled_val` and `sampled_distance`.

    Args:
        r1: A reward.
        r2: Another.
        transitions: B steps.
        gamma: Discount a step.
        rng: Seeds the draws.
        features: Of observations, for V; by default 64 `fourier_features` of the batch.
        dynamics: Needed where the transitions are not deterministic.
    """
    given = features or fourier_features(transitions.observations, 64, rng)
    canonicalise = partial(sampled_val, features=given, dynamics=dynamics)
    return sampled_distance(r1, r2, transitions, canonicalise, gamma=gamma, rng=rng, centre=False)


def sampled_epic_distance(
    r1: RewardFunction,
    r2: RewardFunction,
    transitions: Transitions,
    *,
    gamma: float,
    rng: np.random.Generator,
    samples: int = 256,
) -> SampledDistance:
    """EPIC's distance, its D_S and D_A the marginals of the batch; see `sampled_epic` and `sampled_distance`."""
    canonicalise = partial(sampled_epic, samples=samples)
    return sampled_distance(r1, r2, transitions.independent(rng), canonicalise, gamma=gamma, rng=rng)


def sampled_dard_distance(
    r1: RewardFunction,
    r2: RewardFunction,
    transitions: Transitions,
    *,
    gamma: float,
    rng: np.random.Generator,
    dynamics: Dynamics,
    samples: int = 32,
) -> SampledDistance:
    """DARD's distance over the steps of the batch; see `sampled_dard` and `sampled_distance`."""
    canonicalise = partial(sampled_dard, dynamics=dynamics, samples=samples)
    return sampled_distance(r1, r2, transitions, canonicalise, gamma=gamma, rng=rng)


def _unit(values: np.ndarray, centre: bool) -> np.ndarray:
    raw = np.abs(values).max(axis=-1, keepdims=True)
    values = values - values.mean(axis=-1, keepdims=True) if centre else values
    size = np.sqrt((values**2).sum(axis=-1, keepdims=True))
    nothing = size <= ROUNDING * raw
    return np.where(nothing, 0.0, values / np.where(nothing, 1.0, size))
