"""A batch that steps as arrays, against Gymnasium's SyncVectorEnv of the suite's single environments."""

import gc
import pickle
import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import prefenvs
from prefenvs import Query, SegmentStore
from prefenvs.collecting import step_ends
from prefenvs.tasks import TASKS
from prefenvs.vector_env import BatchedEnv, PreferenceVectorEnv

BATCHED = [spec.name for spec in TASKS.values() if spec.batched]
MODES = [mode.value for mode in AutoresetMode]
N, LIMIT = 3, 12
PAID_IN_PARTS = {"InvertedDoublePendulum": 1e-10}  # the others to the last bit, see tests/tasks/test_batched.py


def make_both(name, mode="NextStep", n=N, limit=LIMIT, **settings):
    """Our batch, and Gymnasium's of the same."""
    settings |= {"max_episode_steps": limit}
    ours = gym.make_vec(f"prefenvs/{name}-v0", num_envs=n, autoreset_mode=mode, **settings)
    vector = {"autoreset_mode": mode}
    theirs = gym.make_vec(f"prefenvs/{name}-v0", n, "sync", vector_kwargs=vector, **settings)
    assert isinstance(ours, BatchedEnv)
    return ours, theirs


def assert_same(ours, theirs, atol=0.0):
    """Arrays, and infos as far as ours has them."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            assert_same(value, theirs[key], atol)
    elif ours.dtype == object:
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            if isinstance(one, dict):
                assert_same({k: np.asarray(v) for k, v in one.items()}, {k: np.asarray(v) for k, v in other.items()})
            elif one is not None:
                np.testing.assert_array_equal(one, other)
    else:
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def begin_where_over(envs, terminated, truncated):
    return envs.reset(options={"reset_mask": terminated | truncated})


@pytest.mark.parametrize("evaluation", [False, True], ids=["hidden", "shown"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BATCHED)
def test_every_task_gives_what_gymnasiums_batch_gives(name, mode, evaluation):
    ours, theirs = make_both(name, mode, evaluation=evaluation)
    atol, ended, success = PAID_IN_PARTS.get(name, 0.0), 0, TASKS[name].has_success
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    (seen, infos), (expected, shown) = ours.reset(seed=4), theirs.reset(seed=4)
    assert_same(seen, expected)
    assert_same(infos, shown)
    ours.action_space.seed(0)
    for _ in range(2 * LIMIT + 6):
        actions = ours.action_space.sample()
        (*arrays, infos), (*expected, shown) = ours.step(actions), theirs.step(actions)
        for one, other in zip(arrays, expected, strict=True):
            assert_same(one, other, atol)
        assert_same(infos, shown, atol)
        wanted = {"factors", "success"} if success else {"factors"}
        wanted = wanted | {"final_obs", "final_info"} if evaluation else set(shown)
        assert set(shown) & wanted <= set(infos)
        assert evaluation or not arrays[1].any()
        over = arrays[2] | arrays[3]
        ended += over.sum()
        if mode == "Disabled" and over.any():
            assert_same(begin_where_over(ours, *arrays[2:4])[1], begin_where_over(theirs, *arrays[2:4])[1])
    assert ended >= N
    ours.close()
    theirs.close()


@pytest.mark.parametrize("name", ["Hopper", "GridWindy"])
def test_seeds_by_list_and_resets_of_some_are_gymnasiums(name):
    ours, theirs = make_both(name, "Disabled", limit=50)
    arguments = [
        {"seed": [7, None, 7]},
        {"seed": [None, 2, None]},
        {"seed": 5, "options": {"reset_mask": np.array([True, False, True])}},
        {"options": {"reset_mask": np.array([False, True, False])}},
        {},
    ]
    for given in arguments:
        seeds = given.get("seed")
        copied = {key: dict(value) if key == "options" else value for key, value in given.items()}
        (seen, infos), (expected, shown) = ours.reset(**given), theirs.reset(**copied)
        known = np.ones(N, bool) if seeds != [7, None, 7] else np.array([True, False, True])  # None is anybody's guess
        np.testing.assert_array_equal(seen[known], expected[known])
        assert_same(infos, shown)
        actions = ours.action_space.sample()
        np.testing.assert_array_equal(ours.step(actions)[0][known], theirs.step(actions)[0][known])


def play(envs, store, steps, seed=3):
    rng = np.random.default_rng(0)
    observations, _ = envs.reset(seed=seed)
    for _ in range(steps):
        if isinstance(envs.single_action_space, gym.spaces.Discrete):
            actions = rng.integers(envs.single_action_space.n, size=N)
        else:
            actions = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        after, _, terminated, truncated, infos = envs.step(actions)
        ends, ids = step_ends(after, infos)
        store.add(observations, actions, ends, terminated, truncated, ids)
        observations = after


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("name", ["Hopper", "Ant", "GridDelivery"])
def test_labels_and_everything_the_oracle_judges_by_are_those_of_gymnasiums_batch(name, mode, tmp_path):
    teacher = {"name": "mistake"}
    kept = []
    for kind, envs in zip(("ours", "theirs"), make_both(name, mode, budget=20, teacher=teacher), strict=True):
        feedback = prefenvs.feedback(envs, store=str(tmp_path / f"{kind}.sqlite"))
        store = SegmentStore(envs.single_observation_space, envs.single_action_space, N)
        play(envs, store, 70)
        segments = store.sample(40, 6, np.random.default_rng(1))
        judged = feedback._judge(segments)
        np.testing.assert_array_equal(judged.observations, segments.observations)
        np.testing.assert_array_equal(judged.actions, segments.actions)
        label = feedback.ask(Query(segments))
        assert (feedback.remaining, prefenvs.feedback(envs)) == (0, feedback)
        with pytest.raises(prefenvs.BudgetSpent):
            feedback.ask(Query(segments))
        kept.append((judged, label, feedback.state(), prefenvs.true_scores(envs, segments)))
        envs.close()
    (judged, label, state, scores), (judged2, label2, state2, scores2) = kept
    np.testing.assert_array_equal(label.choice, label2.choice)
    np.testing.assert_array_equal(scores, scores2)
    np.testing.assert_array_equal(judged.terminated, judged2.terminated)
    for factor in judged.factors:
        np.testing.assert_array_equal(judged.factors[factor], judged2.factors[factor])
    assert state.keys() == state2.keys()  # recordings and snapshots of every stream
    for key in state:
        np.testing.assert_array_equal(state[key], state2[key], err_msg=key)


def test_feedback_goes_on_from_its_state_in_another_batch():
    envs = gym.make_vec("prefenvs/Hopper-v0", num_envs=N, budget=20, max_episode_steps=LIMIT)
    feedback = prefenvs.feedback(envs)
    store = SegmentStore(envs.single_observation_space, envs.single_action_space, N)
    play(envs, store, 40)
    segments = store.sample(20, 5, np.random.default_rng(1))
    other = gym.make_vec("prefenvs/Hopper-v0", num_envs=N, budget=20, max_episode_steps=LIMIT)
    prefenvs.feedback(other).load_state(feedback.state())
    np.testing.assert_array_equal(
        prefenvs.feedback(other).ask(Query(segments)).choice, feedback.ask(Query(segments)).choice
    )
    numbers = [e.reset(seed=0)[1]["segment_id"][:, 1].tolist() for e in (envs, other)]
    assert numbers[0] == numbers[1]


def test_a_forgotten_segment_spends_nothing():
    envs = gym.make_vec("prefenvs/GridWindy-v0", num_envs=N, recorded_episodes=1, budget=3, max_episode_steps=5)
    feedback = prefenvs.feedback(envs)
    store = SegmentStore(envs.single_observation_space, envs.single_action_space, N)
    play(envs, store, 40)
    old = store.sample(40, 2, np.random.default_rng(0))
    with pytest.raises(prefenvs.SegmentForgotten, match="recorded_episodes="):
        feedback.ask(Query(old[old.ids[:, 1] < 2][:2]))
    assert feedback.asked == 0


def test_the_evaluation_door_answers_nothing():
    envs = gym.make_vec("prefenvs/HalfCheetah-v0", num_envs=2, evaluation=True)
    with pytest.raises(prefenvs.EvaluationOnly, match="without evaluation=True"):
        prefenvs.feedback(envs)
    assert envs.task.num_envs == 2
    envs.close()


def bad(value, shape=(N, 3)):
    actions = np.zeros(shape, np.float32)
    actions.flat[-1] = value
    return actions


@pytest.mark.parametrize(
    ("name", "actions", "message"),
    [
        ("Hopper", bad(np.nan), r"environments \[2\].*finite numbers"),
        ("Hopper", bad(0, (2, 3)), r"shape \(2, 3\), expected .* = \(3, 3\)"),
        ("Hopper", bad(0, (3,)), "expected"),
        ("GridWindy", np.array([0, 1, 4]), "not all in Discrete"),
        ("GridWindy", np.array([0.0, 1.0, 2.0]), "not all in Discrete"),
    ],
)
def test_bad_actions_are_refused_before_anything_is_stepped(name, actions, message):
    envs, same = make_both(name, limit=50)
    for batch in (envs, same):
        batch.reset(seed=1)
    with pytest.raises(ValueError, match=message):
        envs.step(actions)
    good = envs.action_space.sample()
    for one, other in zip(envs.step(good)[:4], same.step(good)[:4], strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_episode_that_nobody_resets_is_refused():
    envs = gym.make_vec("prefenvs/GridWindy-v0", num_envs=2, autoreset_mode="Disabled", max_episode_steps=1)
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0, 1\] are over or never began"):
        envs.step(np.zeros(2, int))
    envs.reset(seed=0)
    envs.step(np.zeros(2, int))
    envs.reset(options={"reset_mask": np.array([False, True])})
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0\]"):
        envs.step(np.zeros(2, int))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": [1]}, ValueError, "1 seeds were given"),
        ({"seed": -1}, gym.error.Error, "Seed"),
        ({"options": {"reset_mask": [True, True, True]}}, TypeError, "numpy array of bool"),
        ({"options": {"reset_mask": np.ones(3)}}, TypeError, "numpy array of bool"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, ValueError, "expected shape"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, ValueError, "at least one True"),
    ],
)
def test_a_bad_reset_changes_nothing(arguments, error, message):
    envs = gym.make_vec("prefenvs/GridWindy-v0", num_envs=N)
    envs.reset(seed=1)
    before = envs._recorder.episodes.copy()
    with pytest.raises(error, match=message):
        envs.reset(**arguments)
    np.testing.assert_array_equal(envs._recorder.episodes, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"autoreset_mode": "SameStop"}, "Did you mean 'SameStep'"),
        ({"bugdet": 1}, "Did you mean 'budget'"),
        ({"pixels": True}, "vectorization_mode='sync'"),
    ],
)
def test_unknown_settings_suggest_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        gym.make_vec("prefenvs/GridWindy-v0", num_envs=2, **arguments)


def test_a_pickled_copy_and_a_pickled_spec_make_the_same_batch_afresh():
    envs = gym.make_vec("prefenvs/HalfCheetah-v0", num_envs=2, budget=7, autoreset_mode=AutoresetMode.SAME_STEP)
    copies = [pickle.loads(pickle.dumps(envs)), gym.make_vec(pickle.loads(pickle.dumps(envs.spec)))]
    seen = envs.reset(seed=3)[0]
    for copy in copies:
        assert isinstance(copy, PreferenceVectorEnv)
        assert (copy.num_envs, copy.autoreset_mode) == (2, AutoresetMode.SAME_STEP)
        assert (copy.feedback_config, copy.spec.id) == (envs.feedback_config, envs.spec.id)
        np.testing.assert_array_equal(copy.reset(seed=3)[0], seen)


def test_close_ends_the_threads():
    gc.collect()  # batches that other tests left open end their threads when they are freed
    before = threading.active_count()
    envs = gym.make_vec("prefenvs/HalfCheetah-v0", num_envs=4, threads=3)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    assert threading.active_count() > before
    envs.close()
    envs.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("name", ["GridDelivery", "Hopper"])
def test_segments_and_present_states_are_drawn_as_gymnasiums_batch_draws_them(name, request):
    if name == "Hopper":
        request.getfixturevalue("gl")
    drawn = []
    small = {} if name.startswith("Grid") else {"task_kwargs": {"width": 48, "height": 48}}
    for envs in make_both(name, render_mode="rgb_array", **small):
        prefenvs.feedback(envs)
        store = SegmentStore(envs.single_observation_space, envs.single_action_space, N)
        play(envs, store, 30)
        drawn.append([*envs.render(), *prefenvs.render(envs, store.sample(2, 5, np.random.default_rng(0)))])
        envs.close()
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tasks_that_cannot_be_batched_stay_gymnasiums():
    envs = gym.make_vec("prefenvs/Pendulum-v0", num_envs=2)
    assert isinstance(envs, gym.vector.SyncVectorEnv)
