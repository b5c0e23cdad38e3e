"""Skalse et al. 2023, arXiv:2309.15257: golden numbers and invariances of VAL, EPIC and DARD."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefenvs.metrics import (
    NORMS,
    REWARD_DISTANCES,
    disguised,
    normalised_regret,
    optimal_policy,
    reward_distance,
    s_redistribution,
    scale,
    shaping,
    standardise,
    starc,
)
from prefenvs.metrics.reward_distance import val
from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
from prefenvs.tasks.grid.solvers import policy_evaluation, uniform_policy
from prefenvs.tasks.grid.tabular import TabularMDP

INVARIANT = ("starc", "minimal")


def switch():
    """States 0 and 1, actions stay and switch, gamma = 1/2, reward 1 for entering state 1."""
    transitions = np.array([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    rewards = np.broadcast_to(np.array([0.0, 1.0]), (2, 2, 2))
    return TabularMDP(transitions, rewards, 0.5, np.array([0.5, 0.5]), np.zeros(2, bool))


@st.composite
def problems(draw):
    """A random MDP, some with ends, and a generator for what else is random."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = {
        "states": draw(st.integers(4, 9)),
        "actions": draw(st.integers(2, 4)),
        "terminals": draw(st.integers(0, 2)),
    }
    return random_sparse_mdp(rng, **shape, successors=3, gamma=draw(st.floats(0.1, 0.97))), rng


def noise(mdp, rng, *batch):
    return rng.standard_normal((*batch, *mdp.transitions.shape))


def test_values_of_the_two_state_problem():
    # Under the uniform policy every state earns 1/2 a step: V = 1/2 / (1 - 1/2) = 1. c = 1 + 1/2 - 1 or 0 + 1/2 - 1.
    mdp = switch()
    np.testing.assert_allclose(policy_evaluation(mdp, uniform_policy(mdp)), [1, 1])
    canonical = val(mdp.rewards, mdp)
    np.testing.assert_allclose(canonical[..., 0], [[-0.5, 0.5], [0.5, -0.5]])
    assert NORMS["l2"](canonical) == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_the_mean_of_val_over_the_policy_is_0_and_so_is_the_policys_value(problem):
    mdp, rng = problem
    policy = rng.dirichlet(np.ones(mdp.num_actions), size=mdp.num_states)
    for pi in (None, policy):
        canonical = val(mdp.rewards, mdp, policy=pi)[..., 0]
        used = uniform_policy(mdp) if pi is None else pi
        np.testing.assert_allclose((used * canonical).sum(-1), 0, atol=1e-9)
        as_reward = mdp.with_rewards(np.broadcast_to(canonical[..., None], mdp.rewards.shape))
        np.testing.assert_allclose(policy_evaluation(as_reward, used), 0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in REWARD_DISTANCES if name != "none"])
@settings(max_examples=30, deadline=None)
@given(problems(), st.floats(0.01, 100))
def test_shaping_and_scale_have_distance_0_and_the_opposite_reward_1(name, problem, factor):
    mdp, rng = problem
    rewards, potential = noise(mdp, rng, 3), rng.standard_normal((3, mdp.num_states))
    distance = REWARD_DISTANCES[name]
    same = scale(shaping(rewards, potential, mdp), factor)
    np.testing.assert_allclose(distance(rewards, same, mdp), 0, atol=1e-12)
    np.testing.assert_allclose(distance(rewards, -same, mdp), 1, atol=1e-12)


@pytest.mark.parametrize("name", INVARIANT)
@settings(max_examples=30, deadline=None)
@given(problems(), st.floats(0.01, 100))
def test_starc_distances_do_not_feel_redistributions_either(name, problem, factor):
    mdp, rng = problem
    rewards, potential = noise(mdp, rng, 3), rng.standard_normal((3, mdp.num_states))
    same = scale(s_redistribution(shaping(rewards, potential, mdp), noise(mdp, rng, 3), mdp), factor)
    assert REWARD_DISTANCES[name](rewards, same, mdp).max() < 1e-12


def test_epic_and_dard_feel_redistributions():
    rng = np.random.default_rng(0)
    mdp = random_sparse_mdp(rng, 10, 3)
    same = s_redistribution(mdp.rewards, noise(mdp, rng, 50) * (mdp.transitions > 0), mdp)
    assert starc(mdp.rewards, same, mdp).max() < 1e-12
    for name in ("epic", "dard"):
        assert REWARD_DISTANCES[name](mdp.rewards, same, mdp).min() > 0.1


@pytest.mark.parametrize("name", REWARD_DISTANCES)
@settings(max_examples=25, deadline=None)
@given(problems())
def test_every_distance_is_a_pseudometric_in_0_to_1(name, problem):
    mdp, rng = problem
    rewards = noise(mdp, rng, 4) * np.array([1, 1, 1, 0]).reshape(-1, 1, 1, 1)  # the last one is 0
    rewards[2] = shaping(rewards[0], 3 * rng.standard_normal(mdp.num_states), mdp)
    table = REWARD_DISTANCES[name](rewards[:, None], rewards[None], mdp)  # (4, 4)
    np.testing.assert_allclose(table, table.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(table), 0, atol=1e-12)
    assert table.min() >= 0
    assert table.max() <= 1 + 1e-12
    assert (table[:, None, :] <= table[:, :, None] + table[None] + 1e-12).all(), (
        "the way through a third is not shorter"
    )
    np.testing.assert_allclose(table[3, :3], 0.5, atol=1e-12, err_msg="0 is not normalised, so it is in the middle")


@pytest.mark.parametrize("name", [name for name in REWARD_DISTANCES if name != "none"])
def test_rewards_equivalent_to_0_are_not_blown_up_by_normalising(name):
    rng = np.random.default_rng(1)
    mdp = random_sparse_mdp(rng, 12, 3, terminals=2)
    zero, other = shaping(np.zeros(mdp.rewards.shape), 1e3 * rng.standard_normal((20, 12)), mdp), mdp.rewards
    np.testing.assert_allclose(REWARD_DISTANCES[name](zero, np.zeros_like(other), mdp), 0)
    np.testing.assert_allclose(REWARD_DISTANCES[name](zero, other, mdp), 0.5)
    assert not standardise(zero, mdp).any()


def test_a_potential_in_terminal_states_is_no_shaping():
    # What a policy can feel: 0 -> 1 ends the episode, the other action stays. Paying at the end is not equivalent.
    rng = np.random.default_rng(2)
    mdp = random_sparse_mdp(rng, 8, 3, terminals=1)
    potential = np.where(mdp.terminal, 5.0, 0.0)
    np.testing.assert_array_equal(shaping(mdp.rewards, potential, mdp), mdp.rewards)
    paid = mdp.rewards + mdp.gamma * potential
    assert starc(mdp.rewards, paid, mdp) > 0.05


def test_val_of_the_optimal_policy_would_not_be_linear():
    rng = np.random.default_rng(3)
    mdp = random_sparse_mdp(rng, 8, 3)
    a, b = noise(mdp, rng, 2)

    def by_own_optimum(rewards):
        return val(rewards, mdp, policy=optimal_policy(mdp.with_rewards(rewards)))

    assert not np.allclose(by_own_optimum(a + b), by_own_optimum(a) + by_own_optimum(b))
    np.testing.assert_allclose(val(a + b, mdp), val(a, mdp) + val(b, mdp), atol=1e-12)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("canonicalise", ["val", "minimal", "none"])
def test_any_norm_gives_a_distance_in_0_to_1(canonicalise, norm):
    rng = np.random.default_rng(4)
    mdp = random_sparse_mdp(rng, 8, 3, terminals=1)
    rewards = noise(mdp, rng, 10)
    settings = {"canonicalise": canonicalise, "norm": norm}
    table = reward_distance(rewards[:, None], rewards[None], mdp, **settings)
    assert table.max() <= 1 + 1e-12
    assert table[~np.eye(10, dtype=bool)].min() > 0.01
    np.testing.assert_allclose(reward_distance(rewards, -3 * rewards, mdp, **settings), 1)


def test_a_disguised_reward_orders_all_policies_as_before_and_only_starc_knows_it():
    rng = np.random.default_rng(0)
    mdp = random_sparse_mdp(rng, 6, 3, successors=3)
    others = disguised(mdp.rewards, mdp, 4, rng)
    best = np.stack([optimal_policy(mdp.with_rewards(reward)) for reward in others])
    np.testing.assert_allclose(normalised_regret(mdp, best), 0.0, atol=1e-9)
    assert starc(mdp.rewards, others, mdp).max() < 1e-12
    assert REWARD_DISTANCES["epic"](mdp.rewards, others, mdp).min() > 0.01
