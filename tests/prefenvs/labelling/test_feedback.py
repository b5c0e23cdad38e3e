import dataclasses
import math
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import prefenvs
from prefenvs import Query, Segments, SegmentStore
from prefenvs.calibration import Calibration
from prefenvs.labelling.feedback import Feedback
from prefenvs.oracles import PartialReturn
from tests.prefenvs.labelling.recorded import pendulum


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


def test_the_environments_seed_does_not_reach_the_teacher():
    coin = {"name": "noisy", "beta": 0.0}  # its answers depend on the teacher's draws alone
    first, second = (pendulum(env_seed=seed, teacher=coin) for seed in (1, 2))
    assert not np.array_equal(first[1].observations, second[1].observations)
    labels = [prefenvs.feedback(env).ask(Query(segments)).choice for env, segments in (first, second)]
    np.testing.assert_array_equal(*labels)
    assert 0 < labels[0][:, 0].sum() < 20


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


def test_segments_of_another_task_are_refused_though_their_ids_are_recorded_here():
    env, segments = pendulum()
    feedback = prefenvs.feedback(env)
    other = dataclasses.replace(segments, task="MountainCarContinuous")
    wanted = r"segments are of task 'MountainCarContinuous', this feedback is of 'Pendulum'"
    with pytest.raises(ValueError, match=wanted):
        feedback.ask(Query(other))
    with pytest.raises(ValueError, match=wanted):
        prefenvs.true_scores(env, other)
    assert feedback.asked == 0
    for task in ("", "prefenvs/Pendulum-v0"):
        feedback.ask(Query(dataclasses.replace(segments, task=task)))
    envs = gym.make_vec("prefenvs/MountainCarContinuous-v0", num_envs=1)
    store = prefenvs.collect(envs, lambda seen: np.zeros((1, 1), np.float32), 30, seed=0)
    with pytest.raises(ValueError, match=wanted):
        feedback.ask(Query(store.sample(2, 5, np.random.default_rng(0))))


def test_segments_of_an_unattached_stream_are_refused_in_a_batch():
    envs = gym.make_vec("prefenvs/Pendulum-v0", num_envs=2, vectorization_mode="sync")
    segments = pendulum()[1]
    ids = segments.ids.copy()
    ids[:, 0] = -1
    with pytest.raises(prefenvs.SegmentForgotten, match="before the first reset"):
        prefenvs.feedback(envs).ask(Query(dataclasses.replace(segments, ids=ids)))


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


@dataclasses.dataclass(frozen=True)
class Disagreeing:
    """User 0 likes what the true reward likes, user 1 dislikes it."""

    reads = ("rewards", "user")
    margins: bool = False

    def __post_init__(self):
        object.__setattr__(self, "compare" if self.margins else "utility", self._compared if self.margins else self._of)

    def _of(self, segments):
        assert set(segments.context) == {"user"}
        return segments.rewards * np.where(segments.context["user"] == 1, -1.0, 1.0)[:, None]

    def _compared(self, a, b):
        return self._of(a).sum(1) - self._of(b).sum(1)


@pytest.mark.parametrize("margins", [False, True], ids=["utility", "compare"])
def test_an_oracle_reads_whom_each_question_asks_and_the_label_says_who_answered(margins, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[Feedback.__module__], "CHUNK_OF_REWARDS", 7)
    store, users = str(tmp_path / "answers.sqlite"), np.arange(20) % 2
    for _ in range(2):  # the second time the store answers
        env, segments = pendulum(oracle=Disagreeing(margins), store=store)
        feedback = prefenvs.feedback(env)
        label = feedback.ask(Query(segments, 2, {"user": users, "prompt": np.zeros(20)}))
        greater = prefenvs.true_scores(env, segments).reshape(-1, 2).argmax(1)
        np.testing.assert_array_equal(label.choice.argmax(1), np.where(users == 1, 1 - greater, greater))
        np.testing.assert_array_equal(label.user, users)
        assert label.user.dtype == np.int64
        feedback.close()


def test_answers_kept_before_oracles_read_users_are_not_served_to_one(monkeypatch, tmp_path):
    def ask():
        env, segments = pendulum(oracle=Disagreeing(), store=str(tmp_path / "answers.sqlite"))
        return prefenvs.feedback(env).ask(Query(segments, 2, {"user": np.arange(20) % 2}))

    with monkeypatch.context() as earlier:
        earlier.setattr(Feedback, "_answer", Feedback._chosen)
        assert ask().user is None
    with pytest.raises(prefenvs.RunMismatch, match=r"answers that name no user.*Nothing was asked"):
        ask()


@pytest.mark.parametrize(
    ("teacher", "context"), [("noisy", {"user": np.zeros(20, int)}), ("oracle", {})], ids=["units", "nobody"]
)
def test_an_oracle_is_told_what_the_context_lacks(teacher, context):
    class Asked(Disagreeing):
        reads = ("rewards", "user")

        def _of(self, segments):
            return segments.rewards * np.where(segments.context["user"] == 1, -1.0, 1.0)[:, None]

    env, segments = pendulum(oracle=Asked(), teacher=teacher)
    with pytest.raises(ValueError, match=r"reads 'user' of the context, which names nothing.*context\.get\('user'\)"):
        prefenvs.feedback(env).ask(Query(segments, 2, context))
    assert prefenvs.feedback(env).asked == 0


@pytest.mark.parametrize("key", ["user", "criterion", "principle"])
def test_a_context_that_the_oracle_does_not_read_is_refused_and_costs_nothing(key):
    env, segments = pendulum(budget=20)
    feedback = prefenvs.feedback(env)
    wanted = rf"names {key}, which PartialReturn does not read.*reads = \('rewards', '{key}'\).*Nothing was asked"
    with pytest.raises(ValueError, match=wanted):
        feedback.ask(Query(segments, 2, {key: np.zeros(20, np.int64)}))
    assert feedback.asked == 0
    assert len(feedback.ask(Query(segments, 2, {"prompt": np.zeros(20, np.int64)}))) == 20


@pytest.mark.parametrize("users", [np.zeros(20), np.full(20, "ann"), np.zeros((20, 2), int)])
def test_users_that_a_label_cannot_hold_are_refused(users):
    env, segments = pendulum(oracle=Disagreeing())
    with pytest.raises(ValueError, match=r"context\['user'\] is .* expected whole numbers \(n,\) = \(20,\)"):
        prefenvs.feedback(env).ask(Query(segments, 2, {"user": users}))
    assert prefenvs.feedback(env).asked == 0


def test_answers_to_nobody_in_particular_are_of_user_minus_one():
    named, unnamed = prefenvs.Label(np.ones((2, 1)), user=np.array([4, 5])), prefenvs.Label(np.ones((1, 1)))
    assert prefenvs.Label.concatenate([unnamed, named]).user.tolist() == [-1, 4, 5]
    assert prefenvs.Label.concatenate([unnamed, unnamed]).user is None


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
