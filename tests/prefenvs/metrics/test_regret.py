from itertools import product

import numpy as np
import pytest

from prefenvs.metrics import (
    normalised_regret,
    normalised_return,
    optimal_policy,
    policy_return,
    s_redistribution,
    scale,
    shaping,
    starc,
)
from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
from prefenvs.tasks.grid.solvers import uniform_policy


def all_policies(mdp):
    """(A^S, S, A) every deterministic policy."""
    choices = np.array(list(product(range(mdp.num_actions), repeat=mdp.num_states)))
    return np.eye(mdp.num_actions)[choices]


@pytest.mark.parametrize("terminals", [0, 1])
def test_best_and_worst_are_those_of_all_deterministic_policies(terminals):
    mdp = random_sparse_mdp(np.random.default_rng(0), 5, 3, terminals=terminals)
    returns = policy_return(mdp, all_policies(mdp))
    regret = normalised_regret(mdp, all_policies(mdp))
    np.testing.assert_allclose(regret, (returns.max() - returns) / np.ptp(returns), atol=1e-9)
    assert normalised_regret(mdp, optimal_policy(mdp)) == pytest.approx(0, abs=1e-9)
    assert normalised_regret(mdp, optimal_policy(mdp.with_rewards(-mdp.rewards))) == pytest.approx(1)


def test_the_optimal_policy_returns_1_the_uniform_one_0_and_a_worse_one_less():
    mdp = random_sparse_mdp(np.random.default_rng(0), 5, 3, terminals=1)
    worst = optimal_policy(mdp.with_rewards(-mdp.rewards))
    best, uniform, below = normalised_return(mdp, np.stack([optimal_policy(mdp), uniform_policy(mdp), worst]))
    assert (best, uniform) == (pytest.approx(1.0), 0.0)
    assert below < -0.5


def test_equivalent_rewards_have_the_same_regret_of_every_policy():
    rng = np.random.default_rng(1)
    mdp = random_sparse_mdp(rng, 6, 3, terminals=1)
    policies = rng.dirichlet(np.ones(3), size=(20, 6))
    same = shaping(s_redistribution(mdp.rewards, rng.standard_normal(mdp.rewards.shape), mdp), rng.normal(size=6), mdp)
    expected = normalised_regret(mdp, policies)
    np.testing.assert_allclose(normalised_regret(mdp.with_rewards(scale(same, 7.0)), policies), expected, atol=1e-9)


def test_where_all_policies_earn_the_same_nothing_is_lost():
    rng = np.random.default_rng(2)
    mdp = random_sparse_mdp(rng, 6, 3)
    trivial = mdp.with_rewards(shaping(np.ones(mdp.rewards.shape), rng.normal(size=6), mdp))
    np.testing.assert_array_equal(normalised_regret(trivial, rng.dirichlet(np.ones(3), size=(4, 6))), 0)


def test_the_regret_of_any_pair_that_r2_orders_is_bounded_by_the_distance():
    # All pairs of deterministic policies: J2(b) >= J2(a) but J1(b) < J1(a). As r2 nears r1 the worst loss goes to 0.
    rng = np.random.default_rng(3)
    mdp = random_sparse_mdp(rng, 4, 3)
    policies, direction = all_policies(mdp), rng.standard_normal(mdp.rewards.shape)
    returns = policy_return(mdp, policies)
    worst, distances = [], []
    for step in (1.0, 0.1, 0.01, 1e-3):
        other = mdp.with_rewards(mdp.rewards + step * direction)
        theirs = policy_return(other, policies)
        lost = (returns[:, None] - returns) * (theirs >= theirs[:, None])
        worst.append(lost.max() / np.ptp(returns))
        distances.append(float(starc(mdp.rewards, other.rewards, mdp)))
    assert (np.array(worst) <= 4 * np.array(distances)).all()
    assert worst[0] > 0.1
    assert worst[-1] < 0.01
