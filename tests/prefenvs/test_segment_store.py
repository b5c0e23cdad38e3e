"""Windows against a plain reference that keeps every episode as a list."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefenvs.recorder import Recorder
from prefenvs.segment_store import SegmentStore

OBS, ACT = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64), gym.spaces.Discrete(100_000)


def play(lengths, kinds, store, resets=False):
    """Feed episodes of one environment; every number names its place: observation 1000 * episode + t."""
    for episode, (length, kind) in enumerate(zip(lengths, kinds, strict=True)):
        if resets and episode:  # the step that Gymnasium's NEXT_STEP mode spends on a reset
            start = np.array([[1000.0 * episode]])
            store.add(start - 1, np.array([7]), start, [False], [False], np.array([[0, episode, 0]]))
        for t in range(length):
            last = t == length - 1
            before, after = np.array([[1000.0 * episode + t]]), np.array([[1000.0 * episode + t + 1]])
            action, ids = np.array([1000 * episode + t]), np.array([[0, episode, t + 1]])
            store.add(before, action, after, [last and kind == "terminated"], [last and kind == "truncated"], ids)


episodes = st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["terminated", "truncated", "cut"])), min_size=1)


@settings(max_examples=40)
@given(episodes, st.integers(1, 6), st.booleans(), st.sampled_from([16, 1000]))
def test_windows_are_those_of_a_plain_reference(played, steps, resets, capacity):
    store = SegmentStore(OBS, ACT, capacity=capacity)
    lengths, kinds = zip(*played, strict=True)
    play(lengths, kinds, store, resets)
    oldest = len(store) - min(capacity, len(store))
    expected, position = set(), 0
    for episode, (length, kind) in enumerate(played):
        position += resets and episode > 0
        first = max(oldest - position, 0)
        stop = length if kind == "terminated" else length - steps + 1
        if kind == "truncated" and length < steps and first == 0:
            stop = 1
        expected |= {(episode, t) for t in range(first, stop)}
        position += length
    assert store.windows(steps) == len(expected)
    if not expected:
        with pytest.raises(ValueError, match="no episode has"):
            store.sample(1, steps, np.random.default_rng(0))
        return
    drawn = store.sample(60 * len(expected), steps, np.random.default_rng(0))
    assert {(episode, t) for _, episode, t in drawn.ids.tolist()} == expected
    for i in range(len(drawn)):
        _, episode, t = drawn.ids[i]
        length = min(lengths[episode] - t, steps)
        assert drawn.mask[i].tolist() == [j < length for j in range(steps)]
        wanted = [1000.0 * episode + t + j if j <= length else 0.0 for j in range(steps + 1)]
        assert drawn.observations[i, :, 0].tolist() == wanted
        assert drawn.actions[i].tolist() == [int(w) if j < length else 0 for j, w in enumerate(wanted[:-1])]
        ends = t + length == lengths[episode]
        assert drawn.terminated[i] == (ends and kinds[episode] == "terminated")
        assert drawn.truncated[i] == (ends and kinds[episode] == "truncated")


def test_a_restored_store_draws_the_same_and_goes_on():
    store = SegmentStore(OBS, ACT, capacity=64)
    play([30, 20, 40], ["terminated", "truncated", "cut"], store)
    other = SegmentStore(OBS, ACT, capacity=64)
    other.load_state(store.state())
    for one in (store, other):
        ids = np.array([[0, 2, 41]])
        one.add(np.array([[2040.0]]), np.array([5]), np.array([[2041.0]]), [True], [False], ids)
    first, second = (one.sample(200, 8, np.random.default_rng(0)) for one in (store, other))
    for name in ("observations", "actions", "mask", "terminated", "truncated", "ids"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_dict_observations_keep_their_types():
    space = gym.spaces.Dict({"image": gym.spaces.Box(0, 255, (2, 2), np.uint8), "room": gym.spaces.Discrete(4)})
    store = SegmentStore(space, ACT, num_envs=2)
    for t in range(1, 10):
        seen = {"image": np.full((2, 2, 2), t, np.uint8), "room": np.array([t % 4, 3])}
        store.add(seen, np.array([t, t]), seen, [False] * 2, [t == 9] * 2, np.array([[0, 0, t], [1, 0, t]]))
    drawn = store.sample(5, 4, np.random.default_rng(0))
    assert drawn.observations["image"].dtype == np.uint8
    assert drawn.observations["image"].shape == (5, 5, 2, 2)
    assert drawn.observations["room"].dtype == np.int64
    restored = SegmentStore(space, ACT, num_envs=2)
    restored.load_state(store.state())
    np.testing.assert_array_equal(
        restored.sample(5, 4, np.random.default_rng(0)).observations["image"], drawn.observations["image"]
    )


def test_ids_of_another_shape_are_refused():
    store = SegmentStore(OBS, ACT, num_envs=2)
    with pytest.raises(ValueError, match="expected \\(num_envs, 3\\)"):
        store.add(np.zeros((2, 1)), np.zeros(2), np.zeros((2, 1)), [False] * 2, [False] * 2, np.zeros(3))


def test_the_recorder_gathers_what_happened_and_restores():
    recorder = Recorder(("a", "b"), episodes=3)
    for episode in range(5):
        recorder.reset(np.array([100.0 * episode]))
        for t in range(4 + episode):
            value = 100.0 * episode + t
            recorder.add(t, np.array([value + 1]), value, (value, -value), terminated=t == 3 + episode)
    other = Recorder(("a", "b"), episodes=3)
    other.load_state(recorder.state())
    for one in (recorder, other):
        found = one.judge(np.array([4, 2]), np.array([5, 0]), np.array([3, 4]), steps=4)
        assert found["rewards"].tolist() == [[405, 406, 407, 0], [200, 201, 202, 203]]
        assert found["factors"]["b"].tolist() == [[-405, -406, -407, 0], [-200, -201, -202, -203]]
        assert found["observations"][..., 0].tolist() == [[405, 406, 407, 408, 0], [200, 201, 202, 203, 204]]
        assert found["terminated"].tolist() == [True, False]
        assert one.recent_returns() == recorder.recent_returns()
