import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from prefenvs.agents.policy_evaluation import (
    LONG_STRAY,
    STRAY,
    FollowedReturns,
    faded,
    fit_value,
    followed_returns,
    linear_layers,
    stray_and_follow,
)
from prefenvs.oracles.value_nets import mlp

SIZES = {"Pendulum": 1, "Hopper": 3}


def still(size):
    return lambda observations: np.zeros((len(observations), size), np.float32)


def full(size):
    return lambda observations: np.ones((len(observations), size), np.float32)


def test_followed_returns_by_hand():
    # One stream. Step 0 strays; steps 1 and 2 follow and the stream is cut; step 3 follows and the episode ends.
    data = SimpleNamespace(
        observations=np.arange(4.0)[:, None, None],
        next_observations=10 + np.arange(4.0)[:, None, None],
        rewards=np.array([[8.0], [4.0], [2.0], [1.0]]),
        terminated=np.array([[False], [False], [False], [True]]),
        cut=np.array([[False], [False], [True], [True]]),
        following=np.array([[False], [True], [True], [True]]),
    )
    labels = followed_returns(data, 0.5, last_steps=1)
    np.testing.assert_array_equal(labels.observations[:, 0], [1, 2, 3])
    np.testing.assert_allclose(labels.gains, [4 + 0.5 * 2, 2, 1])
    np.testing.assert_allclose(labels.weight, [0.25, 0.5, 0.0])
    np.testing.assert_array_equal(labels.ends[:2, 0], [12, 12])
    np.testing.assert_array_equal(labels.since, [0, 1, 0])
    longer = followed_returns(data, 0.5, last_steps=2)
    np.testing.assert_array_equal(longer.observations[:, 0], [1, 3], err_msg="cut off too soon, unless it ended")


def test_fading_labels_are_kept_as_often_as_they_count():
    since = np.repeat([0, 10, 30], 4000)
    labels = FollowedReturns(since[:, None], since, since, since[:, None], since)
    kept = faded(labels, 10, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(kept.since)[[0, 10, 30]], [4000, 2000, 1000], atol=120)  # four deviations
    np.testing.assert_array_equal(kept.observations[:, 0], kept.gains)


def test_values_of_a_chain_that_can_be_worked_out():
    # At 0 every step pays 1 and stays: 1 / (1 - 0.5) = 2, seen for three steps. At 1 a step pays 3 and ends.
    place = np.float32(np.random.default_rng(0).integers(2, size=(2000, 1)))
    ends = place[:, 0] == 1
    labels = FollowedReturns(place, np.where(ends, 3.0, 1.75), np.where(ends, 0.0, 0.125), place, np.zeros(2000))
    layers = fit_value(labels, hidden=(16,), updates=800, seed=0)
    np.testing.assert_allclose(mlp(layers, np.float32([[0], [1]]))[:, 0], [2.0, 3.0], atol=0.05)
    again = fit_value(labels, hidden=(16,), updates=800, seed=0)
    np.testing.assert_array_equal(layers[0][0], again[0][0])


def test_layers_taken_from_a_module_compute_the_same():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    inputs = torch.randn(5, 3)
    before = module(inputs).detach()
    layers = linear_layers(module)
    with torch.no_grad():
        module[2].weight.zero_()
    np.testing.assert_allclose(mlp(layers, inputs.numpy()), before, atol=1e-6, err_msg="a copy, not a view")


@pytest.mark.parametrize("name", SIZES)
def test_streams_are_unbroken_where_they_are_not_cut_and_repeat(name):
    policy, other = still(SIZES[name]), full(SIZES[name])
    data, again = (stray_and_follow(name, policy, [other], steps=260, streams=3, follow=20, seed=3) for _ in range(2))
    for ours, theirs in zip(vars(data).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    on = ~data.cut[:-1]
    np.testing.assert_array_equal(data.next_observations[:-1][on], data.observations[1:][on])
    assert data.cut[data.terminated].all()
    assert data.terminated.any() == (name == "Hopper")
    np.testing.assert_array_equal(data.actions[data.following], 0)
    assert (data.actions[~data.following] == 1).any(), "one of others"
    assert 0.1 < data.following.mean() < 0.9
    assert np.abs(data.actions[~data.following]).max() <= 2


@pytest.mark.parametrize(("long_strays", "longest"), [(False, STRAY), (True, LONG_STRAY)])
def test_other_behaviour_lasts_as_long_as_it_may(long_strays, longest):
    settings = dict(steps=600, streams=8, follow=5, seed=0, long_strays=long_strays)
    data = stray_and_follow("Pendulum", still(1), [full(1)], **settings)
    lengths = []
    for stream in range(8):
        edges = np.flatnonzero(np.diff(data.following[:, stream]))
        lengths += [b - a for a, b in itertools.pairwise(edges) if not data.following[b, stream]]
    assert longest / 2 < max(lengths) <= longest
    assert min(lengths) == 1
    assert (np.median(lengths) < 20) == long_strays, "most of them are short"


def test_the_label_of_a_state_is_what_playing_on_from_it_gives():
    from prefenvs.making import make_task
    from prefenvs.tasks import TASKS

    data = stray_and_follow("Pendulum", still(1), [full(1)], steps=120, streams=4, follow=30, seed=0)
    labels = followed_returns(data, 0.9, last_steps=10)
    assert len(labels.gains) > 50
    task = make_task(TASKS["Pendulum"])
    task.reset(seed=0)
    for i in range(0, len(labels.gains), 10):
        cos, sin, speed = labels.observations[i].astype(float)
        task.set_state({**task.get_state(), "state": np.array([np.arctan2(sin, cos), speed])})
        count = round(np.log(labels.weight[i]) / np.log(0.9))
        gained = [task.step(np.zeros(1, np.float32))[:2] for _ in range(count)]
        np.testing.assert_allclose(labels.gains[i], np.dot(0.9 ** np.arange(count), [g[1] for g in gained]), rtol=1e-3)
        np.testing.assert_allclose(labels.ends[i], gained[-1][0], atol=1e-3)
