"""Exact solutions of a `TabularMDP`: values, policies, successor features and visits.

All are pure functions. `v` is (S,) expected discounted return, `q` (S, A) the same after a given first action, a
policy is (S, A) action probabilities; terminal states have value 0. With gamma = 1 a policy has a value only if it
ends ("is proper", Bertsekas and Tsitsiklis 1991, An analysis of stochastic shortest path problems); the errors below
say where not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from prefenvs.tasks.grid.tabular import TabularMDP


def q_values(mdp: TabularMDP, v: np.ndarray) -> np.ndarray:
    """One Bellman backup: q(s, a) = E[r + gamma v(s')].

    Args:
        mdp: The problem.
        v: (..., S) value of each state; what it says of terminal states is ignored.

    Returns:
        (..., S, A) value of each action, 0 in terminal states.
    """
    return mdp.expected_rewards() + mdp.gamma * np.tensordot(v, mdp.continuing(), axes=(-1, -1))


def greedy_policy(q: np.ndarray, ties: Literal["shared", "first"] = "shared", tolerance: float = 1e-9) -> np.ndarray:
    """The policy that takes an action of greatest value.

    Args:
        q: (..., S, A) value of each action.
        ties: "shared" spreads the probability over all best actions, "first" takes the one of lowest index. With gamma
            = 1 and cycles of reward 0 (a coin that pays for the gas) a best action need not lead out; sharing does.
        tolerance: Actions this close to the best, relative to its size, count as best.

    Returns:
        (..., S, A) action probabilities.
    """
    best = q.max(axis=-1, keepdims=True)
    chosen = q >= best - tolerance * (1 + np.abs(best))  # (..., S, A)
    if ties == "first":
        chosen &= chosen.cumsum(axis=-1) == 1
    elif ties != "shared":
        raise ValueError(f"ties={ties!r} is not known. Expected one of: first, shared.")
    return chosen / chosen.sum(axis=-1, keepdims=True)


def uniform_policy(mdp: TabularMDP) -> np.ndarray:
    """(S, A) every action equally likely."""
    return np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)


def value_iteration(
    mdp: TabularMDP, tolerance: float = 1e-10, max_sweeps: int = 100_000
) -> tuple[np.ndarray, np.ndarray]:
    """Optimal values by repeated Bellman backups from 0.

    v <- max_a E[r + gamma v(s')] until no state changes by more than `tolerance`; the error left is then at most
    tolerance * gamma / (1 - gamma). Where gamma = 1 and walking on for ever costs nothing, the value is that of the
    best policy that may also never end; `policy_iteration` gives the best that does.

    Returns:
        v (S,) and q (S, A), with v exactly q's greatest entry.

    Raises:
        ValueError: gamma = 1 and some state cannot end, or never ending earns without bound.
    """
    if mdp.gamma == 1:
        _require_an_end(mdp)
    rewards, continuing = mdp.expected_rewards(), mdp.continuing()
    v = np.zeros(mdp.num_states)
    for _ in range(max_sweeps):
        q = rewards + mdp.gamma * (continuing @ v)
        change, v = np.abs(q.max(axis=-1) - v).max(), q.max(axis=-1)
        if change <= tolerance:
            return v, q
    raise ValueError(
        f"values still change by {change:g} a sweep after {max_sweeps} sweeps, more than tolerance={tolerance:g}. "
        f"With gamma={mdp.gamma:g} a cycle may earn reward for ever: use gamma < 1, or policy_iteration."
    )


def policy_iteration(mdp: TabularMDP, max_rounds: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Optimal values by solving a linear system a round: exact up to rounding, whatever gamma is.

    Starts from the uniform policy and changes an action only where that is a strict gain. With gamma = 1 this keeps
    every policy proper: a closed set of states that a strict gain leads into would have positive mean reward. So the
    result is the best policy that ends, also where a cycle of reward 0 exists.

    Returns:
        v (S,) and q (S, A), with v exactly q's greatest entry.

    Raises:
        ValueError: gamma = 1 and some state cannot end, or never ending earns without bound.
    """
    if mdp.gamma == 1:
        _require_an_end(mdp)
    policy = uniform_policy(mdp)
    for _ in range(max_rounds):
        if mdp.gamma == 1 and _endless(mdp, policy).any():
            raise ValueError(
                "gamma = 1 and some cycle has positive mean reward: never ending earns without bound and no policy is "
                "optimal. Use gamma < 1, or mend the rewards."
            )
        v = policy_evaluation(mdp, policy)
        q = q_values(mdp, v)
        better = q.max(axis=-1) > v + 1e-10 * (1 + np.abs(v))
        if not better.any():
            return q.max(axis=-1), q
        policy[better] = greedy_policy(q[better], ties="first", tolerance=0)
    raise ValueError(f"the policy still improves after {max_rounds} rounds; raise max_rounds.")


def finite_horizon_values(mdp: TabularMDP, horizon: int) -> np.ndarray:
    """Optimal values of episodes cut off after some steps, where the best action depends on the steps left.

    v_0 = 0, v_h = max_a E[r + gamma v_{h-1}(s')]. Any gamma, any rewards.

    Returns:
        (horizon + 1, S) value with 0, 1, ... horizon steps left.
    """
    v = np.zeros((horizon + 1, mdp.num_states))
    for steps in range(1, horizon + 1):
        v[steps] = q_values(mdp, v[steps - 1]).max(axis=-1)
    return v


def policy_evaluation(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """The value of a policy, v = (I - gamma P_pi)^-1 r_pi.

    Args:
        mdp: The problem.
        policy: (..., S, A) action probabilities; many policies are solved at once.

    Returns:
        (..., S) expected discounted return.

    Raises:
        ValueError: The policy is not one, or gamma = 1 and it does not end.
    """
    return _solve(mdp, policy, mdp.expected_rewards()[..., None])[..., 0]


def successor_features(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Expected discounted sum of features under a policy, psi_pi(s) = E[sum_t gamma^t phi_t | s_0 = s].

    For every w, psi @ w is the policy's value under the reward phi @ w. Barreto et al. 2017, eq. 3, arXiv:1606.05312.

    Args:
        mdp: The problem, with features.
        policy: (..., S, A) action probabilities; many policies are solved at once.

    Returns:
        (..., S, d) in units of each feature.
    """
    return _solve(mdp, policy, mdp.expected_features())


def policies_for_weights(mdp: TabularMDP, weights: np.ndarray, sweeps: int = 200) -> np.ndarray:
    """For each of many rewards phi @ w the policy that is greedy after some Bellman backups from 0.

    All weights are backed up together. The policies are optimal for episodes of `sweeps` steps at first; a wide set of
    inputs for `successor_features`, not a solver.

    Args:
        mdp: The problem, with features.
        weights: (P, d) reward of one unit of each feature.
        sweeps: Backups.

    Returns:
        (P, S, A) action probabilities, shared among best actions.
    """
    rewards = np.einsum("sad,pd->psa", mdp.expected_features(), weights)
    onwards = mdp.gamma * mdp.continuing().reshape(-1, mdp.num_states).T  # (S, S * A)
    q = rewards
    for _ in range(sweeps - 1):
        q = rewards + (q.max(axis=-1) @ onwards).reshape(rewards.shape)
    return greedy_policy(q)


def occupancy(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Expected discounted visits of each action from the start, sum_t gamma^t P(s_t = s, a_t = a).

    Its product with the expected rewards sums to the policy's return; it sums to 1 / (1 - gamma) if nothing ends.

    Args:
        mdp: The problem.
        policy: (S, A) action probabilities.

    Returns:
        (S, A) visits, 0 in terminal states.
    """
    _check_policy(mdp, policy)
    going_on = np.einsum("sa,sat->st", policy, mdp.continuing())
    visits = np.linalg.solve(np.eye(mdp.num_states) - mdp.gamma * going_on.T, mdp.start)
    return visits[:, None] * policy


def _solve(mdp: TabularMDP, policy: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """(..., S, d) discounted sum of (S, A, d) gains under a (..., S, A) policy."""
    _check_policy(mdp, policy)
    going_on = np.einsum("...sa,sat->...st", policy, mdp.continuing())
    mean_gains = np.einsum("...sa,sad->...sd", policy, gains)
    return np.linalg.solve(np.eye(mdp.num_states) - mdp.gamma * going_on, mean_gains)


def _check_policy(mdp: TabularMDP, policy: np.ndarray) -> None:
    expected = (mdp.num_states, mdp.num_actions)
    if policy.shape[-2:] != expected:
        raise ValueError(
            f"policy has shape {policy.shape}, expected (..., S, A) = (..., {expected[0]}, {expected[1]})."
        )
    if (policy < 0).any() or np.abs(policy.sum(axis=-1) - 1).max() > 1e-9:
        raise ValueError("policy must hold probabilities that sum to 1 over actions.")
    if mdp.gamma == 1 and _endless(mdp, policy).any():
        states = np.flatnonzero(_endless(mdp, policy).reshape(-1, mdp.num_states).any(axis=0))
        raise ValueError(
            f"gamma = 1 and the policy never ends from states {states[:8].tolist()} ({states.size} in all): it has no "
            "value there. Use gamma < 1, or a policy that ends."
        )


def _endless(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """(..., S) bool, whether a (..., S, A) policy can never reach a terminal state from here."""
    leads = np.einsum("...sa,sat->...st", policy, mdp.transitions) > 0
    ends = np.broadcast_to(mdp.terminal, leads.shape[:-1])
    for _ in range(mdp.num_states):
        wider = ends | (leads & ends[..., None, :]).any(axis=-1)
        if (wider == ends).all():
            break
        ends = wider
    return ~ends


def _require_an_end(mdp: TabularMDP) -> None:
    """Raises unless each state can reach a terminal one; the uniform policy then ends from everywhere."""
    stuck = np.flatnonzero(_endless(mdp, uniform_policy(mdp)))
    if stuck.size:
        raise ValueError(
            f"gamma = 1 but no policy ends from states {stuck[:8].tolist()} ({stuck.size} in all): their value is not "
            "finite. Use gamma < 1, mark an end in terminal=, or mark states that nothing enters as terminal."
        )


def undiscounted_optimum(mdp: TabularMDP, horizon: int) -> float:
    """The greatest mean true return, not discounted, of episodes cut off after `horizon` steps."""
    return float(mdp.start @ finite_horizon_values(replace(mdp, gamma=1.0), horizon)[-1])
