"""Continuous and classic control: Gymnasium's classic and MuJoCo tasks and DeepMind's Control Suite.

Random scores are measured here by `scores.py`; reference scores are quoted from the tables named in their source.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefenvs.tasks.task import Score, TaskSpec

_RANDOM: dict[str, Any] = json.loads(Path(__file__).with_name("scores.json").read_text(encoding="utf-8"))

# Mean and deviation between the evaluation's episodes, agent and training steps.
_ZOO = {
    "CartPole": (500.0, 0.0, "PPO, 100k steps"),
    "MountainCar": (-100.849, 9.925, "DQN, 120k steps"),
    "MountainCarContinuous": (94.679, 1.134, "SAC, 50k steps"),
    "Acrobot": (-76.639, 11.752, "DQN, 100k steps"),
    "Pendulum": (-156.995, 88.714, "SAC, 20k steps"),
}
_ZOO_SOURCE = "rl-baselines3-zoo benchmark.md at commit 0088472, one run, deterministic policy: {}"

# SAC on the same -v5 environments: the last moving average of its training returns, and training steps.
_SLM = {
    "Ant": (4942.91, "2M"),
    "HalfCheetah": (9815.16, "4M"),
    "Hopper": (1416.52, "3M"),
    "Humanoid": (1989.65, "1M"),
    "HumanoidStandup": (137357.00, "1M"),
    "InvertedDoublePendulum": (9032.67, "2M"),
    "InvertedPendulum": (928.43, "2M"),
    "Pusher": (-43.00, "1M"),
    "Reacher": (-6.31, "1M"),
    "Swimmer": (301.34, "2M"),
    "Walker2d": (3123.66, "3M"),
}
_SLM_SOURCE = "SLM-Lab docs/BENCHMARKS.md at commit 02477a9, moving average of training returns, 4 seeds: SAC, {} steps"

# Mean of three seeds at step 4M. SAC learns three of the tasks too little to be a reference: TD-MPC2 stands in.
_TDMPC2 = {
    "WalkerWalk": (974.10, "sac/walker-walk"),
    "WalkerRun": (686.63, "sac/walker-run"),
    "CheetahRun": (771.00, "sac/cheetah-run"),
    "QuadrupedWalk": (777.80, "sac/quadruped-walk"),
    "QuadrupedRun": (463.87, "sac/quadruped-run"),
    "HopperHop": (449.17, "tdmpc2/hopper-hop"),
    "HumanoidStand": (917.80, "tdmpc2/humanoid-stand"),
    "CartpoleSwingup": (825.50, "sac/cartpole-swingup"),
    "FingerSpin": (980.47, "sac/finger-spin"),
    "ReacherHard": (944.23, "sac/reacher-hard"),
    "BallInCupCatch": (978.60, "sac/cup-catch"),
    "FishSwim": (760.97, "tdmpc2/fish-swim"),
}
_TDMPC2_SOURCE = "nicklashansen/tdmpc2 results/{}.csv at commit e9f5932, mean of 3 seeds at step 4M"


def _random_score(name: str) -> Score | None:
    found = _RANDOM["scores"].get(name)
    return Score(found["mean"], found["sd"], _RANDOM["source"]) if found else None


def _classic(name: str, horizon: int, *factors: str, has_success: bool = False) -> TaskSpec:
    mean, sd, run = _ZOO[name]
    return TaskSpec(
        name,
        f"prefenvs.tasks.control.classic:{name}",
        factors,
        horizon,
        has_success=has_success,
        random_score=_random_score(name),
        reference_score=Score(mean, sd, _ZOO_SOURCE.format(run)),
    )


def _mujoco(name: str, terms: dict[str, str], horizon: int = 1000, constant: float = 0.0) -> TaskSpec:
    mean, steps = _SLM[name]
    return TaskSpec(
        name,
        "prefenvs.tasks.control.mujoco:MujocoTask",
        tuple(terms),
        horizon,
        kwargs={"env_id": f"{name}-v5", "terms": terms, "constant": constant},
        random_score=_random_score(name),
        reference_score=Score(mean, None, _SLM_SOURCE.format(steps)),
        batched="prefenvs.tasks.control.batched:BatchedMujoco",
    )


def _dmc(name: str, domain: str, task: str, *factors: str, has_success: bool = False) -> TaskSpec:
    mean, table = _TDMPC2[name]
    return TaskSpec(
        name,
        "prefenvs.tasks.control.dmc:DMControlTask",
        factors,
        horizon=1000,
        kwargs={"domain": domain, "task": task},
        has_success=has_success,
        random_score=_random_score(name),
        reference_score=Score(mean, None, _TDMPC2_SOURCE.format(table)),
        extra="dmc",
    )


# Names of factors to Gymnasium's keys in `info`.
_RUN = {"forward_reward": "reward_forward", "control_cost": "reward_ctrl"}
_WALK = {"forward_reward": "reward_forward", "healthy_reward": "reward_survive", "control_cost": "reward_ctrl"}
_TOUCH = _WALK | {"contact_cost": "reward_contact"}
_STANDUP = {"height_reward": "reward_linup", "control_cost": "reward_quadctrl", "impact_cost": "reward_impact"}
_BALANCE = {"alive": "reward_survive", "distance_cost": "distance_penalty", "speed_cost": "velocity_penalty"}
_PUSH = {"object_to_goal_cost": "reward_dist", "arm_to_object_cost": "reward_near", "control_cost": "reward_ctrl"}
_REACH = {"distance_cost": "reward_dist", "control_cost": "reward_ctrl"}

CONTROL_TASKS: tuple[TaskSpec, ...] = (
    _classic("CartPole", 500, "alive"),
    _classic("MountainCar", 200, "step_cost", has_success=True),
    _classic("MountainCarContinuous", 999, "goal", "control_cost", has_success=True),
    _classic("Acrobot", 500, "step_cost", has_success=True),
    _classic("Pendulum", 200, "angle_cost", "speed_cost", "torque_cost"),
    _mujoco("Ant", _TOUCH),
    _mujoco("HalfCheetah", _RUN),
    _mujoco("Hopper", _WALK),
    _mujoco("Humanoid", _TOUCH),
    _mujoco("HumanoidStandup", _STANDUP, constant=1.0),
    _mujoco("InvertedDoublePendulum", _BALANCE),
    _mujoco("InvertedPendulum", {"alive": "reward_survive"}),
    _mujoco("Pusher", _PUSH, horizon=100),
    _mujoco("Reacher", _REACH, horizon=50),
    _mujoco("Swimmer", _RUN),
    _mujoco("Walker2d", _WALK),
    _dmc("WalkerWalk", "walker", "walk", "standing", "move", "upright"),
    _dmc("WalkerRun", "walker", "run", "standing", "move", "upright"),
    _dmc("CheetahRun", "cheetah", "run", "move"),
    _dmc("QuadrupedWalk", "quadruped", "walk", "upright", "move"),
    _dmc("QuadrupedRun", "quadruped", "run", "upright", "move"),
    _dmc("HopperHop", "hopper", "hop", "standing", "hopping"),
    _dmc("HumanoidStand", "humanoid", "stand", "standing", "upright", "small_velocity", "small_control"),
    _dmc("CartpoleSwingup", "cartpole", "swingup", "upright", "centered", "small_velocity", "small_control"),
    _dmc("FingerSpin", "finger", "spin", "spinning"),
    _dmc("ReacherHard", "reacher", "hard", "at_target", has_success=True),
    _dmc("BallInCupCatch", "ball_in_cup", "catch", "in_cup", has_success=True),
    _dmc("FishSwim", "fish", "swim", "at_target", "upright", has_success=True),
)
"""The 28 control tasks. Importing this imports no simulator."""
