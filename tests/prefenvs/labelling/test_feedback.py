import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs import JudgedSegments, Query, SegmentStore
from prefenvs.labelling.feedback import Feedback
from prefenvs.labelling.source import find_source
from prefenvs.oracles import Hierarchical


def pendulum(steps=420, env_seed=1, **settings):
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
    return env, store.sample(40, 25, np.random.default_rng(2))


def test_the_error_free_teacher_prefers_the_greater_true_return():
    env, segments = pendulum(budget=30)
    feedback = prefenvs.feedback(env)
    label = feedback.ask(Query(segments))
    scores = prefenvs.true_scores(env, segments).reshape(-1, 2)
    np.testing.assert_array_equal(label.choice.argmax(1), scores.argmax(1))
    assert (feedback.asked, feedback.answered, feedback.remaining) == (20, 20, 10)


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


def test_another_question_under_a_used_number_is_refused(tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    with pytest.raises(prefenvs.RunMismatch, match=r"query 0 .* about other segments"):
        again.ask(Query(segments[::-1]))
    assert again.asked == 0


def test_a_store_of_other_settings_is_refused(tmp_path):
    path = str(tmp_path / "a.sqlite")
    pendulum(store=path)
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        pendulum(store=path, teacher="noisy")


def test_a_damaged_store_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        pendulum(store=str(path))
    assert path.read_bytes() == b"not a database" * 100


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
        pendulum(oracle="regret")


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
