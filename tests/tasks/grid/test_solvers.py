from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from prefenvs.tasks.grid.delivery import delivery_world
from prefenvs.tasks.grid.random_mdp import random_grid, random_lottery_grid, random_sparse_mdp
from prefenvs.tasks.grid.solvers import (
    finite_horizon_values,
    greedy_policy,
    occupancy,
    policy_evaluation,
    policy_iteration,
    q_values,
    successor_features,
    undiscounted_optimum,
    uniform_policy,
    value_iteration,
)
from prefenvs.tasks.grid.tabular import TabularMDP
from prefenvs.tasks.grid.windy import windy_world


def by_linear_program(mdp):
    """(S,) optimal values: the least v with v(s) >= r(s, a) + gamma E[v(s')] for all a, 0 where the episode ends."""
    going_on = mdp.gamma * mdp.continuing()
    lhs = (going_on - np.eye(mdp.num_states)[:, None, :]).reshape(-1, mdp.num_states)
    bounds = [(0, 0) if ended else (None, None) for ended in mdp.terminal]
    solved = linprog(np.ones(mdp.num_states), lhs, -mdp.expected_rewards().ravel(), bounds=bounds, method="highs")
    assert solved.success
    return solved.x


def line(rewards, gamma=1.0, ends=True):
    """States 0, 1, 2 of which 2 may end; action 0 stays, action 1 goes on, for the (2,) rewards of the actions."""
    transitions = np.zeros((3, 2, 3))
    transitions[:, 0] = np.eye(3)
    transitions[[0, 1, 2], 1, [1, 2, 2]] = 1
    return TabularMDP(
        transitions,
        np.broadcast_to(np.array(rewards, dtype=float)[None, :, None], (3, 2, 3)),
        gamma,
        start=np.array([1.0, 0, 0]),
        terminal=np.array([False, False, ends]),
    )


MDPS = {
    "delivery": delivery_world().mdp,
    "delivery discounted": delivery_world(gamma=0.95).mdp,
    "windy": windy_world().mdp,
    "random 1": random_grid(np.random.default_rng(1)).mdp,
    "random 7": random_grid(np.random.default_rng(7), gamma=0.9).mdp,
    "lottery": random_lottery_grid(np.random.default_rng(0)).mdp,
    "sparse": random_sparse_mdp(np.random.default_rng(0), states=20, actions=4),
    "sparse with ends": random_sparse_mdp(np.random.default_rng(1), states=12, actions=2, successors=3, terminals=2),
}
small_mdps = st.builds(
    lambda seed, states, actions, terminals, gamma: random_sparse_mdp(
        np.random.default_rng(seed), states, actions, terminals=terminals, gamma=gamma
    ),
    st.integers(0, 2**32 - 1),
    st.integers(4, 9),
    st.integers(1, 4),
    st.integers(0, 2),
    st.floats(0.1, 0.95),
)


@pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS)
def test_both_iterations_agree_with_a_linear_program(mdp):
    expected = by_linear_program(mdp)
    for v, q in (value_iteration(mdp), policy_iteration(mdp)):
        np.testing.assert_allclose(v, expected, atol=1e-6)
        np.testing.assert_array_equal(v, q.max(axis=-1))
        np.testing.assert_allclose(q, q_values(mdp, v), atol=1e-9)


@pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS)
def test_the_greedy_policy_earns_the_optimal_value(mdp):
    v, q = policy_iteration(mdp)
    np.testing.assert_allclose(policy_evaluation(mdp, greedy_policy(q)), v, atol=1e-8)


@settings(max_examples=40)
@given(small_mdps, st.integers(0, 2**32 - 1))
def test_optimal_values_solve_bellmans_equation_and_bound_every_policy(mdp, seed):
    v, _ = policy_iteration(mdp)
    np.testing.assert_allclose(q_values(mdp, v).max(axis=-1), v, atol=1e-9)
    policies = np.random.default_rng(seed).dirichlet(np.ones(mdp.num_actions), size=(5, mdp.num_states))  # (5, S, A)
    assert (v >= policy_evaluation(mdp, policies) - 1e-9).all()


@settings(max_examples=40)
@given(small_mdps, st.integers(0, 2**32 - 1))
def test_potential_shaping_leaves_the_greedy_policy(mdp, seed):
    # Ng et al. 1999: r + gamma u(s') - u(s), u = 0 where the episode ends, moves q by -u(s) for all actions alike.
    potential = np.random.default_rng(seed).normal(size=mdp.num_states) * ~mdp.terminal
    shaped = mdp.with_rewards(mdp.rewards + mdp.gamma * potential - potential[:, None, None])
    (v, q), (v_shaped, q_shaped) = policy_iteration(mdp), policy_iteration(shaped)
    np.testing.assert_allclose(v_shaped, v - potential, atol=1e-8)
    np.testing.assert_array_equal(greedy_policy(q_shaped, tolerance=1e-7), greedy_policy(q, tolerance=1e-7))


@settings(max_examples=20)
@given(small_mdps, st.integers(0, 2**32 - 1))
def test_visits_times_rewards_is_the_return(mdp, seed):
    policy = np.random.default_rng(seed).dirichlet(np.ones(mdp.num_actions), size=mdp.num_states)
    visits = occupancy(mdp, policy)
    assert not visits[mdp.terminal].any()
    np.testing.assert_allclose(
        (visits * mdp.expected_rewards()).sum(), mdp.start @ policy_evaluation(mdp, policy), atol=1e-9
    )
    if not mdp.terminal.any():
        np.testing.assert_allclose(visits.sum(), 1 / (1 - mdp.gamma))


def test_policy_evaluation_equals_summing_up_the_steps():
    mdp = windy_world(gamma=0.9).mdp
    policy, v = uniform_policy(mdp), np.zeros(mdp.num_states)
    for _ in range(400):
        v = (policy * q_values(mdp, v)).sum(axis=-1)
    np.testing.assert_allclose(policy_evaluation(mdp, policy), v, atol=1e-12)


def test_successor_features_of_many_policies_are_solved_at_once():
    mdp = delivery_world(gamma=0.9).mdp
    policies = np.stack([uniform_policy(mdp), greedy_policy(policy_iteration(mdp)[1])])
    psi = successor_features(mdp, policies)  # (2, S, d)
    assert psi.shape == (2, 100, 6)
    np.testing.assert_array_equal(psi[1], successor_features(mdp, policies[1]))
    np.testing.assert_allclose(psi @ mdp.weights, policy_evaluation(mdp, policies), atol=1e-9)


def test_the_way_home_in_a_line_is_counted_without_discount():
    v, q = policy_iteration(line([-1, -1]))
    np.testing.assert_allclose(v, [-2, -1, 0])
    np.testing.assert_allclose(q, [[-3, -2], [-2, -1], [0, 0]])


def test_a_free_cycle_does_not_trap_policy_iteration():
    # Staying is free, leaving costs 1: never ending is worth 0, the best policy that ends -2.
    mdp = line([0, -1])
    np.testing.assert_allclose(value_iteration(mdp)[0], [0, 0, 0])
    np.testing.assert_allclose(policy_iteration(mdp)[0], [-2, -1, 0])
    # Nor where another state improves in the same round: 0 stays for 0 or ends for -1, 1 ends for 0 or for -5.
    transitions, rewards = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    transitions[[0, 0, 1, 1], [0, 1, 0, 1], [0, 2, 2, 2]] = 1
    transitions[2, :, 2] = 1
    rewards[0, 1, 2], rewards[1, 1, 2] = -1, -5
    v, _ = policy_iteration(TabularMDP(transitions, rewards, 1.0, mdp.start, mdp.terminal))
    np.testing.assert_allclose(v, [-1, 0, 0])


@pytest.mark.parametrize("solver", [value_iteration, policy_iteration])
def test_without_discount_and_without_an_end_there_is_no_value(solver):
    with pytest.raises(ValueError, match=r"gamma = 1 but no policy ends from states \[0, 1, 2\] \(3 in all\)"):
        solver(line([-1, -1], ends=False))
    assert solver(line([-1, -1], gamma=0.5, ends=False))[0] == pytest.approx([-2, -2, -2])


def test_without_discount_a_policy_must_end():
    stay = np.tile([1.0, 0.0], (3, 1))
    with pytest.raises(ValueError, match=r"the policy never ends from states \[0, 1\] \(2 in all\)"):
        policy_evaluation(line([-1, -1]), stay)
    np.testing.assert_allclose(policy_evaluation(line([-1, -1], gamma=0.5), stay), [-2, -2, 0])


def test_without_discount_an_endless_gain_is_an_error():
    with pytest.raises(ValueError, match="cycle has positive mean reward"):
        policy_iteration(line([1, -1]))
    with pytest.raises(ValueError, match="values still change by 1 a sweep after 50 sweeps"):
        value_iteration(line([1, -1]), max_sweeps=50)


def test_ties_are_shared_or_the_first_is_taken():
    q = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(greedy_policy(q), [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_array_equal(greedy_policy(q, ties="first"), [[0, 1, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="ties='last' is not known"):
        greedy_policy(q, ties="last")


def test_what_is_not_a_policy_is_refused():
    mdp = line([-1, -1])
    with pytest.raises(ValueError, match=r"policy has shape \(2, 3\), expected"):
        policy_evaluation(mdp, np.ones((2, 3)) / 3)
    with pytest.raises(ValueError, match="sum to 1 over actions"):
        policy_evaluation(mdp, np.ones((3, 2)))


def test_a_long_horizon_reaches_the_optimum_and_a_short_one_does_not():
    mdp = delivery_world().mdp
    v = finite_horizon_values(mdp, 100)
    np.testing.assert_allclose(v[100], policy_iteration(mdp)[0])
    assert (v[3] < v[100]).any()
    np.testing.assert_array_equal(v[1], mdp.expected_rewards().max(axis=-1))
    assert undiscounted_optimum(replace(mdp, gamma=0.5), 100) == pytest.approx(mdp.start @ v[100])
