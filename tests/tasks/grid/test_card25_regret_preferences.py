"""Knox et al. 2022, arXiv:2206.02231: what its theorems say of tasks and exact solutions alone."""

import numpy as np
import pytest

from prefenvs.tasks.grid.delivery import WEIGHTS, delivery_world
from prefenvs.tasks.grid.random_mdp import random_grid, random_lottery_grid
from prefenvs.tasks.grid.solvers import (
    greedy_policy,
    policy_evaluation,
    policy_iteration,
    successor_features,
    uniform_policy,
    value_iteration,
)
from prefenvs.tasks.grid.tabular import TabularMDP
from prefenvs.tasks.grid.world import build_grid


def walk(mdp, rng, n=400, length=3):
    """(n, length + 1) states and (n, length) actions of random segments; after an end the state stays, action -1."""
    alive = np.flatnonzero(~mdp.terminal)
    states = np.zeros((n, length + 1), int)
    actions = np.full((n, length), -1)
    states[:, 0] = rng.choice(alive, size=n)
    for i in range(n):
        for t in range(length):
            s = states[i, t]
            if mdp.terminal[s]:
                states[i, t + 1] = s
                continue
            actions[i, t] = rng.integers(mdp.num_actions)
            states[i, t + 1] = rng.choice(mdp.num_states, p=mdp.transitions[s, actions[i, t]])
    return states, actions


def partial_return(mdp, states, actions):
    """(n,) sum of true rewards."""
    return np.where(actions >= 0, mdp.rewards[states[:, :-1], actions, states[:, 1:]], 0.0).sum(axis=1)


def regret(mdp, states, actions):
    """(n,) sum of V*(s) - Q*(s, a)."""
    v, q = policy_iteration(mdp)
    gaps = v[states[:, :-1]] - q[states[:, :-1], actions]
    return np.where(actions >= 0, gaps, 0.0).sum(axis=1)


def preferred(scores):
    """(n, n) in {-1, 0, 1}: the answer of an error-free teacher to every pair, by score."""
    gaps = scores[:, None] - scores[None, :]
    return np.sign(np.where(np.abs(gaps) < 1e-9, 0.0, gaps))


def test_regret_telescopes_where_transitions_are_sure():
    # regret_d = V*(first) - (partial return + V*(last)), gamma = 1.
    mdp = delivery_world().mdp
    states, actions = walk(mdp, np.random.default_rng(0))
    v, _ = policy_iteration(mdp)
    expected = v[states[:, 0]] - (partial_return(mdp, states, actions) + v[states[:, -1]])
    np.testing.assert_allclose(regret(mdp, states, actions), expected, atol=1e-9)
    assert len(set(expected.round(6))) > 10


@pytest.mark.parametrize(
    "mdp",
    [
        delivery_world().mdp,
        random_grid(np.random.default_rng(2)).mdp,
        random_lottery_grid(np.random.default_rng(0)).mdp,
    ],
    ids=["delivery", "random", "stochastic"],
)
def test_regret_is_0_exactly_where_all_actions_are_optimal(mdp):
    states, actions = walk(mdp, np.random.default_rng(1))
    best = greedy_policy(policy_iteration(mdp)[1]) > 0  # (S, A)
    optimal = np.where(actions >= 0, best[states[:, :-1], actions], True).all(axis=1)
    got = regret(mdp, states, actions)
    assert (got >= 0).all()
    np.testing.assert_array_equal(got < 1e-7, optimal)
    assert 0 < optimal.sum() < optimal.size


def test_successor_features_times_weights_is_the_value():
    rng = np.random.default_rng(0)
    for mdp in (random_grid(rng).mdp, delivery_world().mdp, random_lottery_grid(rng).mdp):
        q = policy_iteration(mdp)[1]
        for policy in (uniform_policy(mdp), greedy_policy(q), rng.dirichlet(np.ones(4), size=mdp.num_states)):
            psi = successor_features(mdp, policy)
            np.testing.assert_allclose(psi @ mdp.weights, policy_evaluation(mdp, policy), rtol=1e-9, atol=1e-9)
            learned = rng.normal(size=mdp.weights.shape)  # and for any other weights
            np.testing.assert_allclose(
                psi @ learned, policy_evaluation(mdp.with_weights(learned), policy), rtol=1e-9, atol=1e-9
            )


def test_a_constant_reward_is_invisible_to_partial_returns_and_flips_the_policy():
    # A corridor: a step costs 1, so going to the end is best; 2 more a step pays 1, so staying away from it is.
    mdp = build_grid(["....G"], {"gas": -1, "goal": -1}, gamma=0.99).mdp
    shifted = mdp.with_rewards(mdp.rewards + 2 * (mdp.transitions > 0))
    states, actions = walk(mdp, np.random.default_rng(0))
    full = (actions >= 0).all(axis=1)  # segments of equal length
    states, actions = states[full], actions[full]
    np.testing.assert_array_equal(
        preferred(partial_return(mdp, states, actions)), preferred(partial_return(shifted, states, actions))
    )
    before, after = (greedy_policy(policy_iteration(problem)[1]) for problem in (mdp, shifted))
    right = 3
    np.testing.assert_array_equal(before[:4, right], 1)
    assert after[3, right] == 0
    # The regret tells the two apart.
    answers = [preferred(-regret(problem, states, actions)) for problem in (mdp, shifted)]
    assert (answers[0] != answers[1]).any()


def test_potential_shaping_is_invisible_to_regret_and_changes_partial_returns():
    mdp = delivery_world().mdp
    rng = np.random.default_rng(0)
    potential = 20 * rng.normal(size=mdp.num_states) * ~mdp.terminal
    shaped = mdp.with_rewards(mdp.rewards + mdp.gamma * potential - potential[:, None, None])
    states, actions = walk(mdp, rng)
    np.testing.assert_allclose(regret(shaped, states, actions), regret(mdp, states, actions), atol=1e-8)
    returns, shaped_returns = (partial_return(problem, states, actions) for problem in (mdp, shaped))
    assert (preferred(returns) != preferred(shaped_returns)).mean() > 0.2


def lottery(win):
    """One choice: action 0 pays 0 for sure, action 1 pays `win` or -10, each with probability 1/2."""
    transitions, rewards = np.zeros((4, 2, 4)), np.zeros((4, 2, 4))
    transitions[0, 0, 1] = 1
    transitions[0, 1, 2:] = 0.5
    rewards[0, 1, 2:] = win, -10
    transitions[[1, 2, 3], :, [1, 2, 3]] = 1
    return TabularMDP(transitions, rewards, 1.0, np.eye(4)[0], np.array([False, True, True, True]))


def test_a_single_step_lottery_hides_its_odds_from_partial_returns():
    states = np.array([[0, 1], [0, 2], [0, 3]])  # safe, won, lost
    actions = np.array([[0], [1], [1]])
    nine, eleven = lottery(9), lottery(11)
    np.testing.assert_array_equal(
        preferred(partial_return(nine, states, actions)), preferred(partial_return(eleven, states, actions))
    )
    v, q = policy_iteration(nine)
    np.testing.assert_allclose((v[0], *q[0]), (0, 0, -0.5))
    v, q = policy_iteration(eleven)
    np.testing.assert_allclose((v[0], *q[0]), (0.5, 0, 0.5))
    # Regret judges the choice and not its luck, and flips with it.
    np.testing.assert_allclose(regret(nine, states, actions), [0, 0.5, 0.5])
    np.testing.assert_allclose(regret(eleven, states, actions), [0.5, 0, 0])


def test_a_coin_in_the_mud_pays_and_shows_as_a_feature():
    # The released feature function leaves this cell's features at 0 while its reward is -1.
    mdp = build_grid([".C.G"], WEIGHTS, gamma=1.0).mdp
    assert mdp.rewards[0, 3, 1] == -1
    np.testing.assert_array_equal(mdp.features[0, 3, 1], [0, 0, 0, 1, 0, 1])
    psi = successor_features(mdp, greedy_policy(policy_iteration(mdp)[1]))
    np.testing.assert_array_equal(psi[0], [1, 1, 0, 1, 0, 1])


def test_a_policy_is_worth_the_same_at_the_planning_discount_of_the_features():
    # Features at one discount and V* at another do not meet: the mismatch that the card warns of.
    mdp, undiscounted = delivery_world(gamma=0.9).mdp, delivery_world().mdp
    policy = greedy_policy(value_iteration(mdp)[1])
    values = successor_features(mdp, policy) @ mdp.weights
    np.testing.assert_allclose(values, value_iteration(mdp)[0], atol=1e-8)
    assert np.abs(values - value_iteration(undiscounted)[0]).max() > 1
