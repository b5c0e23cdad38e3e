"""Distances between tabular rewards: canonicalise, normalise, compare.

A reward is (..., S, A, S), batched over leading dimensions. A canonicalisation maps rewards that differ by changes
that no policy feels to one representative, a norm takes its unit away, and what is left is compared:

    d(R1, R2) = m(s(R1) - s(R2)) / 2,   s(R) = c(R) / n(c(R)),   s(R) = 0 where c(R) = 0.

With c linear and m = n the distance lies in [0, 1]. Skalse et al. 2023, arXiv:2309.15257 (STARC);
Gleave et al. 2021, arXiv:2006.13900 (EPIC); Wulfe et al. 2022, arXiv:2201.10081 (DARD).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from prefenvs.error import unknown_name
from prefenvs.tasks.grid.tabular import TabularMDP

Canonicalisation = Callable[[np.ndarray, TabularMDP], np.ndarray]
"""(..., S, A, S) rewards and an MDP to (..., S, A, S), or to (..., S, A, 1) where it is the same for all s'."""
Norm = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(..., S, A, S or 1) values and (S, A, S) weights, or None for ones, to (...) sizes."""

ROUNDING = 1e-10
"""A canonical reward this small, relative to the raw reward, is rounding: the reward is equivalent to 0."""


def no_canonicalisation(rewards: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """The reward as it is."""
    return rewards


def val(rewards: np.ndarray, mdp: TabularMDP, policy: np.ndarray | None = None) -> np.ndarray:
    """Value-adjusted levelling, c(R)(s, a) = E_{S' ~ T(s, a)}[R(s, a, S') + gamma V_pi(S')] - V_pi(s).

    The advantage of `policy`, a fixed one: with the optimal policy of each reward c would not be linear. Equal for two
    rewards just if they differ by shaping and S'-redistribution. Skalse et al. 2023, arXiv:2309.15257, sec. 3.

    Args:
        rewards: (..., S, A, S).
        mdp: Gives transitions, discount and ends; the value of a terminal state is 0.
        policy: (S, A) action probabilities, none of them 0 in states that matter; uniform by default.

    Returns:
        (..., S, A, 1); its mean over the policy's actions is 0 in each state.
    """
    pi = np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions) if policy is None else policy
    means, going_on = _expected(rewards, mdp), mdp.continuing()
    system = np.eye(mdp.num_states) - mdp.gamma * np.einsum("sa,sat->st", pi, going_on)
    values = np.linalg.solve(system, np.einsum("sa,...sa->...s", pi, means)[..., None])[..., 0]
    ahead = np.einsum("sat,...t->...sa", going_on, values)
    return (means + mdp.gamma * ahead - values[..., None])[..., None]


def minimal(rewards: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """The member of least l2 norm among all rewards that differ by shaping and S'-redistribution.

    Only the means e(s, a) over next states are fixed. Spread over next states with least norm they are
    T(s, a, s') e(s, a) / |T(s, a)|^2, of squared norm e(s, a)^2 / |T(s, a)|^2, so the potential solves a weighted least
    squares problem. Skalse et al. 2023, arXiv:2309.15257, sec. 3. Least under "l2" without weights only.

    Args:
        rewards: (..., S, A, S).
        mdp: Gives transitions, discount and ends; potentials are 0 in terminal states.

    Returns:
        (..., S, A, S).
    """
    states, actions, alive = mdp.num_states, mdp.num_actions, ~mdp.terminal
    spread = mdp.transitions / (mdp.transitions**2).sum(axis=-1, keepdims=True)  # (S, A, S)
    size = np.sqrt((spread**2).sum(axis=-1)) * alive[:, None]  # (S, A), 1 / |T(s, a)|
    shaped = mdp.gamma * mdp.continuing() - np.eye(states)[:, None, :]  # (S, A, S), what a potential adds
    design = (size[..., None] * shaped).reshape(-1, states)[:, alive]
    means = _expected(rewards, mdp)
    target = (size * means).reshape(-1, states * actions).T  # (S * A, batch)
    potential = np.zeros((states, target.shape[1]))
    potential[alive] = -np.linalg.lstsq(design, target, rcond=None)[0]
    least = means + np.einsum("sat,tn->nsa", shaped, potential).reshape(means.shape) * alive[:, None]
    return spread * least[..., None]


def epic(
    rewards: np.ndarray, mdp: TabularMDP, states: np.ndarray | None = None, actions: np.ndarray | None = None
) -> np.ndarray:
    """EPIC's canonical shaping, R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')].

    S, S' ~ D_S and A ~ D_A are independent, so it reads rewards of transitions that cannot happen, those out of
    terminal states included. Gleave et al. 2021, arXiv:2006.13900, sec. 4.

    Args:
        rewards: (..., S, A, S).
        mdp: Gives the discount.
        states: (S,) D_S; uniform by default.
        actions: (A,) D_A; uniform by default.

    Returns:
        (..., S, A, S), of mean 0 under D_S x D_A x D_S.
    """
    d_s, d_a = _uniform(states, mdp.num_states), _uniform(actions, mdp.num_actions)
    mean = np.einsum("...sat,a,t->...s", rewards, d_a, d_s)  # (..., S)
    whole = (mean @ d_s)[..., None, None, None]
    return rewards + mdp.gamma * mean[..., None, None, :] - mean[..., :, None, None] - mdp.gamma * whole


def dard(rewards: np.ndarray, mdp: TabularMDP, actions: np.ndarray | None = None) -> np.ndarray:
    """DARD's canonical shaping, R(s, a, s') + E[gamma R(s', A, S'') - R(s, A, S') - gamma R(S', A, S'')].

    A ~ D_A, S' ~ T(s, A) and S'' ~ T(s', A): nearer to what can happen than EPIC, but S' to S'' still may not. A
    terminal state is followed by itself. Wulfe et al. 2022, arXiv:2201.10081, eq. 3.

    Args:
        rewards: (..., S, A, S).
        mdp: Gives transitions, ends and discount.
        actions: (A,) D_A; uniform by default.

    Returns:
        (..., S, A, S); its mean is not 0 in general.
    """
    d_a = _uniform(actions, mdp.num_actions)
    step = np.where(mdp.terminal[:, None, None], np.eye(mdp.num_states)[:, None], mdp.transitions).swapaxes(0, 1)
    by_action = np.moveaxis(rewards, -2, -3)  # (..., A, S, S)
    mean = np.einsum("a,ast,...ast->...s", d_a, step, by_action)
    across = np.einsum("a,...ast->...st", d_a, step @ by_action @ step.swapaxes(-1, -2))  # (..., s, s')
    return rewards + (mdp.gamma * (mean[..., None, :] - across) - mean[..., :, None])[..., :, None, :]


CANONICALISATIONS: dict[str, Canonicalisation] = {
    "val": val,
    "minimal": minimal,
    "epic": epic,
    "dard": dard,
    "none": no_canonicalisation,
}
"""Canonicalisations by name. `CANONICALISATIONS["mine"] = function` adds one."""

_AXES = (-3, -2, -1)


def l1(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weighted sum of absolute values."""
    return (np.abs(values) * _or_ones(weights)).sum(axis=_AXES)


def l2(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Root of the weighted sum of squares."""
    return np.sqrt((values**2 * _or_ones(weights)).sum(axis=_AXES))


def linf(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Greatest absolute value where the weight is positive."""
    return (np.abs(values) * (_or_ones(weights) > 0)).max(axis=_AXES)


def sd(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Standard deviation under the weights, a seminorm: constants have size 0.

    With it as norm and metric the distance is Pearson's, sqrt((1 - rho) / 2), without its loss of digits near rho = 1.
    """
    law = np.broadcast_to(_or_ones(weights), np.broadcast_shapes(np.shape(_or_ones(weights)), values.shape[-3:]))
    law = law / law.sum()
    mean = (values * law).sum(axis=_AXES, keepdims=True)
    return np.sqrt(((values - mean) ** 2 * law).sum(axis=_AXES))


NORMS: dict[str, Norm] = {"l1": l1, "l2": l2, "linf": linf, "sd": sd}
"""Norms by name. `NORMS["mine"] = function` adds one."""


def standardise(
    rewards: np.ndarray,
    mdp: TabularMDP,
    *,
    canonicalise: str | Canonicalisation = "val",
    norm: str | Norm = "l2",
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """s(R) = c(R) / n(c(R)), and 0 where R is equivalent to 0; see `reward_distance`.

    Returns:
        (..., S, A, S), or (..., S, A, 1) where the canonical reward is the same for all next states.
    """
    shape = mdp.transitions.shape
    if rewards.shape[-3:] != shape:
        raise ValueError(f"a reward has shape {rewards.shape}, expected (..., S, A, S) with S, A = {shape[:2]}.")
    canonical = _named("canonicalise", canonicalise, CANONICALISATIONS)(rewards, mdp)
    size = _named("norm", norm, NORMS)(canonical, weights)
    nothing = size <= ROUNDING * np.abs(rewards).max(axis=_AXES)
    return np.where(nothing, 0.0, 1 / np.where(nothing, 1.0, size))[..., None, None, None] * canonical


def reward_distance(
    r1: np.ndarray,
    r2: np.ndarray,
    mdp: TabularMDP,
    *,
    canonicalise: str | Canonicalisation = "val",
    norm: str | Norm = "l2",
    metric: str | Norm | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """The distance of two rewards on a problem, m(s(r1) - s(r2)) / 2; see the module.

    Args:
        r1: (..., S, A, S) reward of each transition; its own units, as those of r2, do not matter.
        r2: (..., S, A, S); leading dimensions broadcast.
        mdp: Gives transitions, discount and terminal states; its own rewards are not read.
        canonicalise: A name in CANONICALISATIONS, or a function, such as `partial(val, policy=pi)`.
        norm: A name in NORMS, or a function: n.
        metric: The same: m. By default `norm`, which makes 1 the greatest distance; a finer one may exceed it.
        weights: (S, A, S) weight of each transition in norm and metric; all 1 by default.

    Returns:
        (...) distances: 0 for equivalent rewards, 1 for opposite ones, 1/2 between any reward and a trivial one.

    Raises:
        ValueError: A name is unknown, or a shape is wrong.

    Example:
        >>> from prefenvs.metrics import reward_distance, shaping
        >>> from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
        >>> rng = np.random.default_rng(0)
        >>> mdp = random_sparse_mdp(rng, states=8, actions=3)
        >>> same = 5 * shaping(mdp.rewards, rng.normal(size=8), mdp)
        >>> float(reward_distance(mdp.rewards, same, mdp).round(12)), float(reward_distance(same, -same, mdp).round(12))
        (0.0, 1.0)
    """
    settings: dict[str, Any] = {"canonicalise": canonicalise, "norm": norm, "weights": weights}
    gap = standardise(r1, mdp, **settings) - standardise(r2, mdp, **settings)
    return _named("metric", norm if metric is None else metric, NORMS)(gap, weights) / 2


def starc(r1: np.ndarray, r2: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """The STARC distance that we report: VAL under the uniform policy, l2, in [0, 1]; see `reward_distance`.

    Small just if every policy that r2 prefers has small regret under r1 (arXiv:2309.15257, sec. 3).
    """
    return reward_distance(r1, r2, mdp, canonicalise=val, norm=l2)


def epic_distance(
    r1: np.ndarray,
    r2: np.ndarray,
    mdp: TabularMDP,
    *,
    states: np.ndarray | None = None,
    actions: np.ndarray | None = None,
) -> np.ndarray:
    """EPIC's distance, sqrt((1 - rho) / 2), Pearson under D_S x D_A x D_S. Gleave et al. 2021, sec. 4.

    Args:
        r1: (..., S, A, S).
        r2: (..., S, A, S).
        mdp: Gives the discount.
        states: (S,) D_S; uniform by default.
        actions: (A,) D_A; uniform by default.

    Returns:
        (...) in [0, 1].
    """
    d_s, d_a = _uniform(states, mdp.num_states), _uniform(actions, mdp.num_actions)
    law = d_s[:, None, None] * d_a[:, None] * d_s
    return reward_distance(r1, r2, mdp, canonicalise=partial(epic, states=d_s, actions=d_a), norm=sd, weights=law)


def dard_distance(
    r1: np.ndarray,
    r2: np.ndarray,
    mdp: TabularMDP,
    *,
    actions: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """DARD's distance, sqrt((1 - rho) / 2), Pearson under transitions that happen. Wulfe et al. 2022, sec. 4.

    Args:
        r1: (..., S, A, S).
        r2: (..., S, A, S).
        mdp: Gives transitions, ends and discount.
        actions: (A,) D_A; uniform by default.
        weights: (S, A, S) law of the transitions compared; by default each non-terminal state is equally likely,
            actions come from D_A and next states from the dynamics.

    Returns:
        (...) in [0, 1].
    """
    d_a = _uniform(actions, mdp.num_actions)
    law = mdp.transitions * d_a[:, None] * ~mdp.terminal[:, None, None] if weights is None else weights
    return reward_distance(r1, r2, mdp, canonicalise=partial(dard, actions=d_a), norm=sd, weights=law)


REWARD_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray, TabularMDP], np.ndarray]] = {
    "starc": starc,
    "epic": epic_distance,
    "dard": dard_distance,
    "minimal": partial(reward_distance, canonicalise=minimal),
    "none": partial(reward_distance, canonicalise=no_canonicalisation),
}
"""Whole distances by name, each (r1, r2, mdp) -> (...)."""


def _expected(rewards: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """(..., S, A) mean reward of an action; 0 in terminal states."""
    return (mdp.transitions * rewards).sum(axis=-1) * ~mdp.terminal[:, None]


def _uniform(law: np.ndarray | None, count: int) -> np.ndarray:
    return np.full(count, 1 / count) if law is None else np.asarray(law, float)


def _or_ones(weights: np.ndarray | None) -> np.ndarray:
    return np.ones(()) if weights is None else weights


def _named(argument: str, value: Any, known: dict[str, Any]) -> Any:
    if callable(value):
        return value
    if value not in known:
        raise unknown_name(argument, value, known)
    return known[value]
