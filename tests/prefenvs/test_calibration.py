"""Units of a teacher's parameters."""

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs.calibration import Calibration, _reference_set, measure, random_play, reference_set, weighted_scores
from prefenvs.making import make_task
from prefenvs.oracles import Hierarchical, PartialReturn
from prefenvs.segments import JudgedSegments
from prefenvs.tasks.grid.solvers import value_iteration


def judged(rewards):
    rewards = np.array(rewards, float)
    n, steps = rewards.shape
    mask = np.ones((n, steps), bool)
    return JudgedSegments(
        np.zeros((n, steps + 1, 1)), np.zeros((n, steps, 1)), rewards, {"reward": rewards}, mask, ~mask[:, 0]
    )


def test_units_are_moments_of_segment_scores():
    found = measure(PartialReturn(), judged([[1, 1], [2, 2], [3, 3]]))  # scores 2, 4, 6
    assert (found.mean, found.floor, found.steps, found.myopia) == (4.0, 2.0, 2, 1.0)
    np.testing.assert_allclose(found.sd, np.sqrt(8 / 3))
    np.testing.assert_allclose(found.factor_sd["reward"], np.sqrt(8 / 3))


def test_a_myopic_teachers_units_weigh_steps_as_the_teacher_does():
    found = measure(PartialReturn(), judged([[4, 0], [0, 4]]), myopia=0.5)  # scores 2, 4
    assert (found.mean, found.sd, found.floor, found.myopia) == (3.0, 1.0, 2.0, 0.5)


def test_the_reference_set_is_the_same_every_time_and_its_rewards_are_the_tasks():
    _reference_set.cache_clear()
    first = reference_set("Pendulum", 20)
    _reference_set.cache_clear()
    np.testing.assert_array_equal(first.rewards, reference_set("Pendulum", 20).rewards)
    assert first.rewards.shape == (2000, 20)
    assert (first.rewards <= 0).all()
    assert prefenvs.calibrate("prefenvs/Pendulum-v0", segment_steps=20) == measure(PartialReturn(), first)


def test_an_environment_of_ones_own_is_measured_by_its_reward():
    found = prefenvs.calibrate(gym.make("CartPole-v1"), segment_steps=10, steps=500)
    assert found.floor >= 1.0
    assert 0 < found.sd < 10
    assert found.mean <= 10.0


def test_random_play_restarts_at_ends_and_at_the_horizon():
    env = prefenvs.wrap(gym.make("CartPole-v1"))
    episodes = random_play(env._task, 200, 15, np.random.default_rng(0))
    lengths = [len(episode["rewards"]) for episode in episodes]
    assert sum(lengths) >= 200
    assert max(lengths) == 15
    assert any(episode["terminated"] for episode in episodes)


class Pendulum(gym.Env):
    """A user's environment that happens to be called as a task of the suite is."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)


def test_an_environment_of_ones_own_has_no_units_and_values_of_a_task_of_that_name():
    env = prefenvs.wrap(Pendulum(), teacher="noisy")
    assert prefenvs.feedback(env).task == "Pendulum"
    with pytest.raises(ValueError, match="needs units for 'Pendulum', an environment of your own"):
        prefenvs.feedback(env)._calibration(10)
    with pytest.raises(prefenvs.NoExpert, match="known for an environment of your own"):
        prefenvs.feedback(prefenvs.wrap(Pendulum(), oracle="regret"))
    with pytest.raises(prefenvs.NoExpert, match="known for an environment of your own"):
        prefenvs.feedback(prefenvs.wrap(Pendulum(), name="GridDelivery", oracle="regret"))


def test_an_environment_whose_reward_is_hidden_is_refused():
    with pytest.raises(ValueError, match="hides its reward"):
        prefenvs.calibrate(gym.make("prefenvs/Pendulum-v0"), segment_steps=10)
    with pytest.raises(ValueError, match="hides its reward"):
        prefenvs.calibrate(prefenvs.wrap(gym.make("MountainCar-v0")), segment_steps=10)


def test_a_unit_is_positive():
    with pytest.raises(ValueError, match=r"sd=0\.0, expected a positive unit"):
        Calibration(sd=0.0)


def test_a_rating_is_relative_to_what_the_teacher_remembers():
    # Half of the reference set lies above the mean, whatever the weights: the middle of 5 levels, on average.
    def ratings(teacher):
        env = gym.make("prefenvs/Pendulum-v0", answer="rating", teacher=teacher)
        feedback, store = prefenvs.feedback(env), prefenvs.SegmentStore(env.observation_space, env.action_space)
        observation, _ = env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(2000):
            action = env.action_space.sample()
            after, _, terminated, truncated, info = env.step(action)
            ids = info["segment_id"][None]
            store.add(observation[None], action[None], after[None], [terminated], [truncated], ids)
            observation = env.reset()[0] if terminated or truncated else after
        query = prefenvs.Query(store.sample(2 * 300, 20, np.random.default_rng(0)))
        return feedback.ask(query).ratings

    for teacher in ("oracle", {"name": "myopic", "myopia": 0.5}):
        given = ratings(teacher)
        assert abs(given.mean() - 2.0) < 0.4, teacher
        assert set(np.unique(given)) >= {0.0, 1.0, 2.0, 3.0, 4.0}


def question(env, steps):
    """Two segments of an episode that has begun."""
    store = prefenvs.SegmentStore(env.observation_space, env.action_space)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(30):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        ids = info["segment_id"][None]
        store.add(observation[None], action[None], after[None], [terminated], [truncated], ids)
        observation = after
    return prefenvs.Query(store.sample(2, steps, np.random.default_rng(0)))


def test_factors_of_ones_own_are_compared_in_units_measured_by_random_play():
    def factors(env):
        return {"turns": 1000.0 * env.unwrapped.state[1], "torque": env.unwrapped.last_u or 0.0}

    def make():
        base = gym.make("Pendulum-v1")
        base.unwrapped.last_u = None
        return base

    units = prefenvs.calibrate(make(), "hierarchical", segment_steps=10, steps=1000, factors=factors)
    assert units.factor_sd["turns"] > 1000 > units.factor_sd["torque"] > 0
    env = prefenvs.wrap(make(), factors=factors, oracle="hierarchical", calibration=units)
    query, feedback = question(env, 10), prefenvs.feedback(env)
    turns = feedback._judge(query.segments).factors["turns"].sum(1)
    apart = abs(turns[0] - turns[1]) / units.factor_sd["turns"]
    feedback._oracle = Hierarchical(order=("turns",), margins=0.99 * apart)
    assert not feedback.ask(query).skipped.any()
    feedback._oracle = Hierarchical(order=("turns",), margins=1.01 * apart)
    assert feedback.ask(query).skipped.all()
    with pytest.raises(ValueError, match="Pendulum names its own factors"):
        prefenvs.calibrate("Pendulum", segment_steps=10, factors=factors)


def test_a_factor_without_a_unit_is_not_compared_and_units_of_ones_own_need_no_calibration():
    settings = {"factors": lambda env: {"a": 1.0, "b": float(env.unwrapped.state[1])}, "budget": 1}
    units = prefenvs.calibrate(gym.make("Pendulum-v1"), "hierarchical", segment_steps=10, steps=500)
    env = prefenvs.wrap(gym.make("Pendulum-v1"), oracle="hierarchical", calibration=units, **settings)
    with pytest.raises(ValueError, match=r"unit of factor 'a' is not known; known are those of: reward\. Pass"):
        prefenvs.feedback(env).ask(question(env, 10))
    assert prefenvs.feedback(env).asked == 0
    own = {"name": "hierarchical", "units": {"a": 1.0, "b": 1e-9}}
    env = prefenvs.wrap(gym.make("Pendulum-v1"), oracle=own, **settings)
    assert not prefenvs.feedback(env).ask(question(env, 10)).skipped.any()


def test_units_are_for_segments_of_the_length_they_were_measured_at():
    units = prefenvs.calibrate(gym.make("Pendulum-v1"), segment_steps=20, steps=500)
    env = prefenvs.wrap(gym.make("Pendulum-v1"), teacher="noisy", calibration=units)
    feedback = prefenvs.feedback(env)
    with pytest.raises(ValueError, match=r"segments of 20 steps, these have 5.*segment_steps=5\).*Nothing was asked"):
        feedback.ask(question(env, 5))
    assert feedback.asked == 0
    assert len(feedback.ask(question(env, 20))) == 1
    env = prefenvs.wrap(gym.make("Pendulum-v1"), teacher="noisy", calibration=Calibration(sd=3.0))  # holds for any
    assert len(prefenvs.feedback(env).ask(question(env, 5))) == 1


def test_a_rating_needs_units_measured_with_the_teachers_own_myopia():
    own = prefenvs.calibrate(gym.make("Pendulum-v1"), segment_steps=10, steps=500)
    env = prefenvs.wrap(
        gym.make("Pendulum-v1"), teacher={"name": "myopic", "myopia": 0.5}, answer="rating", calibration=own
    )
    feedback, query = prefenvs.feedback(env), question(env, 10)
    with pytest.raises(ValueError, match=r"measured with myopia=1\.0, the teacher who rates has myopia=0\.5"):
        feedback.ask(query)
    assert feedback.asked == 0


def test_weights_fall_from_the_last_step_that_happened():
    utility, mask = np.ones((1, 4)), np.array([[True, True, True, False]])
    plain, weighted = weighted_scores(utility, mask, 0.5)
    assert (plain[0], weighted[0]) == (3.0, 1.75)


def test_units_and_values_are_those_of_the_task_as_it_was_made():
    units, values = {}, {}
    for seed in (0, 3):
        env = gym.make("prefenvs/GridRandom-v0", map_seed=seed, oracle="regret", teacher="noisy")
        feedback = prefenvs.feedback(env)
        units[seed], values[seed] = feedback._calibration(10).sd, feedback._oracle.values.state_values
        base = make_task(prefenvs.TASKS["GridRandom"], task_kwargs={"map_seed": seed})
        np.testing.assert_array_equal(values[seed], value_iteration(base.mdp)[0])
    assert units[0] != units[3]
    kwargs = {"task_kwargs": {"map_seed": 3}}
    env = gym.make("prefenvs/GridRandom-v0", oracle="regret", **kwargs)
    np.testing.assert_array_equal(prefenvs.feedback(env)._oracle.values.state_values, values[3])
