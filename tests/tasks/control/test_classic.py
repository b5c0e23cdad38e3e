"""Golden factors and goals of the classic tasks, worked out by hand from Gymnasium's formulas."""

import numpy as np
import pytest

from prefenvs.tasks.control.classic import Acrobot, CartPole, MountainCar, MountainCarContinuous, Pendulum


def placed(task, state, dtype=np.float64):
    task.reset(seed=0)
    task.state = np.array(state, dtype=dtype)
    return task


def test_pendulum_pays_for_angle_speed_and_torque_of_the_state_acted_in():
    task = placed(Pendulum(), [np.pi / 2, 2.0])
    task.step(np.array([2.0], dtype=np.float32))
    assert task.reward_factors() == pytest.approx(
        {"angle_cost": -((np.pi / 2) ** 2), "speed_cost": -0.1 * 2.0**2, "torque_cost": -0.001 * 2.0**2}
    )


def test_pendulum_measures_the_angle_from_upright_whichever_way_it_turned():
    task = placed(Pendulum(), [2 * np.pi + 0.5, 0.0])
    task.step(np.zeros(1, dtype=np.float32))
    assert task.reward_factors()["angle_cost"] == pytest.approx(-(0.5**2))


def test_pendulum_clips_the_torque_it_pays_for():
    task = placed(Pendulum(), [0.0, 0.0])
    task.step(np.array([9.0], dtype=np.float32))
    assert task.reward_factors()["torque_cost"] == pytest.approx(-0.004)


def test_continuous_mountain_car_pays_a_hundred_at_the_flag_and_takes_off_the_force():
    task = placed(MountainCarContinuous(), [0.44, 0.05], np.float32)
    assert task.success() is False
    _, reward, terminated, _, _ = task.step(np.array([0.5], dtype=np.float32))
    assert terminated
    assert task.success() is True
    assert task.reward_factors() == pytest.approx({"goal": 100.0, "control_cost": -0.025})
    assert reward == pytest.approx(99.975)


def test_mountain_car_is_solved_at_the_flag():
    assert placed(MountainCar(), [0.5, 0.0]).success() is True
    assert placed(MountainCar(), [0.49, 0.07]).success() is False


def test_acrobot_is_solved_with_the_tip_above_the_line():
    # Heights of the tip: -cos(a) - cos(a + b), solved above 1.
    assert placed(Acrobot(), [np.pi, 0.0, 0.0, 0.0]).success() is True
    assert placed(Acrobot(), [np.pi / 2, 0.0, 0.0, 0.0]).success() is False


@pytest.mark.filterwarnings("ignore:.*undefined behavior")
def test_cart_pole_pays_nothing_after_the_fall_and_remembers_it_in_its_state():
    task = placed(CartPole(), [0.0, 0.0, 0.3, 0.0])
    assert task.step(0)[1] == 1.0
    state = task.get_state()
    assert task.step(0)[1] == 0.0
    task.set_state(state)
    assert task.step(0)[1] == 0.0
    assert task.reward_factors() == {"alive": 0.0}
