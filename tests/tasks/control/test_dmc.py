"""Formulas of the Control Suite's rewards by hand, success, seeds and the target that lives in the model."""

import numpy as np
import pytest

pytest.importorskip("dm_control", reason='needs pip install "prefenvs[dmc]"')

from dm_control import suite
from dm_control.rl.control import PhysicsError
from dm_control.utils.rewards import tolerance

from prefenvs.tasks.control.dmc import REWARDS, DMControlTask, _at_least, _between


def combine(domain, task, **factors):
    return REWARDS[domain, task].combine({name: np.asarray(value) for name, value in factors.items()})


def test_walker_weighs_standing_three_to_one_and_moving_five_to_one():
    # (3 * 1 + 0.5) / 4 * (5 * 0.4 + 1) / 6 = 0.875 * 0.5
    assert combine("walker", "walk", standing=1.0, upright=0.5, move=0.4) == pytest.approx(0.4375)


def test_cartpole_halves_the_reward_far_from_the_centre_and_at_speed():
    # 1 * (4 + 0) / 5 * (1 + 0) / 2 * (1 + 0) / 2
    assert combine(
        "cartpole", "swingup", upright=1.0, centered=0.0, small_velocity=0.0, small_control=0.0
    ) == pytest.approx(0.2)


def test_humanoid_pays_nothing_lying_down_and_at_most_a_fifth_for_small_control():
    assert combine("humanoid", "stand", standing=0.0, upright=1.0, small_velocity=1.0, small_control=1.0) == 0.0
    assert combine(
        "humanoid", "stand", standing=1.0, upright=1.0, small_velocity=1.0, small_control=0.0
    ) == pytest.approx(0.8)


def test_fish_pays_an_eighth_for_staying_upright():
    assert combine("fish", "swim", at_target=0.0, upright=1.0) == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("domain", "name", "part"), [("reacher", "hard", "finger"), ("fish", "swim", "mouth")], ids=["reacher", "fish"]
)
def test_reaching_the_target_is_success_and_the_target_travels_with_the_state(domain, name, part):
    task = DMControlTask(domain, name)
    task.reset(seed=1)
    assert task.success() is False
    state, geoms = task.get_state(), task._physics.named.data.geom_xpos
    target = task._physics.model.name2id("target", "geom")
    state["geom_pos"][target] += geoms[part] - geoms["target"]
    task.set_state(state)
    assert task.success() is True
    task.set_state(task.get_state())
    assert task.success() is True


def test_a_ball_in_the_cup_is_success_and_pays_one():
    task = DMControlTask("ball_in_cup", "catch")
    task.reset(seed=0)
    assert task.success() is False
    physics = task._physics
    physics.named.data.qpos[["ball_x", "ball_z"]] += physics.ball_to_target()
    physics.forward()
    assert task.success() is True
    assert task.step(np.zeros(2, dtype=np.float32))[1] == 1.0
    assert task.reward_factors() == {"in_cup": 1.0}


def test_seeds_beyond_32_bits_differ_from_those_within():
    task = DMControlTask("reacher", "hard")
    starts = [task.reset(seed=seed)[0] for seed in (5, 5 + 2**32, 5 + 2**33, 5 + 2**32)]
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[1], starts[2])
    np.testing.assert_array_equal(starts[1], starts[3])


def test_a_state_of_another_task_is_refused():
    with pytest.raises((TypeError, ValueError)):
        DMControlTask("walker", "walk").set_state(DMControlTask("reacher", "hard").get_state())


@pytest.mark.parametrize(("domain", "name"), REWARDS, ids="-".join)
def test_observations_and_rewards_are_the_suites_own_to_the_last_bit(domain, name):
    task = DMControlTask(domain, name)
    env = suite.load(domain, name, task_kwargs={"random": 5, "time_limit": float("inf")})

    def flat(observation):
        return np.concatenate([np.ravel(part) for part in observation.values()])

    np.testing.assert_array_equal(task.reset(seed=5)[0], flat(env.reset().observation))
    task.action_space.seed(0)
    for step in range(60):
        action = task.action_space.sample()
        observation, reward, *_ = task.step(action)
        theirs = env.step(action)
        np.testing.assert_array_equal(observation, flat(theirs.observation))
        assert reward == theirs.reward
        if step == 40:
            np.testing.assert_array_equal(task.reset()[0], flat(env.reset().observation))


def test_a_flank_of_one_number_is_the_suites_own_to_the_last_bit():
    values = np.random.default_rng(0).normal(0.5, 2.0, 2000)
    for value in [*values, 0.0, 0.6, 2.0, np.nan]:
        for lower, upper, margin in ((0.6, 2.0, 0.0), (0.6, np.inf, 0.3), (0.0, 0.0, 2.0), (0.0, 0.1, 0.2)):
            assert _between(value, lower, upper, margin) == pytest.approx(
                tolerance(value, (lower, upper), margin), abs=0, rel=0, nan_ok=True
            )
        linear = tolerance(value, (1.0, np.inf), 0.5, value_at_margin=0.5, sigmoid="linear")
        assert _at_least(value, 1.0, 0.5, 0.5) == linear


@pytest.mark.parametrize(("domain", "task"), [("walker", "walk"), ("cartpole", "swingup")])
def test_a_simulation_that_became_invalid_says_so_and_a_reset_mends_it(domain, task):
    env = DMControlTask(domain, task)
    env.reset(seed=0)
    env._physics.data.qvel[:] = 1e12
    with pytest.raises(PhysicsError, match="BADQ"):
        for _ in range(5):
            env.step(np.zeros(env.action_space.shape))
    observation, _ = env.reset(seed=0)
    assert np.isfinite(env.step(np.zeros(env.action_space.shape))[0]).all()
    assert np.isfinite(observation).all()
