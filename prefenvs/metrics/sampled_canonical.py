"""Canonical rewards of continuous tasks, from a batch of transitions.

A reward is a function of (observation, action, next observation). All canonicalisations are linear in it for the same
draws. `reward_distance` holds the exact ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from prefenvs.segments import Segments

RewardFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(B, *obs) observations, (B, *act) actions and (B, *obs) next observations to (B,) rewards."""
Dynamics = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""(B, *obs) observations and (B, *act) actions to a draw of (B, *obs) next observations and (B,) bool ends."""
Features = Callable[[np.ndarray], np.ndarray]
"""(B, *obs) observations to (B, d) features, among them a constant."""


@dataclass(frozen=True)
class Transitions:
    """B steps of a task, the actions as one policy (or the mixture of several) chose them."""

    observations: np.ndarray
    """(B, *obs)."""
    actions: np.ndarray
    """(B, *act)."""
    next_observations: np.ndarray
    """(B, *obs)."""
    terminated: np.ndarray
    """(B,) bool, whether the episode ended by the step; values after it are 0. Not set where it was only cut."""

    @staticmethod
    def of(steps: Segments) -> Transitions:
        """The B steps that windows of one step each hold."""
        observations, actions = np.asarray(steps.observations), np.asarray(steps.actions)
        return Transitions(observations[:, 0], actions[:, 0], observations[:, 1], steps.terminated)

    def __len__(self) -> int:
        return len(self.terminated)

    def __getitem__(self, index: np.ndarray | slice) -> Transitions:
        return Transitions(*(getattr(self, field.name)[index] for field in fields(self)))

    def independent(self, rng: np.random.Generator) -> Transitions:
        """B triples whose parts are drawn independently: D_S x D_A x D_S of EPIC, with the batch's own marginals."""
        s, a, t = rng.integers(len(self), size=(3, len(self)))
        return Transitions(self.observations[s], self.actions[a], self.observations[t], np.zeros(len(self), bool))


SampledCanonicalisation = Callable[[RewardFunction, Transitions, float, np.random.Generator], np.ndarray]
"""(reward, transitions, gamma, rng) to (B,) canonical rewards, linear in the reward for the same draws."""


def lstd_weights(rewards: np.ndarray, now: np.ndarray, after: np.ndarray, gamma: float) -> np.ndarray:
    """Weights of V_pi by least-squares temporal differences (LSTD), sum_i f_i (f_i - gamma f'_i)^T w = sum_i f_i r_i.

    V = f @ w is linear in the rewards, and a potential in the span of the features is found exactly. Bradtke and Barto
    1996, Linear least-squares algorithms for temporal difference learning.

    Args:
        rewards: (..., B) reward of each step.
        now: (B, d) features f of observations.
        after: (B, d) features f' of next observations, 0 where the episode ended.
        gamma: Discount a step.

    Returns:
        (..., d) weights.
    """
    system = now.T @ (now - gamma * after)
    target = (rewards @ now).reshape(-1, now.shape[1]).T
    return np.linalg.lstsq(system, target, rcond=None)[0].T.reshape(*rewards.shape[:-1], -1)


def fitted_advantages(rewards: np.ndarray, now: np.ndarray, after: np.ndarray, gamma: float) -> np.ndarray:
    """VAL on a batch, r + gamma V_pi(s') - V_pi(s), with V_pi by `lstd_weights`.

    pi is the policy that chose the batch's actions. Where dynamics are not deterministic `rewards` and `after` have to
    be means over next states, else an S'-redistribution stays in. Off-policy batches with many features make V
    ill-conditioned; `least_rewards` is not.

    Args:
        rewards: (..., B) reward of each step.
        now: (B, d) features of observations.
        after: (B, d) features of next observations, 0 where the episode ended.
        gamma: Discount a step.

    Returns:
        (..., B).
    """
    weights = lstd_weights(rewards, now, after, gamma)
    return rewards + weights @ (gamma * after - now).T


def least_rewards(rewards: np.ndarray, now: np.ndarray, after: np.ndarray, gamma: float) -> np.ndarray:
    """The least rewards, in mean square over the batch, that a potential in the span of the features can make of these.

    The sampled form of `minimal`, and the residual of a least squares fit: it needs no policy. Arguments as
    `fitted_advantages`.

    Returns:
        (..., B).
    """
    shaped = gamma * after - now
    flat = rewards.reshape(-1, rewards.shape[-1]).T
    return (flat - shaped @ np.linalg.lstsq(shaped, flat, rcond=None)[0]).T.reshape(rewards.shape)


def fourier_features(observations: np.ndarray, count: int, rng: np.random.Generator) -> Features:
    """1, x and `count` random cosines of x, where x are the observations in units of their spread over a batch.

    The cosines approximate functions that are smooth at the scale of that spread. Rahimi and Recht 2007, Random
    features for large-scale kernel machines.

    Args:
        observations: (B, *obs) batch that sets centre and spread.
        count: Cosines.
        rng: Draws frequencies and phases.
    """
    flat = observations.reshape(len(observations), -1).astype(float)
    centre, spread = flat.mean(axis=0), flat.std(axis=0)
    spread[spread < 1e-8] = 1.0
    frequencies = rng.normal(size=(flat.shape[1], count)) / np.sqrt(flat.shape[1])
    phases = rng.uniform(0, 2 * np.pi, size=count)

    def features(observations: np.ndarray) -> np.ndarray:
        x = (observations.reshape(len(observations), -1) - centre) / spread
        return np.concatenate([np.ones((len(x), 1)), x, np.cos(x @ frequencies + phases)], axis=1)

    return features


def sampled_val(
    reward: RewardFunction,
    transitions: Transitions,
    gamma: float,
    rng: np.random.Generator,
    *,
    features: Features,
    dynamics: Dynamics | None = None,
    samples: int = 16,
) -> np.ndarray:
    """VAL with a fitted V of the policy that chose the actions; see `fitted_advantages`.

    Args:
        reward: The reward.
        transitions: B steps.
        gamma: Discount a step.
        rng: Draws next states from `dynamics`.
        features: Of observations; V is linear in them.
        dynamics: Next states of the same state and action, over which the reward is averaged. None takes the one that
            the batch holds, which is right for deterministic dynamics.
        samples: Draws of a next state.

    Returns:
        (B,) canonical rewards.
    """
    obs, act = transitions.observations, transitions.actions
    draws = [(transitions.next_observations, transitions.terminated)]
    if dynamics is not None:
        draws = [dynamics(obs, act, rng) for _ in range(samples)]
    rewards = np.mean([reward(obs, act, after) for after, _ in draws], axis=0)
    after = np.mean([features(after) * ~ended[:, None] for after, ended in draws], axis=0)
    return fitted_advantages(rewards, features(obs), after, gamma)


def sampled_epic(
    reward: RewardFunction, transitions: Transitions, gamma: float, rng: np.random.Generator, *, samples: int = 256
) -> np.ndarray:
    """EPIC's canonical shaping up to a constant: R + mean_m gamma R(s', u_m, x_m) - R(s, u_m, x_m).

    States x_m and actions u_m are drawn from the batch. The constant that makes the mean 0 is left out: Pearson's
    correlation does not see it. Gleave et al. 2021, arXiv:2006.13900, app. A.

    Returns:
        (B,) canonical rewards.
    """
    obs, act, after = transitions.observations, transitions.actions, transitions.next_observations
    states, actions = rng.integers(len(transitions), size=(2, samples))
    total = np.zeros(len(transitions))
    for x, u in zip(obs[states], act[actions], strict=True):
        one_u, one_x = (np.repeat(np.asarray(part)[None], len(transitions), axis=0) for part in (u, x))
        total += gamma * reward(after, one_u, one_x) - reward(obs, one_u, one_x)
    return reward(obs, act, after) + total / samples


def sampled_dard(
    reward: RewardFunction,
    transitions: Transitions,
    gamma: float,
    rng: np.random.Generator,
    *,
    dynamics: Dynamics,
    samples: int = 32,
) -> np.ndarray:
    """DARD's canonical shaping, R + mean_m gamma R(s', A, S'') - R(s, A, S') - gamma R(S', A, S'').

    Each draw takes an action from the batch for every step and S' ~ T(s, A), S'' ~ T(s', A) from `dynamics`. Wulfe et
    al. 2022, arXiv:2201.10081, eq. 3.

    Returns:
        (B,) canonical rewards.
    """
    obs, act, after = transitions.observations, transitions.actions, transitions.next_observations
    total = np.zeros(len(transitions))
    for _ in range(samples):
        action = act[rng.integers(len(transitions), size=len(transitions))]
        first, second = dynamics(obs, action, rng)[0], dynamics(after, action, rng)[0]
        total += gamma * (reward(after, action, second) - reward(first, action, second)) - reward(obs, action, first)
    return reward(obs, act, after) + total / samples
