"""Windows against a plain reference that keeps every episode as a list."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import prefenvs
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


@settings(max_examples=40)
@given(episodes, st.integers(1, 6), st.sampled_from([16, 1000]))
def test_whole_windows_are_those_that_fit_into_their_episode(played, steps, capacity):
    store = SegmentStore(OBS, ACT, capacity=capacity)
    play(*zip(*played, strict=True), store)
    oldest, expected, position = len(store) - min(capacity, len(store)), set(), 0
    for episode, (length, _) in enumerate(played):
        expected |= {(episode, t) for t in range(max(oldest - position, 0), length - steps + 1)}
        position += length
    assert store.windows(steps, whole_windows=True) == len(expected)
    if not expected:
        with pytest.raises(ValueError, match="no episode has"):
            store.sample(1, steps, np.random.default_rng(0), whole_windows=True)
        return
    drawn = store.sample(60 * len(expected), steps, np.random.default_rng(0), whole_windows=True)
    assert drawn.mask.all()
    assert {(episode, t) for _, episode, t in drawn.ids.tolist()} == expected


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


def test_a_dict_in_a_dict_is_refused_when_the_store_is_made():
    space = gym.spaces.Dict({"arm": gym.spaces.Dict({"joint": gym.spaces.Discrete(3)})})
    with pytest.raises(TypeError, match="a Dict in a Dict"):
        SegmentStore(space, ACT)


def test_the_newest_episodes_alone_are_drawn_from_when_asked():
    store = SegmentStore(OBS, ACT)
    play([10, 10, 10], ["truncated", "terminated", "cut"], store)
    rng = np.random.default_rng(0)
    assert set(store.sample(100, 4, rng, newest=1).ids[:, 1]) == {2}
    assert set(store.sample(100, 4, rng, newest=2).ids[:, 1]) == {1, 2}
    assert store.windows(4, newest=1) == 7
    with pytest.raises(ValueError, match="newest=0"):
        store.sample(1, 4, rng, newest=0)


def test_windows_are_drawn_uniformly():
    store = SegmentStore(OBS, ACT)
    play([12, 5, 9], ["truncated", "terminated", "cut"], store)  # 9 + 5 + 6 windows of 4 steps
    drawn = store.sample(20_000, 4, np.random.default_rng(0)).ids[:, 1:]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert counts.shape == (20,)
    assert stats.chisquare(counts).pvalue > 1e-4


def step(store, t, after=None, ended=False):
    """Feed step t of episode 0; its id is that after the step, unless told otherwise."""
    ids = np.array([[0, 0, t if after is None else after]])
    store.add(np.array([[t - 1.0]]), np.array([t - 1]), np.array([[float(t)]]), [ended], [False], ids)


def seen_elsewhere(cut):
    """A store that saw steps 1 to 5 and 8 to 12 of an episode; 6 and 7 happened elsewhere."""
    store = SegmentStore(OBS, ACT)
    for t in [*range(1, 6), *range(8, 13)]:
        if t == 8 and cut:
            store.cut()
        step(store, t)
    return store


@pytest.mark.parametrize("cut", [False, True])
def test_steps_that_were_not_seen_split_an_episode(cut):
    drawn = seen_elsewhere(cut).sample(300, 4, np.random.default_rng(0))
    assert set(drawn.ids[:, 2]) == {0, 1, 7, 8}
    for first, seen in zip(drawn.ids[:, 2], drawn.observations[..., 0], strict=True):
        assert seen.tolist() == [first, first + 1, first + 2, first + 3, first + 4]


class Twice(gym.Wrapper):
    """Repeats each action, as learners of games do."""

    def step(self, action):
        self.env.step(action)
        return self.env.step(action)


def test_a_wrapper_that_repeats_actions_is_refused_above_the_preference_environment_and_not_below():
    def fill(env):
        store = SegmentStore(env.observation_space, env.action_space)
        before, _ = env.reset(seed=0)
        for _ in range(6):
            after, *_, info = env.step(0)
            store.add(before[None], np.array([0]), after[None], [False], [False], info["segment_id"][None])
            before = after
        return store

    with pytest.raises(ValueError, match=r"jump from step 2 to 4 in episode 0 .* below the preference environment"):
        fill(Twice(prefenvs.wrap(gym.make("MountainCar-v0"))))
    assert fill(prefenvs.wrap(Twice(gym.make("MountainCar-v0")))).windows(4, whole_windows=True) == 3


def test_what_is_refused_is_not_recorded():
    store = SegmentStore(OBS, ACT)
    step(store, 1)
    with pytest.raises(ValueError, match="jump from step 1 to 3"):
        step(store, 3)
    with pytest.raises(ValueError, match=r"ids\[0\] = \[0, 0, 0\] is that of a reset. Under SAME_STEP"):
        step(store, 2, after=0, ended=True)
    for t in range(2, 5):
        step(store, t)
    assert (len(store), store.windows(4)) == (4, 1)


def test_an_episode_that_is_cut_from_outside_ends_without_a_flag():
    store = SegmentStore(OBS, ACT)
    play([6], ["cut"], store)
    store.cut()
    drawn = store.sample(50, 4, np.random.default_rng(0))
    assert not drawn.terminated.any()
    assert not drawn.truncated.any()
    assert drawn.mask.all()


def test_environments_that_end_at_different_times_do_not_mix():
    store = SegmentStore(OBS, ACT, num_envs=3, capacity=40)
    rng, episode, at = np.random.default_rng(0), np.zeros(3, int), np.zeros(3, int)
    ends = {}
    for _ in range(100):
        before = 10_000.0 * np.arange(3) + 100.0 * episode + at
        terminated = rng.random(3) < 0.1
        ids = np.stack([np.arange(3), episode, at + 1], 1)
        store.add(before[:, None], np.arange(3), before[:, None] + 1, terminated, [False] * 3, ids)
        ends |= {(row, int(episode[row])): int(at[row]) + 1 for row in np.flatnonzero(terminated).tolist()}
        episode, at = episode + terminated, np.where(terminated, 0, at + 1)
    drawn = store.sample(2000, 5, rng)
    assert set(drawn.ids[:, 0]) == {0, 1, 2}
    assert (drawn.actions[drawn.mask] == np.repeat(drawn.ids[:, 0], drawn.lengths)).all()
    for (row, number, first), length, seen, ended in zip(
        drawn.ids.tolist(), drawn.lengths.tolist(), drawn.observations[..., 0], drawn.terminated, strict=True
    ):
        start = 10_000.0 * row + 100.0 * number + first
        assert seen[: length + 1].tolist() == [start + j for j in range(length + 1)]
        assert not seen[length + 1 :].any()
        assert ended == (ends.get((row, number)) == first + length)
