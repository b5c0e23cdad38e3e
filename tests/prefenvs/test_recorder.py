"""What the recorder gathers, against the lists it was fed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.error import SegmentForgotten
from prefenvs.recorder import Recorder


def fed(lengths, episodes=100, every=50):
    """A recorder whose every number names its place, and the same as plain lists, by episode."""
    recorder, plain = Recorder(("a", "b"), episodes, every), {}
    for episode, length in enumerate(lengths):
        values = [100.0 * episode + t for t in range(length + 1)]
        plain[episode] = values
        recorder.reset(np.array([values[0]]))
        recorder.add_snapshot({"at": np.array(0), "empty": np.zeros((0, 2))})
        for t in range(length):
            factors = (values[t], -values[t])
            recorder.add(t, np.array([values[t + 1]]), 0.5 * values[t], factors, terminated=t == length - 1)
            if recorder.wants_snapshot():
                recorder.add_snapshot({"at": np.array(t + 1), "empty": np.ones((t, 2))})
    return recorder, plain


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_judging_equals_a_plain_reference(lengths, steps, random):
    recorder, plain = fed(lengths)
    windows = []
    for _ in range(8):
        episode = random.randrange(len(lengths))
        first = random.randrange(lengths[episode])
        windows.append((episode, first, min(steps, lengths[episode] - first)))
    found = recorder.judge(*np.array(windows).T, steps)
    for i, (episode, first, length) in enumerate(windows):
        values = plain[episode][first : first + length + 1]
        padding = [0.0] * (steps - length)
        assert found["observations"][i, :, 0].tolist() == values + padding
        assert found["actions"][i].tolist() == [*range(first, first + length), *map(int, padding)]
        assert found["rewards"][i].tolist() == [0.5 * value for value in values[:-1]] + padding
        assert found["factors"]["a"][i].tolist() == values[:-1] + padding
        assert found["factors"]["b"][i].tolist() == [-value for value in values[:-1]] + padding
        assert found["mask"][i].tolist() == [j < length for j in range(steps)]
        assert found["terminated"][i] == (first + length == lengths[episode])


@pytest.mark.parametrize("reads", [(), ("rewards",), ("factors",), ("observations", "actions")])
def test_judging_fills_what_is_read_and_leaves_the_rest_empty(reads):
    recorder, _ = fed([5, 3])
    window = np.array([[0, 1, 3], [1, 0, 2]]).T
    whole, part = recorder.judge(*window, 3), recorder.judge(*window, 3, reads)
    for name, value in part.items():
        if name in (*reads, "mask", "terminated"):
            np.testing.assert_equal(value, whole[name])
        elif name == "factors":
            assert value == {}
        else:
            assert value.shape == (2, 0)


def test_the_latest_episodes_are_kept_beside_the_present_one():
    recorder, _ = fed([4] * 6, episodes=2)
    for episode in range(6):
        arguments = np.array([episode]), np.array([0]), np.array([4]), 4
        if episode >= 3:
            recorder.judge(*arguments)
        else:
            with pytest.raises(SegmentForgotten, match=f"episode {episode} is no longer recorded: the last 2 are kept"):
                recorder.judge(*arguments)


@pytest.mark.parametrize("first", [-1, 2, 9])
def test_steps_that_never_happened_are_refused(first):
    recorder, _ = fed([4])
    with pytest.raises(SegmentForgotten, match="never recorded: it has 4 steps"):
        recorder.judge(np.array([0, 0]), np.array([0, first]), np.array([3, 3]), 3)


def test_what_is_recorded_is_a_copy():
    recorder = Recorder(("a",))
    observation, action = np.array([1.0]), np.array([2.0])
    recorder.reset(observation)
    recorder.add(action, observation, 3.0, (3.0,), terminated=False)
    observation[:], action[:] = 9.0, 9.0
    found = recorder.judge(np.array([0]), np.array([0]), np.array([1]), 1)
    assert found["observations"].ravel().tolist() == [1.0, 1.0]
    assert found["actions"].ravel().tolist() == [2.0]


def test_recent_returns_are_those_of_the_last_ten_finished_episodes():
    recorder, plain = fed([5] * 14)
    returns = [0.5 * sum(values[:-1]) for values in plain.values()]
    mean, steps = recorder.recent_returns()
    assert mean == pytest.approx(np.mean(returns[3:13]))  # the fourteenth is under way
    assert steps == 5.0
    assert Recorder(()).recent_returns() == (0.0, 0.0)


def test_a_state_is_replayed_from_the_newest_snapshot_before_it():
    recorder, _ = fed([3, 25], every=10)
    state, actions, at = recorder.replay_from(1, 17)
    assert (state["at"], at) == (10, 10)
    assert actions == list(range(10, 25))
    assert recorder.replay_from(1, 10)[2] == 10
    assert recorder.replay_from(1, 9)[2] == 0
    with pytest.raises(SegmentForgotten, match="no state of episode 7"):
        recorder.replay_from(7, 0)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_a_restored_recorder_is_the_same(lengths):
    recorder, _ = fed(lengths, episodes=3, every=4)
    other = Recorder(("a", "b"), 3, 4)
    other.load_state(recorder.state())
    assert other.state().keys() == recorder.state().keys()
    for name, array in recorder.state().items():
        np.testing.assert_array_equal(other.state()[name], array)
        assert other.state()[name].dtype == array.dtype
    for episode in range(max(len(lengths) - 4, 0), len(lengths)):
        one, two = (held.replay_from(episode, lengths[episode]) for held in (recorder, other))
        assert one[1:] == two[1:]
        for name in one[0]:
            np.testing.assert_array_equal(one[0][name], two[0][name])
    for held in (recorder, other):
        held.reset(np.array([1.0]))
    assert other.recent_returns() == recorder.recent_returns()


def test_observations_of_several_kinds_keep_their_types():
    recorder = Recorder(("a",))
    for t in range(4):
        seen = {"image": np.full((2, 2), t, np.uint8), "room": np.int64(t)}
        if t:
            recorder.add(np.int64(1), seen, 0.0, (0.0,), terminated=False)
        else:
            recorder.reset(seen)
    other = Recorder(("a",))
    other.load_state(recorder.state())
    for held in (recorder, other):
        found = held.judge(np.array([0]), np.array([1]), np.array([2]), 3)["observations"]
        assert (found["image"].dtype, found["room"].dtype) == (np.uint8, np.int64)
        assert found["room"].tolist() == [[1, 2, 3, 0]]


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
