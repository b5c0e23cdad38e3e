"""Both doors to a task, reached singly, in vectors, through wrappers and from other processes."""

import copy
import pickle
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import (
    FrameStackObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TimeLimit,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize

import prefenvs
from prefenvs import PreferenceEnv, Query, SegmentStore

STEPS = 230  # more than one episode of Pendulum


def sb3_rollout(venv, store, rng, steps=STEPS):
    """Play random actions; the store gets what a learner would see. Returns all observations in order."""
    observations = venv.reset()
    for _ in range(steps):
        actions = np.stack([rng.uniform(-2, 2, (1,)).astype(np.float32) for _ in range(venv.num_envs)])
        after, rewards, dones, infos = venv.step(actions)
        assert not rewards.any()
        ends = np.array([info.get("terminal_observation", row) for info, row in zip(infos, after, strict=True)])
        cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        store.add(observations, actions, ends, dones & ~cut, cut, np.stack([i["segment_id"] for i in infos]))
        observations = after


def assert_judged_as_seen(env, segments):
    """What the oracle judges is what the learner saw, and its rewards are those of the pendulum's own formula."""
    judged = prefenvs.feedback(env)._judge(segments)
    assert np.array_equal(judged.mask, segments.mask)
    np.testing.assert_array_equal(judged.observations, segments.observations)
    np.testing.assert_array_equal(judged.actions, segments.actions)
    cos, sin, speed = np.moveaxis(judged.observations[:, :-1], -1, 0)
    torque = np.clip(judged.actions[..., 0], -2, 2)
    reward = -(np.arctan2(sin, cos) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)
    np.testing.assert_allclose(judged.rewards, reward * judged.mask, atol=1e-4)  # observations are float32
    np.testing.assert_allclose(prefenvs.true_scores(env, segments), judged.rewards.sum(1))


def spawn(functions):
    return SubprocVecEnv(functions, start_method="spawn")


@pytest.mark.parametrize("kind", [DummyVecEnv, spawn], ids=["dummy", "subproc"])
def test_an_sb3_batch_has_one_budget_and_judges_what_was_seen(kind):
    # "module:id" imports the module in a fresh process, as for every package that registers environments.
    venv = kind([lambda: gym.make("prefenvs:prefenvs/Pendulum-v0", budget=12)] * 2)
    try:
        feedback = prefenvs.feedback(venv)
        store = SegmentStore(venv.observation_space, venv.action_space, 2)
        sb3_rollout(venv, store, np.random.default_rng(0))
        segments = store.sample(24, 20, np.random.default_rng(1))
        assert set(segments.ids[:, 0]) == {0, 1}
        assert_judged_as_seen(venv, segments)
        feedback.ask(Query(segments[:20]))
        assert prefenvs.feedback(venv) is feedback
        assert (feedback.asked, feedback.remaining) == (10, 2)
        with pytest.raises(prefenvs.BudgetSpent, match="asked for 12 labels, 2 of 12 are left"):
            feedback.ask(Query(segments))
        assert feedback.asked == 10
    finally:
        venv.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_gymnasium_batch_judges_what_was_seen(mode):
    envs = gym.make_vec("prefenvs/Pendulum-v0", num_envs=2, vectorization_mode=mode, budget=12)
    try:
        feedback = prefenvs.feedback(envs)
        store = SegmentStore(envs.single_observation_space, envs.single_action_space, 2)
        rng = np.random.default_rng(0)
        observations, infos = envs.reset(seed=0)
        for _ in range(STEPS):
            actions = rng.uniform(-2, 2, (2, 1)).astype(np.float32)
            after, rewards, terminated, truncated, infos = envs.step(actions)
            assert not rewards.any()
            store.add(observations, actions, after, terminated, truncated, infos["segment_id"])
            observations = after
        segments = store.sample(24, 20, rng)
        assert set(segments.ids[:, 1]) == {0, 1}
        assert_judged_as_seen(envs, segments)
        label = feedback.ask(Query(segments))
        assert (label.choice.sum(1) == 1).all()
    finally:
        envs.close()


@pytest.mark.parametrize(
    "wrap",
    [
        RecordEpisodeStatistics,
        NormalizeObservation,
        lambda env: FrameStackObservation(env, 3),
        lambda env: TimeLimit(env, 40),
    ],
    ids=["statistics", "normalize", "frames", "time-limit"],
)
def test_wrappers_change_what_is_seen_and_not_what_is_judged(wrap):
    env = wrap(gym.make("prefenvs/Pendulum-v0", budget=5))
    mirror = gym.make("prefenvs/Pendulum-v0", evaluation=True)
    feedback = prefenvs.feedback(env)
    assert prefenvs.feedback(env.unwrapped) is feedback
    store = SegmentStore(env.observation_space, env.action_space)
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=5)
    mirror.reset(seed=5)
    rewards = []
    for _ in range(40):
        action = rng.uniform(-2, 2, (1,)).astype(np.float32)
        after, reward, terminated, truncated, info = env.step(action)
        rewards.append(mirror.step(action)[1])
        assert reward == 0.0
        ids = info["segment_id"][None]
        store.add(observation[None], action[None], np.asarray(after)[None], [terminated], [truncated], ids)
        observation = after
    segments = store.sample(6, 10, rng)
    expected = [sum(rewards[first : first + 10]) for first in segments.ids[:, 2]]
    np.testing.assert_allclose(prefenvs.true_scores(env, segments), expected)


def test_the_evaluation_door_shows_reward_and_factors_and_answers_nothing():
    env = gym.make("prefenvs/MountainCarContinuous-v0", evaluation=True)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([1.0], np.float32))
    assert reward == pytest.approx(-0.1)
    assert info["factors"] == {"goal": 0.0, "control_cost": pytest.approx(-0.1)}
    assert info["success"] is False
    with pytest.raises(prefenvs.EvaluationOnly, match="without evaluation=True"):
        prefenvs.feedback(env)


def test_any_environment_can_be_wrapped():
    env = prefenvs.wrap(gym.make("CartPole-v1"), budget=3)
    env.reset(seed=0)
    assert env.step(1)[1] == 0.0
    assert env.task_name == "CartPole-v1"
    judged = prefenvs.feedback(env)._judge(played(env, 12))
    assert judged.factors.keys() == {"reward"}
    assert (judged.rewards == judged.mask).all()


def test_an_environment_whose_reward_is_hidden_already_is_not_wrapped_again():
    for env in (gym.make("prefenvs/CartPole-v0"), gym.wrappers.TimeLimit(prefenvs.wrap(gym.make("CartPole-v1")), 9)):
        with pytest.raises(ValueError, match=r"hides its reward.*evaluation=True"):
            prefenvs.wrap(env)
    env = prefenvs.wrap(gym.make("prefenvs/CartPole-v0", evaluation=True))
    assert (prefenvs.feedback(env)._judge(played(env, 12)).rewards > 0).any()


@pytest.mark.parametrize(
    "make",
    [
        *(
            partial(gym.make, f"prefenvs/{task}-v0")
            for task in ("CartPole", "HalfCheetah", "GridWindy", "TextSentiment")
        ),
        lambda: prefenvs.wrap(gym.make("MountainCar-v0")),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasiums_check_env_finds_that_ids_are_not_given_twice_and_nothing_else(make, monkeypatch):
    with pytest.raises(AssertionError, match="step info are not equivalent for the same seed and action"):
        check_env(make().unwrapped, skip_render_check=True)
    monkeypatch.setattr(PreferenceEnv, "_info", lambda *_: {})
    check_env(make().unwrapped, skip_render_check=True)


def played(env, steps):
    store = SegmentStore(env.observation_space, env.action_space)
    observation, _ = env.reset(seed=1)
    for step in range(steps):
        after, _, terminated, truncated, info = env.step(step % 2)
        ids = info["segment_id"][None]
        store.add(observation[None], np.array([step % 2]), after[None], [terminated], [truncated], ids)
        observation = after
    return store.sample(4, 5, np.random.default_rng(0))


def test_a_pickled_copy_starts_afresh_with_the_same_settings():
    env = gym.make("prefenvs/Pendulum-v0", budget=7, teacher="noisy").unwrapped
    prefenvs.feedback(env)
    copied = pickle.loads(pickle.dumps(env))
    assert copied.feedback_config == env.feedback_config
    assert prefenvs.feedback(copied) is not prefenvs.feedback(env)
    first, second = env.reset(seed=3)[0], copied.reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)


def test_a_copy_keeps_the_spec_and_begins_an_episode_before_it_steps():
    env = gym.make("prefenvs/Pendulum-v0", budget=7, max_episode_steps=9)
    env.reset(seed=3)
    env.step(np.zeros(1, np.float32))
    for copied in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        assert (copied.spec, copied.unwrapped.spec) == (env.spec, env.unwrapped.spec)
        assert copied.spec.kwargs["budget"] == 7
        assert copied.spec.max_episode_steps == 9
        with pytest.raises(gym.error.ResetNeeded, match=r"Call reset\(\) first"):
            copied.step(np.zeros(1, np.float32))
        np.testing.assert_array_equal(copied.reset(seed=3)[0], env.reset(seed=3)[0])


@pytest.mark.parametrize(
    ("action", "message"),
    [(np.array([np.nan], np.float32), "finite numbers"), (np.zeros(2, np.float32), "expected \\(1,\\)")],
)
def test_a_bad_action_is_refused_before_anything_happens(action, message):
    env = gym.make("prefenvs/Pendulum-v0", disable_env_checker=True)
    env.reset(seed=0)
    before = env.unwrapped._recorder.step
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert env.unwrapped._recorder.step == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"oracle": "regrett"}, "Did you mean 'regret'"),
        ({"teacher": "misteak"}, "Did you mean 'mistake'"),
        ({"answer": "choise"}, "Did you mean 'choice'"),
        ({"bugdet": 3}, "Did you mean 'budget'"),
        ({"budget": -1}, "negative"),
        ({"autoreset_mode": "SameStep"}, r"gym\.make_vec\(\.\.\., vector_kwargs="),
    ],
)
def test_unknown_settings_suggest_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        gym.make("prefenvs/Pendulum-v0", **arguments)


@pytest.mark.parametrize("settings", [{"budget": "500"}, {"budget": 4.5}, {"budget": 4.0}, {"feedback_seed": None}])
def test_numbers_that_are_not_whole_are_refused(settings):
    (name, value), *_ = settings.items()
    with pytest.raises(TypeError, match=f"{name}={value!r}, expected a whole number"):
        gym.make("prefenvs/Pendulum-v0", **settings)
    env = gym.make("prefenvs/Pendulum-v0", budget=np.int64(5), feedback_seed=np.uint64(2**64 - 1))
    assert prefenvs.feedback(env).remaining == 5


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("task", ["CartPole", "Pendulum", "HalfCheetah", "GridWindy"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_is_drawn_without_a_render_mode(task, evaluation):
    env = gym.make(f"prefenvs/{task}-v0", evaluation=evaluation)
    env.reset(seed=0)
    assert env.render() is None


def test_a_forgotten_segment_spends_nothing():
    env = gym.make("prefenvs/CartPole-v0", budget=5, recorded_episodes=2)
    segments = played(env, 10)
    feedback = prefenvs.feedback(env)
    for _ in range(4):
        env.reset()
        env.step(0)
    with pytest.raises(prefenvs.SegmentForgotten, match="recorded_episodes="):
        feedback.ask(Query(segments))
    assert (feedback.asked, feedback.remaining) == (0, 5)


@pytest.mark.usefixtures("gl")
def test_pixels_are_small_uint8_images():
    env = gym.make("prefenvs/HalfCheetah-v0", pixels=32)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (32, 32, 3)
    assert observation.dtype == np.uint8
    assert env.observation_space.contains(observation)
    assert observation.std() > 0
    env.close()


TASKS = ["CartPole", "Pendulum", "HalfCheetah"]


def make_batch(kind, name, **settings):
    """Two environments, batched in one of four ways."""
    functions = [partial(gym.make, f"prefenvs:prefenvs/{name}-v0", **settings)] * 2
    kinds = {
        "dummy": DummyVecEnv,
        "subproc": partial(SubprocVecEnv, start_method="fork"),
        "sync": gym.vector.SyncVectorEnv,
        "async": gym.vector.AsyncVectorEnv,
    }
    return kinds[kind](functions)


def begin(envs):
    if isinstance(envs, gym.vector.VectorEnv):
        return envs.reset(seed=[3, 4])[0]
    envs.seed(3)
    return envs.reset()


def advance(envs, actions):
    """Observations to act in next, those that ended the step, rewards, terminated, truncated and infos."""
    if isinstance(envs, gym.vector.VectorEnv):
        after, *rest = envs.step(actions)
        return after, after, *rest
    after, rewards, dones, infos = envs.step(actions)
    ends = np.array([info.get("terminal_observation", row) for info, row in zip(infos, after, strict=True)])
    cut = np.array([info["TimeLimit.truncated"] for info in infos])
    return after, ends, rewards, dones & ~cut, cut, {"segment_id": np.stack([i.get("segment_id", -1) for i in infos])}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", ["dummy", "subproc", "sync", "async"])
def test_a_batch_is_judged_by_what_the_evaluation_door_shows(kind, name):
    envs, shown = make_batch(kind, name, budget=9), make_batch(kind, name, evaluation=True)
    try:
        feedback = prefenvs.feedback(envs)
        single = getattr(envs, "single_action_space", envs.action_space)
        seen_space = getattr(envs, "single_observation_space", envs.observation_space)
        store = SegmentStore(seen_space, single, 2)
        single.seed(0)
        observations, truth = begin(envs), {}
        np.testing.assert_array_equal(begin(shown), observations)
        for _ in range(60):
            actions = np.stack([single.sample() for _ in range(2)])
            after, ends, hidden, terminated, truncated, infos = advance(envs, actions)
            assert not hidden.any()
            store.add(observations, actions, ends, terminated, truncated, infos["segment_id"])
            after_shown, _, rewards, *_ = advance(shown, actions)
            np.testing.assert_array_equal(after_shown, after)
            truth |= {tuple(i): r for i, r in zip(infos["segment_id"].tolist(), rewards, strict=True) if i[2]}
            observations = after
        segments = store.sample(18, 7, np.random.default_rng(0))
        judged = feedback._judge(segments)
        np.testing.assert_array_equal(judged.mask, segments.mask)
        np.testing.assert_array_equal(judged.observations, segments.observations)
        np.testing.assert_array_equal(judged.actions, segments.actions)
        np.testing.assert_array_equal(judged.terminated, segments.terminated)
        for (stream, episode, first), length, found in zip(
            segments.ids.tolist(), segments.lengths, judged.rewards, strict=True
        ):
            wanted = np.array([truth[stream, episode, first + j + 1] for j in range(length)])
            np.testing.assert_array_equal(found[:length].astype(wanted.dtype), wanted)  # float32 in SB3's batches
            assert not found[length:].any()
        assert set(segments.ids[:, 0]) == {0, 1}
        assert segments.terminated.any() == (name == "CartPole")
        assert feedback.ask(Query(segments)).choice.shape == (9, 2)
        assert feedback.remaining == 0
    finally:
        envs.close()
        shown.close()


@pytest.mark.parametrize("name", TASKS)
def test_a_single_environment_is_judged_by_what_the_evaluation_door_shows(name):
    env, shown = gym.make(f"prefenvs/{name}-v0"), gym.make(f"prefenvs/{name}-v0", evaluation=True)
    env.reset(seed=3)
    shown.reset(seed=3)
    env.action_space.seed(0)
    rewards, factors = [], []
    terminated = False
    while len(rewards) < 60 and not terminated:
        action = env.action_space.sample()
        _, hidden, terminated, *_ = env.step(action)
        assert hidden == 0.0
        assert type(hidden) is float
        _, reward, *_, info = shown.step(action)
        rewards.append(reward)
        factors.append(info["factors"])
    n = np.array([len(rewards)])
    judged = env.unwrapped._oracle_side("judge", np.zeros(1, int), np.zeros(1, int), n, n[0])
    assert judged["rewards"][0].tolist() == rewards
    assert list(judged["factors"]) == list(factors[0])
    for factor, values in judged["factors"].items():
        assert values[0].tolist() == [step[factor] for step in factors]


def test_layers_around_a_batch_reach_one_feedback():
    inner = DummyVecEnv([partial(gym.make, "prefenvs/CartPole-v0", budget=5)] * 2)
    outer = VecFrameStack(VecNormalize(VecMonitor(inner)), 2)
    assert prefenvs.feedback(outer) is prefenvs.feedback(inner)
    single = RecordEpisodeStatistics(gym.make("prefenvs/CartPole-v0", budget=5))
    assert prefenvs.feedback(DummyVecEnv([lambda: single])) is prefenvs.feedback(single)


class Rooms(gym.Env):
    """A user's environment: observations of several kinds, a reward that its info gives away, and a state."""

    observation_space = gym.spaces.Dict(
        {"image": gym.spaces.Box(0, 255, (4, 4, 1), np.uint8), "room": gym.spaces.Discrete(50)}
    )
    action_space = gym.spaces.MultiDiscrete([3, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room = 0
        return self.observe(), {"room_name": "hall", "reward": 7.0}

    def step(self, action):
        self.room += 1
        return self.observe(), 0.5 * self.room, self.room == 9, False, {"room_name": "attic", "progress": self.room}

    def observe(self):
        return {"image": np.full((4, 4, 1), self.room, np.uint8), "room": np.int64(self.room)}


def test_a_users_environment_keeps_its_spaces_and_shows_harmless_info_only():
    env = prefenvs.wrap(Rooms(), harmless_info=("room_name",), factors=lambda env: {"depth": float(env.unwrapped.room)})
    store = SegmentStore(env.observation_space, env.action_space)
    observation, info = env.reset(seed=0)
    assert set(info) == {"room_name", "segment_id"}
    for _ in range(9):
        action = np.array([1, 2])
        after, reward, terminated, truncated, info = env.step(action)
        assert reward == 0.0
        assert set(info) == {"room_name", "segment_id"}
        batch = [{key: np.asarray(value)[None] for key, value in held.items()} for held in (observation, after)]
        store.add(batch[0], action[None], batch[1], [terminated], [truncated], info["segment_id"][None])
        observation = after
    segments = store.sample(12, 4, np.random.default_rng(0))
    judged = prefenvs.feedback(env)._judge(segments)
    for key, dtype in (("image", np.uint8), ("room", np.int64)):
        assert judged.observations[key].dtype == segments.observations[key].dtype == dtype
        np.testing.assert_array_equal(judged.observations[key], segments.observations[key])
    np.testing.assert_array_equal(judged.rewards, 0.5 * judged.factors["depth"])
    label = prefenvs.feedback(env).ask(Query(segments))
    assert not label.skipped.any()
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        prefenvs.render(env, segments)


def test_a_discrete_action_outside_its_space_is_refused():
    env = gym.make("prefenvs/CartPole-v0", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action=2 is not in Discrete\(2\)"):
        env.step(2)


def test_the_evaluation_door_checks_its_settings_too():
    with pytest.raises(ValueError, match="Did you mean 'budget'"):
        gym.make("prefenvs/CartPole-v0", evaluation=True, bugdet=3)


@pytest.mark.parametrize("name", ["CartPole", "HalfCheetah"])
def test_drawing_segments_shows_what_was_seen_and_the_episode_goes_on_bit_equal(name, request):
    if name == "HalfCheetah":
        request.getfixturevalue("gl")
    else:
        pytest.importorskip("pygame", reason='drawing needs pygame: pip install "prefenvs[render]"')
    env = gym.make(f"prefenvs/{name}-v0", render_mode="rgb_array")
    other = gym.make(f"prefenvs/{name}-v0")
    store = SegmentStore(env.observation_space, env.action_space)
    env.action_space.seed(2)
    observation, _ = env.reset(seed=1)
    other.reset(seed=1)
    frames = []
    for step in range(16):
        action = env.action_space.sample()
        frames.append(env.render())
        after, _, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(after, other.step(action)[0])
        store.add(observation[None], action[None], after[None], [terminated], [truncated], info["segment_id"][None])
        observation = after
        assert not terminated
        if step == 11:
            segments = store.sample(2, 4, np.random.default_rng(0))
            clips = prefenvs.render(env, segments)
            for clip, first in zip(clips, segments.ids[:, 2], strict=True):
                np.testing.assert_array_equal(clip, frames[first : first + 4])
    env.close()


class Counted(gym.Env):
    """A user's environment whose images and observations are sums of its actions."""

    observation_space, action_space = gym.spaces.Box(-np.inf, np.inf, (1,)), gym.spaces.Discrete(5)
    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sum = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.sum += int(action)
        return np.full(1, self.sum, np.float32), 0.0, False, False, {}

    def render(self):
        return np.full((2, 2, 3), self.sum, np.uint8)

    def get_state(self):
        return {"sum": np.array(self.sum)}

    def set_state(self, state):
        self.sum = int(state["sum"])


def played_before(env):
    """An environment that has begun its second episode, and segments of its first."""
    segments = played(env, 30)
    env.reset()
    return segments


def test_drawing_segments_of_a_users_environment_takes_no_step_of_the_present_episode():
    inner = RecordEpisodeStatistics(TimeLimit(Counted(), 60))
    env = prefenvs.wrap(inner)
    segments = played_before(env)
    for step in range(60):
        if step == 10:
            for clip, first in zip(prefenvs.render(env, segments), segments.ids[:, 2], strict=True):
                assert clip[:, 0, 0, 0].tolist() == [(first + j) // 2 for j in range(5)]
        observation, _, _, truncated, _ = env.step(1)
        assert observation == step + 1
        assert truncated == (step == 59)
    assert inner.episode_count == 1


class Repeat(gym.Wrapper):
    """Takes each action as often as there were steps, in a state of its own."""

    def reset(self, **arguments):
        self.times = 0
        return super().reset(**arguments)

    def step(self, action):
        self.times += 1
        for _ in range(self.times):
            result = super().step(action)
        return result


def doubled(env):
    return gym.wrappers.TransformAction(env, lambda action: 2 * action, Counted.action_space)


@pytest.mark.parametrize(
    "wrapper", [doubled, Repeat, NormalizeReward, Monitor, lambda env: FrameStackObservation(TimeLimit(env, 40), 1)]
)
def test_segments_are_drawn_below_any_wrapper(wrapper):
    env = prefenvs.wrap(wrapper(Counted()))
    segments = played_before(env)
    env.step(1)
    for clip, seen in zip(prefenvs.render(env, segments), segments.observations, strict=True):
        assert clip[:, 0, 0, 0].tolist() == seen[:5].reshape(5).tolist()
    assert env.step(1)[0].item() == {doubled: 4, Repeat: 3}.get(wrapper, 2)


def test_states_are_kept_where_segments_can_be_drawn_and_steps_not_repeated():
    def kept(env):
        made = prefenvs.wrap(env)
        played(made, 30)
        return len(made._recorder._episodes[0].states)

    blind = Counted()
    blind.render_mode = None
    assert kept(doubled(Counted())) == 31
    assert kept(TimeLimit(Counted(), 60)) == 1
    assert kept(doubled(blind)) == 0


def test_an_environment_without_states_says_so_where_it_is_drawn():
    pytest.importorskip("pygame", reason='drawing needs pygame: pip install "prefenvs[render]"')
    made = prefenvs.wrap(gym.make("MountainCar-v0", render_mode="rgb_array"))
    segments = played_before(made)
    with pytest.raises(ValueError, match="no get_state and set_state"):
        prefenvs.render(made, segments)
