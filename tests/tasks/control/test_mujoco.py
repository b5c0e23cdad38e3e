"""Traps of restoring a MuJoCo state, and the constant in a reward."""

import mujoco
import numpy as np
import pytest

from prefenvs.tasks.control.mujoco import MujocoTask

STANDUP = {"height_reward": "reward_linup", "control_cost": "reward_quadctrl", "impact_cost": "reward_impact"}


def walked(name, terms, steps):
    task = MujocoTask(f"{name}-v5", terms)
    task.reset(seed=0)
    task.action_space.seed(0)
    for _ in range(steps):
        task.step(task.action_space.sample())
    return task


@pytest.mark.parametrize("name", ["Ant", "Humanoid"])
def test_what_lags_the_simulation_by_a_step_is_restored(name):
    # mj_step leaves body positions where they were a simulation step ago; the next forward reward starts from them.
    terms = {"forward_reward": "reward_forward"}
    task, fresh = walked(name, terms, 12), MujocoTask(f"{name}-v5", terms)
    fresh.set_state(task.get_state())
    ours, theirs = task._env.data, fresh._env.data
    for field in ("xpos", "xipos", "geom_xpos", "geom_xmat", "cfrc_ext", "cinert", "cvel", "qacc_warmstart"):
        np.testing.assert_array_equal(getattr(theirs, field), getattr(ours, field), err_msg=field)
    present = ours.xipos.copy()
    mujoco.mj_forward(task._env.model, ours)
    assert np.abs(ours.xipos - present).max() > 0, "the lag that this test is about is gone"


def test_the_standup_reward_holds_a_constant_of_one():
    task = MujocoTask("HumanoidStandup-v5", STANDUP, constant=1.0)
    np.testing.assert_array_equal(
        task.combine_factors({"height_reward": [5.0], "control_cost": [-1.0], "impact_cost": [-0.5]}), [4.5]
    )


def test_a_state_of_another_task_is_refused_and_changes_nothing():
    task, other = walked("Hopper", {"forward_reward": "reward_forward"}, 3), walked("Ant", {}, 0)
    before = task.get_state()
    with pytest.raises((TypeError, ValueError)):
        task.set_state(other.get_state())
    after = task.get_state()
    assert {name: array.tobytes() for name, array in after.items()} == {
        name: array.tobytes() for name, array in before.items()
    }
