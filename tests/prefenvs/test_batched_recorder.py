"""A batched recorder against as many single ones, fed the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.batched_recorder import BatchedRecorder
from prefenvs.recorder import Recorder

FACTORS = ("a", "b")


def fed(n, ends, episodes, lines, asked=()):
    """Both kinds, fed `ends` (T, N): 0 goes on, 1 terminates, 2 is cut; who ended begins instead of the next step."""
    batched = BatchedRecorder(n, FACTORS, episodes, lines)
    singles = [Recorder(FACTORS, episodes) for _ in range(n)]
    values = np.random.default_rng(0).normal(size=(len(ends) + 1, n, 6)).astype(np.float32)

    def begin(rows, observations):
        batched.begin(rows, observations)
        for row in rows:
            singles[row].reset(observations[row])
            batched.add_snapshot(row, {"at": np.array([0])})
            singles[row].add_snapshot({"at": np.array([0])})

    begin(np.arange(n), values[-1, :, :3])
    over = np.zeros(n, bool)
    for t, end in enumerate(ends):
        acted, value = ~over, values[t]
        if over.any():
            begin(np.flatnonzero(over), value[:, :3])
        rewards, factors = value[:, 5].astype(np.float64), value[:, 4:].astype(np.float64)
        batched.add(value[:, 3:5], value[:, :3], rewards, factors, np.array(end) == 1, acted)
        for row in np.flatnonzero(acted):
            singles[row].add(
                value[row, 3:5], value[row, :3], rewards[row], tuple(factors[row]), terminated=end[row] == 1
            )
        if t in asked:
            batched.stream(t % n)
        over = acted & (np.array(end) > 0)
    return batched, singles


def assert_same(ours, theirs):
    ours, theirs = ours.state(), theirs.state()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        assert ours[name].dtype == theirs[name].dtype


@given(
    st.integers(1, 3).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.sampled_from([0, 0, 0, 1, 2])] * n), max_size=30))
    ),
    st.integers(1, 4),
    st.sampled_from([1, 3, 256]),
    st.sets(st.integers(0, 29)),
)
def test_it_holds_what_as_many_recorders_hold(batch, episodes, lines, asked):
    n, ends = batch
    batched, singles = fed(n, ends, episodes, lines, asked)
    np.testing.assert_array_equal(batched.steps, [single.step for single in singles])
    np.testing.assert_array_equal(batched.episodes, [single.episode for single in singles])
    for row, single in enumerate(singles):
        assert batched.stream(row).recent_returns() == single.recent_returns()
        assert_same(batched.stream(row), single)


def test_it_goes_on_from_a_loaded_state():
    ends = [(0, 0), (1, 0), (0, 2), (0, 0)]
    batched, singles = fed(2, ends, 5, 256)
    copy = BatchedRecorder(2, FACTORS, 5)
    for row in range(2):
        copy.load_stream(row, batched.stream(row).state())
    np.testing.assert_array_equal(copy.steps, batched.steps)
    more = np.ones((2, 3), np.float32)
    for recorder in (batched, copy):
        recorder.add(more[:, :2], more, np.ones(2), np.ones((2, 2)), np.array([False, True]), np.ones(2, bool))
    for row, single in enumerate(singles):
        single.add(more[row, :2], more[row], 1.0, (1.0, 1.0), terminated=row == 1)
        assert_same(batched.stream(row), single)
        assert_same(copy.stream(row), single)


def test_an_unused_one_can_be_saved():
    copy = BatchedRecorder(1, FACTORS, 5)
    copy.load_stream(0, BatchedRecorder(1, FACTORS, 5).stream(0).state())
    assert (copy.episodes.tolist(), copy.steps.tolist()) == ([-1], [0])


def test_snapshots_fall_due_as_a_single_recorder_wants_them():
    batched, singles = fed(2, [(0, 0)] * 30 + [(0, 1)] + [(0, 0)] * 80, 5, 256)
    singles_due = [row for row, single in enumerate(singles) if single.wants_snapshot()]
    assert batched.snapshots_due().tolist() == singles_due == []
    for _ in range(50):
        batched.add(
            *[np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float32)],
            *[np.zeros(2), np.zeros((2, 2))],
            np.zeros(2, bool),
            np.ones(2, bool),
        )
        for single in singles:
            single.add(np.zeros(2), np.zeros(3), 0.0, (0.0, 0.0), terminated=False)
        due = [row for row, single in enumerate(singles) if single.wants_snapshot()]
        assert batched.snapshots_due().tolist() == due
