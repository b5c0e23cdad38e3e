import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from prefenvs.metrics import group_mass, with_group_mass


def test_the_mass_of_chosen_rejected_and_unseen_responses_by_hand():
    policy = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.5, 0.0]])
    group = np.array([[0, 1, 2, 1], [2, 2, 0, 1]])
    assert_allclose(group_mass(policy, group, 3), [[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]])


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_groups_sum_to_one_whatever_the_order_of_the_responses(seed, groups, responses):
    rng = np.random.default_rng(seed)
    policies = rng.dirichlet(np.full(responses, 0.3), (4, 3))  # checkpoints, prompts
    group, order = rng.integers(groups, size=(3, responses)), rng.permutation(responses)
    mass = group_mass(policies, group, groups)
    assert_allclose(mass.sum(-1), np.ones((4, 3)))
    assert_allclose(group_mass(policies[..., order], group[..., order], groups), mass)
    assert_allclose(mass, np.stack([np.where(group == g, policies, 0).sum(-1) for g in range(groups)], -1))


def test_a_group_that_is_not_counted_is_refused():
    with pytest.raises(ValueError, match=r"from 0 to 3, expected 0 to groups - 1 = 2"):
        group_mass(np.full(4, 0.25), np.arange(4), 3)


def test_groups_given_a_mass_have_it_and_keep_their_proportions():
    policy, group = np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0, 1, 2, 1]])
    changed = with_group_mass(policy, group, np.array([0.5, 0.3, 0.2]))
    assert_allclose(changed, [[0.5, 0.1, 0.2, 0.2]])
