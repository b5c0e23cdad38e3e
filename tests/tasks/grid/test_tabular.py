import numpy as np
import pytest

from prefenvs.tasks.grid.delivery import delivery_world
from prefenvs.tasks.grid.solvers import policy_evaluation, policy_iteration, uniform_policy
from prefenvs.tasks.grid.tabular import TabularMDP


def chain(**changes):
    """0 -> 1 for reward 5, and 1 ends the episode; one action, two features."""
    transitions = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    features = np.zeros((2, 1, 2, 2))
    features[0, 0, 1] = [1.0, 2.0]
    fields = {
        "transitions": transitions,
        "rewards": features @ [1.0, 2.0],
        "gamma": 0.9,
        "start": np.array([1.0, 0.0]),
        "terminal": np.array([False, True]),
        "features": features,
        "weights": np.array([1.0, 2.0]),
        "feature_names": ("near", "far"),
    }
    return TabularMDP(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transitions": np.ones((2, 1, 3))}, r"transitions has shape \(2, 1, 3\), expected \(S, A, S\)"),
        ({"transitions": np.full((2, 1, 2), 0.4)}, r"transitions must hold probabilities that sum to 1.*0\.8"),
        ({"transitions": np.array([[[-1.0, 2.0]], [[0.0, 1.0]]])}, "its least entry is -1"),
        ({"rewards": np.zeros((2, 1))}, r"rewards has shape \(2, 1\), expected \(2, 1, 2\)"),
        ({"rewards": np.full((2, 1, 2), -np.inf)}, "rewards must be finite"),
        ({"gamma": 1.5}, "gamma=1.5 is not a discount"),
        ({"gamma": 0.0}, "gamma=0.0 is not a discount"),
        ({"start": np.array([0.5, 0.5])}, "start gives probability 0.5 to terminal states"),
        ({"start": np.array([2.0, 0.0])}, "start must hold probabilities"),
        ({"terminal": np.array([False])}, r"terminal has shape \(1,\), expected \(2,\)"),
        ({"weights": None}, "features and weights belong together"),
        ({"features": None, "weights": None}, "features and weights belong together"),
        ({"weights": np.ones(3)}, r"features has shape \(2, 1, 2, 2\) and weights \(3,\)"),
        ({"feature_names": ("near",)}, "feature_names has 1 names, expected 2"),
        ({"weights": np.array([1.0, 3.0])}, r"rewards\[0, 0, 1\] = 5 but features @ weights gives 7 there"),
    ],
)
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        chain(**changes)


def test_arrays_are_copies_that_nobody_can_change():
    start = np.array([1.0, 0.0])
    mdp = chain(start=start)
    start[:] = 7
    np.testing.assert_array_equal(mdp.start, [1, 0])
    with pytest.raises(ValueError, match="read-only"):
        mdp.rewards[0] = 1


def test_terminal_self_loops_are_never_counted():
    mdp = delivery_world().mdp
    looped = np.array(mdp.rewards)
    ended = np.flatnonzero(mdp.terminal)
    looped[ended, :, ended] = 100.0
    for solved, expected in zip(policy_iteration(mdp.with_rewards(looped)), policy_iteration(mdp), strict=True):
        np.testing.assert_array_equal(solved, expected)
        assert not solved[mdp.terminal].any()
    uniform = uniform_policy(mdp)
    np.testing.assert_array_equal(policy_evaluation(mdp.with_rewards(looped), uniform), policy_evaluation(mdp, uniform))


def test_expected_rewards_weigh_by_probability():
    half = chain(transitions=np.array([[[0.5, 0.5]], [[0.0, 1.0]]]))
    np.testing.assert_allclose(half.expected_rewards(), [[2.5], [0]])
    np.testing.assert_allclose(half.expected_features(), [[[0.5, 1.0]], [[0, 0]]])
    assert not half.deterministic
    assert chain().deterministic


def test_weights_replace_the_reward_and_keep_the_features():
    mdp = chain().with_weights(np.array([10.0, -1.0]))
    np.testing.assert_allclose(mdp.expected_rewards(), [[8.0], [0.0]])
    assert mdp.features is not None
    bare = mdp.with_rewards(mdp.rewards)
    assert bare.features is None
    with pytest.raises(ValueError, match="no features to weight"):
        bare.with_weights(np.ones(2))
    with pytest.raises(ValueError, match="has no features"):
        bare.expected_features()
