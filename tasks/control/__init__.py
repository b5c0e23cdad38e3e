"""Continuous and classic control: Gymnasium's classic and MuJoCo tasks and DeepMind's Control Suite.

Reference scores of Gymnasium's tasks are rl-baselines3-zoo's, one run each, and name the environment version they were
measured on where it is an older one than ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefenvs.tasks.task import Score, TaskSpec

_RANDOM: dict[str, Any] = json.loads(Path(__file__).with_name("scores.json").read_text(encoding="utf-8"))


def _random(name: str) -> Score | None:
    found = _RANDOM["scores"].get(name)
    return Score(found["mean"], found["sd"], _RANDOM["source"]) if found else None


def _zoo(mean: float, sd: float, run: str) -> Score:
    """One run of rl-baselines3-zoo, whose table gives the deviation between the evaluation's episodes."""
    return Score(mean, sd, f"rl-baselines3-zoo benchmark.md, one run: {run}")


def _classic(name: str, horizon: int, factors: tuple[str, ...], **rest: Any) -> TaskSpec:
    entry_point = f"prefenvs.tasks.control.classic:{name}"
    return TaskSpec(name, entry_point, factors, horizon, random_score=_random(name), **rest)


def _mujoco(
    name: str, terms: Mapping[str, str], horizon: int = 1000, constant: float = 0.0, reference: Score | None = None
) -> TaskSpec:
    return TaskSpec(
        name,
        "prefenvs.tasks.control.mujoco:MujocoTask",
        tuple(terms),
        horizon,
        kwargs={"env_id": f"{name}-v5", "terms": terms, "constant": constant},
        random_score=_random(name),
        reference_score=reference,
    )


def _dmc(name: str, domain: str, task: str, factors: tuple[str, ...], has_success: bool = False) -> TaskSpec:
    return TaskSpec(
        name,
        "prefenvs.tasks.control.dmc:DMControlTask",
        factors,
        horizon=1000,
        kwargs={"domain": domain, "task": task},
        has_success=has_success,
        random_score=_random(name),
        extra="dmc",
    )


_RUN = {"forward_reward": "reward_forward", "control_cost": "reward_ctrl"}
_WALK = {"forward_reward": "reward_forward", "healthy_reward": "reward_survive", "control_cost": "reward_ctrl"}
_WALK_CONTACT = _WALK | {"contact_cost": "reward_contact"}

CONTROL_TASKS: tuple[TaskSpec, ...] = (
    _classic("CartPole", 500, ("alive",)),
    _classic("MountainCar", 200, ("step_cost",), has_success=True),
    _classic("MountainCarContinuous", 999, ("goal", "control_cost"), has_success=True),
    _classic("Acrobot", 500, ("step_cost",), has_success=True),
    _classic("Pendulum", 200, ("angle_cost", "speed_cost", "torque_cost")),
    _mujoco("Ant", _WALK_CONTACT),
    _mujoco("HalfCheetah", _RUN),
    _mujoco("Hopper", _WALK),
    _mujoco("Humanoid", _WALK_CONTACT),
    _mujoco(
        "HumanoidStandup",
        {"height_reward": "reward_linup", "control_cost": "reward_quadctrl", "impact_cost": "reward_impact"},
        constant=1.0,
    ),
    _mujoco(
        "InvertedDoublePendulum",
        {"alive": "reward_survive", "distance_cost": "distance_penalty", "speed_cost": "velocity_penalty"},
    ),
    _mujoco("InvertedPendulum", {"alive": "reward_survive"}),
    _mujoco(
        "Pusher",
        {"object_to_goal_cost": "reward_dist", "arm_to_object_cost": "reward_near", "control_cost": "reward_ctrl"},
        horizon=100,
    ),
    _mujoco("Reacher", {"distance_cost": "reward_dist", "control_cost": "reward_ctrl"}, horizon=50),
    _mujoco("Swimmer", _RUN),
    _mujoco("Walker2d", _WALK),
    _dmc("WalkerWalk", "walker", "walk", ("standing", "move", "upright")),
    _dmc("WalkerRun", "walker", "run", ("standing", "move", "upright")),
    _dmc("CheetahRun", "cheetah", "run", ("move",)),
    _dmc("QuadrupedWalk", "quadruped", "walk", ("upright", "move")),
    _dmc("QuadrupedRun", "quadruped", "run", ("upright", "move")),
    _dmc("HopperHop", "hopper", "hop", ("standing", "hopping")),
    _dmc("HumanoidStand", "humanoid", "stand", ("standing", "upright", "small_velocity", "small_control")),
    _dmc("CartpoleSwingup", "cartpole", "swingup", ("upright", "centered", "small_velocity", "small_control")),
    _dmc("FingerSpin", "finger", "spin", ("spinning",)),
    _dmc("ReacherHard", "reacher", "hard", ("at_target",), has_success=True),
    _dmc("BallInCupCatch", "ball_in_cup", "catch", ("in_cup",), has_success=True),
    _dmc("FishSwim", "fish", "swim", ("at_target", "upright"), has_success=True),
)
"""The 28 control tasks. Importing this imports no simulator."""
