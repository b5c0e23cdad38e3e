import dataclasses
import math
import pickle
import sqlite3
import sys
from functools import partial, wraps

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import prefenvs
from prefenvs import JudgedSegments, Query, Segments, SegmentStore
from prefenvs.calibration import Calibration
from prefenvs.labelling.feedback import Feedback
from prefenvs.labelling.source import find_source
from prefenvs.labelling.store import pack
from prefenvs.oracles import DeterministicRegret, Hierarchical, PartialReturn, TabularValues


def pendulum(steps=420, env_seed=1, segments=40, **settings):
    """An environment with two finished episodes, and segments of them."""
    env = gym.make("prefenvs/Pendulum-v0", **settings)
    store = SegmentStore(env.observation_space, env.action_space, task="Pendulum")
    rng = np.random.default_rng(0)
    prefenvs.feedback(env)
    observation, _ = env.reset(seed=env_seed)
    for _ in range(steps):
        action = rng.uniform(-2, 2, (1,)).astype(np.float32)
        after, _, terminated, truncated, info = env.step(action)
        ids = info["segment_id"][None]
        store.add(observation[None], action[None], after[None], [terminated], [truncated], ids)
        observation = after
        if truncated:
            observation, _ = env.reset()
    return env, store.sample(segments, 25, np.random.default_rng(2)) if segments else None


def test_the_error_free_teacher_prefers_the_greater_true_return():
    env, segments = pendulum(budget=30)
    feedback = prefenvs.feedback(env)
    label = feedback.ask(Query(segments))
    scores = prefenvs.true_scores(env, segments).reshape(-1, 2)
    np.testing.assert_array_equal(label.choice.argmax(1), scores.argmax(1))
    assert (feedback.asked, feedback.answered, feedback.remaining) == (20, 20, 10)


def test_a_closed_feedback_asks_nothing_and_keeps_what_was_answered(tmp_path):
    store = str(tmp_path / "answers.sqlite")
    env, segments = pendulum(store=store)
    feedback, query = prefenvs.feedback(env), Query(segments)
    label = feedback.ask(query)
    feedback.close()
    feedback.close()
    with pytest.raises(ValueError, match="this feedback was closed"):
        feedback.ask(query)
    assert feedback.asked == query.n
    assert not list(tmp_path.glob("*-wal")), "nothing is left beside the store"
    again, same = pendulum(store=store)
    np.testing.assert_array_equal(prefenvs.feedback(again).ask(Query(same)).choice, label.choice)


def test_skips_are_charged_and_counted_apart():
    env, segments = pendulum(teacher={"name": "skip", "eps_skip": 2.0})
    feedback = prefenvs.feedback(env)
    label = feedback.ask(Query(segments))
    assert 0 < label.skipped.sum() < 20
    assert (feedback.asked, feedback.answered) == (20, 20 - label.skipped.sum())


def test_an_answer_depends_on_seed_number_and_segments_alone():
    whole = prefenvs.feedback(pendulum(teacher="noisy", feedback_seed=5)[0])
    env, segments = pendulum(teacher="noisy", feedback_seed=5)
    query = Query(segments)
    expected = whole.ask(query).choice
    parts = prefenvs.feedback(env)
    np.random.seed(0)
    found = np.concatenate([parts.ask(query[:3]).choice, parts.ask(query[3:4]).choice, parts.ask(query[4:]).choice])
    np.testing.assert_array_equal(found, expected)
    other = prefenvs.feedback(pendulum(teacher="noisy", feedback_seed=6)[0]).ask(query).choice
    assert (other != expected).any()


def test_answers_are_the_same_however_many_segments_are_judged_at_a_time(monkeypatch):
    labels = []
    for chunk in (4096, 7):
        monkeypatch.setattr(sys.modules[Feedback.__module__], "CHUNK", chunk)
        env, segments = pendulum(teacher="noisy", feedback_seed=3)
        labels.append(prefenvs.feedback(env).ask(Query(segments)).choice)
    np.testing.assert_array_equal(*labels)


def test_submit_and_collect_are_ask_in_two_steps():
    env, segments = pendulum(teacher="noisy")
    feedback = prefenvs.feedback(env)
    first, second = feedback.submit(Query(segments[:10])), feedback.submit(Query(segments[10:]))
    tickets, label = feedback.collect()
    assert tickets.tolist() == [*first.tolist(), *second.tolist()] == list(range(20))
    twin = prefenvs.feedback(pendulum(teacher="noisy")[0]).ask(Query(segments))
    np.testing.assert_array_equal(label.choice, twin.choice)
    with pytest.raises(ValueError, match="submit"):
        feedback.collect()


def test_questions_of_another_size_are_refused_while_some_are_open_and_cost_no_answer():
    env, segments = pendulum(budget=20)
    feedback = prefenvs.feedback(env)
    feedback.submit(Query(segments[:10]))
    with pytest.raises(ValueError, match=r"k=5, but open questions show k=2 .* Nothing was asked"):
        feedback.submit(Query(segments[:10], 5))
    assert (feedback.asked, len(feedback.ask(Query(segments[:10], 5)))) == (5, 2)
    tickets, label = feedback.collect()
    assert (tickets.tolist(), label.choice.shape, feedback.remaining) == ([0, 1, 2, 3, 4], (5, 2), 13)


def test_no_question_is_open_after_none_was_asked():
    env, segments = pendulum(budget=20)
    feedback, pairs = prefenvs.feedback(env), Query(segments[:10])
    feedback.submit(pairs[:0])
    assert feedback.collect()[1].choice.shape == (0, 2)
    feedback.submit(pairs[:0])
    feedback.submit(Query(segments[:10], 5))
    feedback.submit(pairs[:0])
    tickets, label = feedback.collect()
    assert (tickets.tolist(), label.choice.shape) == ([0, 1], (2, 5))


@pytest.mark.parametrize("answer", ["choice", "ranking", "rating", "soft"])
def test_no_question_gets_a_label_without_answers_of_the_kind_asked_for(answer):
    env, segments = pendulum(answer=answer)
    feedback, query = prefenvs.feedback(env), Query(segments)
    none, some = feedback.ask(query[:0]), feedback.ask(query)
    for field in dataclasses.fields(none):
        one, two = getattr(none, field.name), getattr(some, field.name)
        assert type(one) is type(two)
        assert not isinstance(one, np.ndarray) or (one.shape, one.dtype) == ((0, 2), two.dtype)
    assert feedback.asked == 20


class Broken(gym.Env):
    """A user's environment whose reward is nan in the fourth step of an episode."""

    observation_space, action_space = gym.spaces.Box(0, 99, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), math.nan if self.t == 4 else float(action), False, False, {}


@pytest.mark.parametrize(
    ("oracle", "message"),
    [
        ("partial_return", r"1 of 2 segments .* nan, of steps 2 to 4 in episode 0 of stream 0.*nothing was asked"),
        ("hierarchical", r"factor 'reward' is nan in a segment of pair 0"),
    ],
    ids=["utility", "comparison"],
)
@pytest.mark.parametrize("teacher", ["oracle", {"name": "noisy", "scale": "raw"}])
def test_a_nan_reward_is_no_answer_and_costs_nothing(oracle, message, teacher):
    units = Calibration(factor_sd={"reward": 1.0})
    env = prefenvs.wrap(Broken(), oracle=oracle, teacher=teacher, budget=5, calibration=units)
    feedback, store = prefenvs.feedback(env), SegmentStore(env.observation_space, env.action_space)
    before, _ = env.reset(seed=0)
    for _ in range(8):
        after, *_, info = env.step(1)
        store.add(before[None], np.array([1]), after[None], [False], [False], info["segment_id"][None])
        before = after
    windows = store.sample(200, 3, np.random.default_rng(0))
    first = windows.ids[:, 2].tolist()
    with pytest.raises(ValueError, match=message):
        feedback.ask(Query(windows[[first.index(5), first.index(2)]]))
    feedback.ask(Query(windows[[first.index(4), first.index(5)]]))
    assert feedback.asked == feedback._store.count() == 1


def test_no_unit_is_measured_where_rewards_are_nan():
    with pytest.raises(ValueError, match="expected a finite number"):
        prefenvs.calibrate(gym.wrappers.TimeLimit(Broken(), 8), segment_steps=3, steps=40)


def reopened(env):
    """A second feedback of the same environment, as a new process would make it."""
    return Feedback(find_source(env))


@pytest.mark.parametrize("answer", ["choice", "ranking", "rating", "soft"])
def test_answers_are_served_from_the_store_again(answer, tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"), answer=answer, budget=20)
    query = Query(segments)
    label = prefenvs.feedback(env).ask(query)
    again = reopened(env)
    assert again._store.count() == 20
    served = again.ask(query)
    for field in dataclasses.fields(label):
        one, two = getattr(label, field.name), getattr(served, field.name)
        assert (one is None and two is None) or np.array_equal(one, two, equal_nan=True)
    assert (again._store.count(), again.asked, again.remaining) == (20, 20, 0)


def test_a_new_process_without_recordings_is_served_the_same_and_charged_once(tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"), budget=20)
    label = prefenvs.feedback(env).ask(Query(segments))
    copy = pickle.loads(pickle.dumps(env.unwrapped))  # the recipe alone: no episode is in its recorder
    again = prefenvs.feedback(copy)
    np.testing.assert_array_equal(again.ask(Query(segments)).choice, label.choice)
    assert (again.asked, again.answered, again.remaining) == (20, 20, 0)
    with pytest.raises(prefenvs.BudgetSpent):
        again.ask(Query(segments[:2]))


def test_a_batch_that_is_partly_stored_keeps_its_stored_answers(tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"))
    query = Query(segments)
    first = prefenvs.feedback(env).ask(query[:7])
    # Raw thresholds follow the latest returns, so an answer is not to be worked out a second time.
    again = reopened(env)
    with again._store._connection as connection:
        connection.execute("UPDATE batches SET answers = ?", [pack(first[::-1])])
    label = again.ask(query)
    np.testing.assert_array_equal(label.choice[:7], first.choice[::-1])
    assert again._store.count() == 20


@pytest.mark.parametrize("cuts", [[20], [1, 5, 6, 13, 20], [*range(1, 21)]], ids=["whole", "parts", "one by one"])
@pytest.mark.parametrize("stored", [slice(0, 20), slice(0, 8), slice(4, 11), slice(12, 20)])
def test_it_does_not_matter_how_questions_are_batched_when_they_are_asked_again(cuts, stored, tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"))
    query, feedback = Query(segments), prefenvs.feedback(env)
    feedback._next = stored.start  # as a run that was resumed from a checkpoint after its store was lost
    label = feedback.ask(query[stored])
    with feedback._store._connection as connection:
        connection.execute("UPDATE batches SET answers = ?", [pack(label[::-1])])
    again = reopened(env)
    edges = zip([0, *cuts], cuts, strict=False)
    served = np.concatenate([again.ask(query[start:stop]).choice for start, stop in edges])
    np.testing.assert_array_equal(served[stored], label.choice[::-1])
    assert again._store.count() == 20
    other = reopened(env)
    with pytest.raises(prefenvs.RunMismatch, match=r"query 5 .* about other segments"):
        other.ask(query[[*range(5), 6, *range(6, 20)]])
    assert other.asked == 0


def test_two_processes_cannot_both_answer_a_question(tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    one, two, query = prefenvs.feedback(env), reopened(env), Query(segments)
    two._store.find = lambda *_, **__: {}  # it looked before the other had answered
    one.ask(query[:4])
    two._next = 3
    with pytest.raises(prefenvs.RunMismatch, match="another process has answered query 3"):
        two.ask(query[3:6])
    two._next = 4
    two.ask(query[4:6])
    assert one._store.count() == 6


def test_a_store_of_an_earlier_version_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (run TEXT, number INTEGER, payload BLOB, answer BLOB)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(prefenvs.RunMismatch, match="earlier version"):
        pendulum(1, store=str(path), segments=0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("changed", ["observations", "actions"])
def test_other_segments_with_the_same_ids_are_another_question(changed, tmp_path):
    """Two runs of fixed-length episodes that differ in the agent alone ask about the same ids."""
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    other = dataclasses.replace(segments, **{changed: getattr(segments, changed) * np.float32(0.5)})
    with pytest.raises(prefenvs.RunMismatch, match=r"query 0 .* about other segments"):
        again.ask(Query(other))
    assert again.asked == 0


def test_two_runs_in_one_file_do_not_meet(tmp_path):
    path = str(tmp_path / "a.sqlite")
    for run, teacher in (("one", "oracle"), ("two", "noisy")):
        env, segments = pendulum(store=path, run=run, teacher=teacher)
        prefenvs.feedback(env).ask(Query(segments))
        assert prefenvs.feedback(env)._store.count() == 20


def test_the_environments_seed_does_not_reach_the_teacher():
    coin = {"name": "noisy", "beta": 0.0}  # its answers depend on the teacher's draws alone
    first, second = (pendulum(env_seed=seed, teacher=coin) for seed in (1, 2))
    assert not np.array_equal(first[1].observations, second[1].observations)
    labels = [prefenvs.feedback(env).ask(Query(segments)).choice for env, segments in (first, second)]
    np.testing.assert_array_equal(*labels)
    assert 0 < labels[0][:, 0].sum() < 20


def test_another_question_under_a_used_number_is_refused(tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    for query in (Query(segments[::-1]), Query(segments, context={"user": np.zeros(20)})):
        with pytest.raises(prefenvs.RunMismatch, match=r"query 0 .* about other segments or context"):
            again.ask(query)
    assert again.asked == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"teacher": "noisy"},
        {"oracle": "hierarchical"},
        {"answer": "soft"},
        {"feedback_seed": 1},
        {"calibration": Calibration(sd=3.0)},
        {"task_kwargs": {"g": 5.0}},
        {"task_kwargs": {"g": np.full(1, 10.0)}},
    ],
)
def test_a_store_of_other_settings_is_refused(changed, tmp_path):
    path = str(tmp_path / "a.sqlite")
    pendulum(1, store=path, segments=0)
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        pendulum(1, store=path, segments=0, **changed)


class Weighed:
    """An oracle whose settings nobody can read."""

    def __init__(self, weight):
        self.weight = weight

    def utility(self, segments):
        return self.weight * segments.rewards


@dataclasses.dataclass(frozen=True, eq=False)
class WeighedSteps:
    values: np.ndarray

    def utility(self, segments):
        return self.values[: segments.mask.shape[1]] * segments.rewards


class Misshapen:
    """An oracle whose utility or margins have another shape than they should."""

    def __init__(self, shape, method="utility"):
        setattr(self, method, lambda *segments: np.zeros(shape(*segments[0].mask.shape)))


@pytest.mark.parametrize(
    "shape", [lambda n, _: n, lambda n, t: (n, t + 1), lambda n, t: (t, n), lambda n, t: (n, t, 1), lambda *_: ()]
)
@pytest.mark.parametrize("teacher", ["oracle", "noisy"])
def test_utility_of_another_shape_is_refused_and_spends_nothing(shape, teacher):
    env, segments = pendulum(oracle=Misshapen(shape), teacher=teacher)
    with pytest.raises(ValueError, match=r"Misshapen.utility gave shape \(.*\), expected \(n, T\) = \(\d+, 25\)"):
        prefenvs.feedback(env).ask(Query(segments))
    assert prefenvs.feedback(env).asked == 0


def test_margins_of_another_shape_are_refused_and_spend_nothing():
    env, segments = pendulum(oracle=Misshapen(lambda n, t: (n, t), "compare"))
    with pytest.raises(
        ValueError, match=r"Misshapen.compare gave shape \(20, 25\), expected a margin a pair, \(n,\) = \(20,\)"
    ):
        prefenvs.feedback(env).ask(Query(segments))
    assert prefenvs.feedback(env).asked == 0


class Plain:
    """An oracle without settings."""

    def utility(self, segments):
        return segments.rewards


def test_a_file_keeps_no_answers_of_an_oracle_whose_settings_cannot_be_told(tmp_path):
    path = tmp_path / "a.sqlite"
    with pytest.raises(TypeError, match="Make Weighed a dataclass"):
        pendulum(1, store=str(path), segments=0, oracle=Weighed(1.0))
    assert not path.exists()
    pendulum(1, segments=0, oracle=Weighed(1.0))  # in memory nobody else is served
    for _ in range(2):
        pendulum(1, store=str(path), segments=0, oracle=Plain())


def test_oracles_that_differ_deep_in_an_array_do_not_share_a_store(tmp_path):
    path, weights = str(tmp_path / "a.sqlite"), np.ones(2000)
    for _ in range(2):
        pendulum(1, store=path, segments=0, oracle=WeighedSteps(weights.copy()))
    weights[1000] += 1e-12
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        pendulum(1, store=path, segments=0, oracle=WeighedSteps(weights))


class OwnValues:
    """Values that say where they come from."""

    gamma = 0.9

    def __init__(self, source):
        self.source, self.net = source, object()

    def v(self, observations):
        return observations[..., 0]


def test_a_store_goes_on_with_values_of_ones_own_and_is_refused_with_others(tmp_path):
    path = str(tmp_path / "a.sqlite")
    for _ in range(2):
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(OwnValues("run 1")))
    with pytest.raises(prefenvs.RunMismatch, match="run 2"):
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(OwnValues("run 2")))
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        values = TabularValues(np.zeros(5), np.zeros((5, 2)), 0.9)
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(values))
    with pytest.raises(TypeError, match=r"oracle\.values is a OwnValues, .* give it a text `source`"):
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(OwnValues(None)))


def test_a_drawings_size_and_defaults_spelt_out_are_no_other_settings(tmp_path):
    path = str(tmp_path / "a.sqlite")
    pendulum(1, store=path, segments=0)
    pendulum(1, store=path, segments=0, task_kwargs={"g": 10.0})
    path = str(tmp_path / "b.sqlite")
    for task_kwargs in ({}, {"width": 64, "height": 64}):
        prefenvs.feedback(gym.make("prefenvs/HalfCheetah-v0", store=path, task_kwargs=task_kwargs))


def test_a_store_goes_on_with_a_task_of_ones_own_functions_and_is_refused_with_another(tmp_path):
    def own(scorer, prompts):
        return prefenvs.feedback(
            gym.make("prefenvs/TextOwn-v0", prompts=prompts, scorer=scorer, store=str(tmp_path / "a.sqlite"))
        )

    def brief(prompts, completions):
        return [-len(text) for text in completions]

    many = tuple(f"{i}: " for i in range(1000))
    own(brief, many)
    own(wraps(brief)(lambda *texts: brief(*texts)), many)  # as in a new process: the same name, another object
    with pytest.raises(prefenvs.RunMismatch, match="was begun with") as refused:
        own(brief, many[1:])
    assert len(str(refused.value)) < 2000
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        own(len, many)


def test_a_damaged_store_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        pendulum(store=str(path))
    assert path.read_bytes() == b"not a database" * 100


def test_another_programs_database_is_no_store(tmp_path):
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
    with pytest.raises(prefenvs.DamagedFile, match="cannot be read as a store of answers"):
        pendulum(1, store=str(tmp_path / "a.sqlite"), segments=0)


def test_a_store_that_is_in_use_or_cannot_be_written_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.sqlite"
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))  # wait for nobody
    env, segments = pendulum(store=str(path))
    feedback, query = prefenvs.feedback(env), Query(segments)
    label = feedback.ask(query)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for question in (lambda: reopened(env), lambda: feedback.ask(query)):
        with pytest.raises(prefenvs.PrefenvsError, match=r"in use by another process.*database is locked") as raised:
            question()
        assert not isinstance(raised.value, prefenvs.DamagedFile)
    other.execute("ROLLBACK")
    feedback._store._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(prefenvs.PrefenvsError, match=r"cannot be written.*readonly"):
        feedback.ask(query)
    feedback._store._connection.execute("PRAGMA query_only = 0")
    assert (feedback.asked, feedback._store.count()) == (len(label), len(label)), "nothing was spent"
    assert len(feedback.ask(query)) == len(label)
    with pytest.raises(prefenvs.PrefenvsError, match="unable to open"):
        pendulum(1, store=str(tmp_path), segments=0)


@pytest.mark.parametrize("left", [0.3, 0.7])
def test_a_store_that_was_cut_short_says_so(left, tmp_path):
    path = tmp_path / "a.sqlite"
    env, segments = pendulum(store=str(path), teacher="noisy")
    feedback = prefenvs.feedback(env)
    for _ in range(20):
        feedback.ask(Query(segments))
    feedback._store.close()
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    before = path.read_bytes()
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        reopened(env).ask(Query(segments))
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [3, 16, 310])
def test_a_damaged_answer_is_found(cut, tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    with again._store._connection as connection:
        connection.execute("UPDATE batches SET answers = substr(answers, 1, length(answers) - ?)", [cut])
    with pytest.raises(prefenvs.DamagedFile, match="stored answer"):
        again.ask(Query(segments))
    assert again.asked == 0


@pytest.mark.parametrize("kind", ["dummy", "subproc", "sync", "async"])
def test_a_refused_question_leaves_the_workers_alive(kind):
    make = partial(gym.make, "prefenvs:prefenvs/CartPole-v0", budget=5, recorded_episodes=1)
    if kind in ("dummy", "subproc"):
        envs = (DummyVecEnv if kind == "dummy" else partial(SubprocVecEnv, start_method="fork"))([make] * 2)
    else:
        envs = (gym.vector.SyncVectorEnv if kind == "sync" else gym.vector.AsyncVectorEnv)([make] * 2)
    try:
        feedback = prefenvs.feedback(envs)
        envs.reset()
        segments = Segments(
            np.zeros((4, 4, 4), np.float32), np.zeros((4, 3), np.int64), np.ones((4, 3), bool),
            np.zeros(4, bool), np.zeros(4, bool), np.array([[0, 0, 0], [1, 0, 0], [1, 7, 0], [0, 0, 0]]),
        )  # fmt: skip
        with pytest.raises(prefenvs.SegmentForgotten, match="Nothing was spent"):
            feedback.ask(Query(segments))
        with pytest.raises(ValueError, match="render_mode='rgb_array'"):
            prefenvs.render(envs, segments[:2])
        assert (feedback.asked, feedback.remaining) == (0, 5)
        for _ in range(4):
            ids = step_ids(envs, np.zeros(2, np.int64))
        assert ids.tolist() == [[0, 0, 4], [1, 0, 4]]
        label = feedback.ask(Query(segments[[0, 1]]))
        assert label.choice.tolist() == [[0.5, 0.5]]  # three steps of a pole that stands, each
    finally:
        envs.close()


def step_ids(envs, actions):
    infos = envs.step(actions)[-1]
    return infos["segment_id"] if isinstance(infos, dict) else np.stack([info["segment_id"] for info in infos])


def test_the_evaluation_door_refuses_from_a_worker_too():
    make = partial(gym.make, "prefenvs:prefenvs/CartPole-v0", evaluation=True)
    for kind in (gym.vector.AsyncVectorEnv, partial(SubprocVecEnv, start_method="fork"), DummyVecEnv):
        envs = kind([make] * 2)
        try:
            with pytest.raises(prefenvs.EvaluationOnly, match="without evaluation=True"):
                prefenvs.feedback(envs)
            envs.reset()
        finally:
            envs.close()


@pytest.mark.parametrize("batch", ["dummy", "subproc", "sync", "async"])
def test_a_batch_of_others_environments_is_refused_and_goes_on(batch):
    kinds = {"sync": gym.vector.SyncVectorEnv, "async": gym.vector.AsyncVectorEnv, "dummy": DummyVecEnv}
    kinds["subproc"] = partial(SubprocVecEnv, start_method="fork")
    envs = kinds[batch]([partial(gym.make, "CartPole-v1")] * 2)
    try:
        with pytest.raises(TypeError, match="is not a preference environment"):
            prefenvs.feedback(envs)
        envs.reset()
    finally:
        envs.close()


def test_a_member_of_a_batch_has_the_batchs_budget():
    envs = DummyVecEnv([partial(gym.make, "prefenvs/CartPole-v0", budget=5)] * 2)
    feedback = prefenvs.feedback(envs)
    assert prefenvs.feedback(envs.envs[1]) is feedback
    envs = DummyVecEnv([partial(gym.make, "prefenvs/CartPole-v0", budget=5)] * 2)
    prefenvs.feedback(envs.envs[1])
    with pytest.raises(ValueError, match="already belong to another feedback"):
        prefenvs.feedback(envs)


def test_one_question_can_be_picked_with_its_context():
    segments = pendulum()[1]
    query = Query(segments, 2, {"user": np.arange(20)})
    assert query[3].n == 1
    assert query[3].context["user"].tolist() == [3]
    assert query[[4, 1]].context["user"].tolist() == [4, 1]
    np.testing.assert_array_equal(query[3].segments.ids, segments.ids[6:8])
    joined = Query.concatenate([query[:7], query[7:]])
    assert joined.context["user"].tolist() == list(range(20))
    np.testing.assert_array_equal(joined.segments.ids, segments.ids)
    bare = Query(segments)
    for parts in ([query, bare], [bare, query]):
        with pytest.raises(ValueError, match="expected queries with the same context"):
            Query.concatenate(parts)


def test_a_seed_out_of_range_is_refused_before_anything_is_made():
    with pytest.raises(ValueError, match="feedback_seed=-1"):
        gym.make("prefenvs/Pendulum-v0", feedback_seed=-1)


def test_soft_answers_are_marked_and_ratings_need_scores():
    env, segments = pendulum(answer="soft", teacher="noisy")
    label = prefenvs.feedback(env).ask(Query(segments, 4))
    assert label.soft
    assert label.choice.shape == (10, 4)
    np.testing.assert_allclose(label.choice.sum(1), 1.0)
    env, segments = pendulum(answer="rating", oracle="hierarchical")
    with pytest.raises(ValueError, match="cannot answer k=2, answer='rating'"):
        prefenvs.feedback(env).ask(Query(segments))
    assert prefenvs.feedback(env).asked == 0


def test_a_ranking_of_true_returns_is_their_order():
    env, segments = pendulum(answer="ranking")
    label = prefenvs.feedback(env).ask(Query(segments, 4))
    scores = prefenvs.true_scores(env, segments).reshape(-1, 4)
    behind = (scores[:, None, :] > scores[:, :, None]).sum(2)
    np.testing.assert_array_equal(label.ranking, behind)


def test_segments_of_an_unattached_stream_are_refused_in_a_batch():
    envs = gym.make_vec("prefenvs/Pendulum-v0", num_envs=2, vectorization_mode="sync")
    segments = pendulum()[1]
    ids = segments.ids.copy()
    ids[:, 0] = -1
    with pytest.raises(prefenvs.SegmentForgotten, match="before the first reset"):
        prefenvs.feedback(envs).ask(Query(dataclasses.replace(segments, ids=ids)))


def factors(*rows):
    """Segments of one step whose two factors are given."""
    values = np.array(rows, float)
    n = len(values)
    zeros = np.zeros((n, 2))
    return JudgedSegments(
        zeros, zeros[:, :1], values.sum(1)[:, None], {"z1": values[:, :1], "z2": values[:, 1:]},
        np.ones((n, 1), bool), np.zeros(n, bool),
    )  # fmt: skip


def test_card_55_margins_of_zero_leave_only_the_first_factor():
    a, b = factors((1.0, 0.0), (0.0, 9.0)), factors((0.9, 9.0), (0.1, 0.0))
    margin = Hierarchical(margins=0.0).compare(a, b)
    np.testing.assert_allclose(margin, [0.1, -0.1])


def test_card_55_infinite_margins_decide_nothing():
    a, b = factors((5.0, 1.0)), factors((0.0, 0.0))
    assert np.isnan(Hierarchical(margins=math.inf).compare(a, b)).all()
    assert Hierarchical(margins=math.inf, undecided="tie").compare(a, b).tolist() == [0.0]


def test_card_55_margins_make_preferences_go_in_a_circle():
    a, b, c = factors((0.0, 2.0)), factors((0.6, 1.0)), factors((1.2, 0.0))
    oracle = Hierarchical(margins=(1.0, 0.5))
    assert oracle.compare(a, b) > 0
    assert oracle.compare(b, c) > 0
    assert oracle.compare(c, a) > 0


def test_card_55_labels_do_not_change_when_a_factor_is_rescaled():
    rng = np.random.default_rng(0)
    values, other = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    plain = Hierarchical(units={"z1": 1.0, "z2": 2.0}).compare(factors(*values), factors(*other))
    scale = np.array([5.0, 1.0])
    scaled = Hierarchical(units={"z1": 5.0, "z2": 2.0}).compare(factors(*values * scale), factors(*other * scale))
    np.testing.assert_allclose(plain, scaled)


def test_the_hierarchical_oracle_answers_through_the_environment():
    env, segments = pendulum(oracle={"name": "hierarchical", "margins": 0.0})
    label = prefenvs.feedback(env).ask(Query(segments))
    judged = prefenvs.feedback(env)._judge(segments)
    angle = judged.factors["angle_cost"].sum(1).reshape(-1, 2)
    np.testing.assert_array_equal(label.choice.argmax(1), angle.argmax(1))
    with pytest.raises(ValueError, match="Did you mean 'angle_cost'"):
        env, segments = pendulum(oracle={"name": "hierarchical", "order": ("angel_cost",)})
        prefenvs.feedback(env).ask(Query(segments))


def test_regret_without_values_says_so():
    with pytest.raises(prefenvs.NoExpert, match="Regret\\(values="):
        prefenvs.feedback(gym.make("prefenvs/CartPole-v0", oracle="regret"))


def test_regret_on_a_grid_is_exact_and_telescopes():
    for oracle in ("regret", "deterministic_regret"):
        env = gym.make("prefenvs/GridDelivery-v0", oracle=oracle)
        feedback = prefenvs.feedback(env)
        store = SegmentStore(env.observation_space, env.action_space)
        observation, _ = env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(200):
            action = env.action_space.sample()
            after, _, terminated, truncated, info = env.step(action)
            ids = info["segment_id"][None]
            store.add(np.array([observation]), np.array([action]), np.array([after]), [terminated], [truncated], ids)
            observation = after
            if terminated or truncated:
                observation, _ = env.reset()
        segments = store.sample(40, 3, np.random.default_rng(0))
        utility = feedback._oracle.utility(feedback._judge(segments)).sum(1)
        assert (utility <= 1e-9).all()
        if oracle == "regret":
            expected = utility
        else:  # gamma is 1 and moves are deterministic, so both forms are the same number
            np.testing.assert_allclose(utility, expected, atol=1e-8)


class TorqueToo(PartialReturn):
    """Reads more than the oracle that it is made from."""

    def utility(self, segments):
        assert set(segments.factors) == {"angle_cost", "speed_cost", "torque_cost"}
        return super().utility(segments) + np.abs(segments.actions[..., 0]) + segments.observations[:, 1:, 0]


def test_an_oracle_made_from_one_that_reads_little_is_shown_everything():
    env, segments = pendulum(oracle=TorqueToo())
    label, judged = prefenvs.feedback(env).ask(Query(segments)), prefenvs.feedback(env)._judge(segments)
    expected = TorqueToo().utility(judged).sum(1).reshape(-1, 2)
    np.testing.assert_array_equal(label.choice.argmax(1), expected.argmax(1))
