"""Observations and rewards of Gymnasium's MuJoCo tasks, version 5, as formulas over N simulations at once.

Each robot is a few functions of the fields of MjData that it reads, each an array (N, ...). The order of arithmetic is
that of `gymnasium/envs/mujoco/<robot>_v5.py`, default arguments included, so that the numbers are the same to the last
bit; the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

Fields = dict[str, np.ndarray]
"""Fields of MjData by name, each (N, ...) float64, and `velocity` (N,) m/s of the robot's forward position."""
Generator = np.random.Generator


@dataclass(frozen=True)
class Paid:
    """What a step earned."""

    reward: np.ndarray
    """(N,) true reward."""
    factors: tuple[np.ndarray, ...]
    """(N,) each, in the order of the task's factors."""


@dataclass(frozen=True)
class Robot:
    """One of Gymnasium's MuJoCo tasks."""

    fields: tuple[str, ...]
    """Fields of MjData that the functions below read."""
    observe: Callable[[Fields], np.ndarray]
    """(N, obs_dim) float64 observations."""
    pay: Callable[[Fields, np.ndarray, np.ndarray], Paid]
    """Reward of a step, from the fields after it, the (N, act_dim) actions and (N,) whether the robots still stand."""
    start: Callable[[Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Positions and velocities of a new episode of one simulation, from its generator and the model's own pose."""
    position: Callable[[Fields], np.ndarray] | None = None
    """(N,) m, what moving forward is measured by; None where it is not paid for."""
    stands: Callable[[Fields], np.ndarray] | None = None
    """(N,) bool, False where the episode terminates; None where none does."""
    contact_forces: bool = False
    """Whether contact forces are read, which MuJoCo works out on demand."""


# Starts. The draws, and their order, are Gymnasium's.


def _uniform(rng: Generator, qpos: np.ndarray, qvel: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    qpos = qpos + rng.uniform(-noise, noise, qpos.size)
    return qpos, qvel + rng.uniform(-noise, noise, qvel.size)


def _normal(rng: Generator, qpos: np.ndarray, qvel: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    qpos = qpos + rng.uniform(-noise, noise, qpos.size)
    return qpos, qvel + noise * rng.standard_normal(qvel.size)


def _reacher_start(rng: Generator, qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    qpos = rng.uniform(-0.1, 0.1, qpos.size) + qpos
    while True:
        target = rng.uniform(-0.2, 0.2, 2)  # m
        if np.linalg.norm(target) < 0.2:
            break
    qpos[-2:] = target
    qvel = qvel + rng.uniform(-0.005, 0.005, qvel.size)
    qvel[-2:] = 0
    return qpos, qvel


def _pusher_start(rng: Generator, qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    qpos = qpos.copy()
    while True:
        cylinder = np.concatenate([rng.uniform(-0.3, 0, 1), rng.uniform(-0.2, 0.2, 1)])  # m from the goal
        if np.linalg.norm(cylinder) > 0.17:
            break
    qpos[-4:-2], qpos[-2:] = cylinder, 0
    qvel = qvel + rng.uniform(-0.005, 0.005, qvel.size)
    qvel[-4:] = 0
    return qpos, qvel


# Observations.


def _pose(fields: Fields, hidden: int, fastest: float = np.inf) -> np.ndarray:
    """Positions but the first `hidden` ones, which only say how far the robot has come, and clipped velocities."""
    qvel = fields["qvel"] if fastest == np.inf else fields["qvel"].clip(-fastest, fastest)
    return np.concatenate([fields["qpos"][:, hidden:], qvel], 1)


def _flat(field: np.ndarray) -> np.ndarray:
    """(N, bodies - 1, k) without the world, as (N, ...)."""
    return field[:, 1:].reshape(len(field), -1)


def _ant(fields: Fields) -> np.ndarray:
    return np.concatenate([_pose(fields, hidden=2), _flat(fields["cfrc_ext"].clip(-1, 1))], 1)


def _humanoid(fields: Fields) -> np.ndarray:
    inertia, motion, forces = (_flat(fields[name]) for name in ("cinert", "cvel", "cfrc_ext"))
    return np.concatenate([_pose(fields, hidden=2), inertia, motion, fields["qfrc_actuator"][:, 6:], forces], 1)


def _double_pendulum(fields: Fields) -> np.ndarray:
    qpos, qvel, force = (fields[name] for name in ("qpos", "qvel", "qfrc_constraint"))
    angles = qpos[:, 1:]
    return np.concatenate(
        [qpos[:, :1], np.sin(angles), np.cos(angles), qvel.clip(-10, 10), force.clip(-10, 10)[:, :1]], 1
    )


def _reacher(fields: Fields) -> np.ndarray:
    angles, (fingertip, target) = fields["qpos"][:, :2], _bodies(fields, 3, 4)
    return np.concatenate(
        [np.cos(angles), np.sin(angles), fields["qpos"][:, 2:], fields["qvel"][:, :2], (fingertip - target)[:, :2]], 1
    )


def _pusher(fields: Fields) -> np.ndarray:
    return np.concatenate([fields["qpos"][:, :7], fields["qvel"][:, :7], *_bodies(fields, *PUSHER_BODIES)], 1)


# Rewards. The action is float32, and so is what it costs until it is added to the rest.

PUSHER_BODIES = (10, 11, 12)  # hand, object and goal
STEP_SECONDS = 0.003  # of HumanoidStandup's simulation, not of its control


def _bodies(fields: Fields, *bodies: int) -> list[np.ndarray]:
    return [fields["xpos"][:, body] for body in bodies]


def _squares(array: np.ndarray) -> np.ndarray:
    """(N,) sum of the squares of (N, ...)."""
    return np.square(array.reshape(len(array), -1)).sum(1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.vecdot(vectors, vectors))


def _run(fields: Fields, actions: np.ndarray, _: np.ndarray, control: float) -> Paid:
    forward, cost = 1.0 * fields["velocity"], control * _squares(actions)
    return Paid(forward - cost, (forward, -cost))


def _walk(fields: Fields, actions: np.ndarray, stands: np.ndarray, control: float) -> Paid:
    forward, healthy, cost = 1.0 * fields["velocity"], stands * 1.0, control * _squares(actions)
    return Paid(forward + healthy - cost, (forward, healthy, -cost))


def _ant_pay(fields: Fields, actions: np.ndarray, stands: np.ndarray) -> Paid:
    forward, healthy, cost = fields["velocity"] * 1.0, stands * 1.0, 0.5 * _squares(actions)
    contact = 5e-4 * _squares(fields["cfrc_ext"].clip(-1, 1))
    return Paid(forward + healthy - (cost + contact), (forward, healthy, -cost, -contact))


def _humanoid_pay(fields: Fields, _: np.ndarray, stands: np.ndarray) -> Paid:
    forward, healthy, cost = 1.25 * fields["velocity"], stands * 5.0, 0.1 * _squares(fields["ctrl"])
    contact = (5e-7 * _squares(fields["cfrc_ext"])).clip(-np.inf, 10)
    return Paid(forward + healthy - (cost + contact), (forward, healthy, -cost, -contact))


def _standup_pay(fields: Fields, _: np.ndarray, __: np.ndarray) -> Paid:
    height, cost = fields["qpos"][:, 2] / STEP_SECONDS, 0.1 * _squares(fields["ctrl"])
    impact = (5e-7 * _squares(fields["cfrc_ext"])).clip(-np.inf, 10)
    return Paid(height - cost - impact + 1, (height, -cost, -impact))


def _balance(fields: Fields, _: np.ndarray, stands: np.ndarray) -> Paid:
    x, y = fields["site_xpos"][:, 0, 0], fields["site_xpos"][:, 0, 2]
    distance = 0.01 * x**2 + (y - 2) ** 2
    speed = 0.001 * fields["qvel"][:, 1] ** 2 + 0.005 * fields["qvel"][:, 2] ** 2
    alive = 10.0 * stands
    return Paid(alive - distance - speed, (alive, -distance, -speed))


def _stay(_: Fields, __: np.ndarray, stands: np.ndarray) -> Paid:
    alive = stands.astype(np.float64)
    return Paid(alive, (alive,))


def _reach(fields: Fields, actions: np.ndarray, _: np.ndarray) -> Paid:
    fingertip, target = _bodies(fields, 3, 4)
    distance, control = -_length(fingertip - target) * 1.0, -_squares(actions) * 1.0
    return Paid(distance + control, (distance, control))


def _push(fields: Fields, actions: np.ndarray, _: np.ndarray) -> Paid:
    hand, thing, goal = _bodies(fields, *PUSHER_BODIES)
    near, distance = -_length(thing - hand) * 0.5, -_length(thing - goal) * 1.0
    control = -_squares(actions) * 0.1
    return Paid(distance + control + near, (distance, near, control))


# Who still stands, and where.


def _hopper_stands(fields: Fields) -> np.ndarray:
    rest = np.concatenate([fields["qpos"][:, 2:], fields["qvel"]], 1)
    height, angle = fields["qpos"][:, 1], fields["qpos"][:, 2]
    return (np.abs(rest) < 100).all(1) & (height > 0.7) & (np.abs(angle) < 0.2)  # m, rad


def _walker_stands(fields: Fields) -> np.ndarray:
    height, angle = fields["qpos"][:, 1], fields["qpos"][:, 2]
    return (height > 0.8) & (height < 2.0) & (np.abs(angle) < 1.0)  # m, rad


def _ant_stands(fields: Fields) -> np.ndarray:
    finite = np.isfinite(fields["qpos"]).all(1) & np.isfinite(fields["qvel"]).all(1)
    return finite & (fields["qpos"][:, 2] >= 0.2) & (fields["qpos"][:, 2] <= 1.0)  # m


def _humanoid_stands(fields: Fields) -> np.ndarray:
    return (fields["qpos"][:, 2] > 1.0) & (fields["qpos"][:, 2] < 2.0)  # m


def _pendulum_stands(fields: Fields) -> np.ndarray:
    finite = np.isfinite(fields["qpos"]).all(1) & np.isfinite(fields["qvel"]).all(1)
    return finite & (np.abs(fields["qpos"][:, 1]) <= 0.2)  # rad


def _root(fields: Fields) -> np.ndarray:
    return fields["qpos"][:, 0]


def _torso(fields: Fields) -> np.ndarray:
    return fields["xpos"][:, 1, 0]


def _centre_of_mass(fields: Fields) -> np.ndarray:
    mass = fields["body_mass"]  # (bodies,) kg, of the model
    return (np.einsum("b,nbj->nj", mass, fields["xipos"]) / mass.sum())[:, 0]


_PLANE = ("qpos", "qvel")
_HUMANOID = (*_PLANE, "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ctrl")

ROBOTS: dict[str, Robot] = {
    "Ant-v5": Robot(
        (*_PLANE, "xpos", "cfrc_ext"),
        _ant,
        _ant_pay,
        partial(_normal, noise=0.1),
        _torso,
        _ant_stands,
        contact_forces=True,
    ),
    "HalfCheetah-v5": Robot(
        _PLANE, partial(_pose, hidden=1), partial(_run, control=0.1), partial(_normal, noise=0.1), _root
    ),
    "Hopper-v5": Robot(
        _PLANE,
        partial(_pose, hidden=1, fastest=10),
        partial(_walk, control=1e-3),
        partial(_uniform, noise=5e-3),
        _root,
        _hopper_stands,
    ),
    "Humanoid-v5": Robot(
        (*_HUMANOID, "xipos"),
        _humanoid,
        _humanoid_pay,
        partial(_uniform, noise=1e-2),
        _centre_of_mass,
        _humanoid_stands,
        contact_forces=True,
    ),
    "HumanoidStandup-v5": Robot(_HUMANOID, _humanoid, _standup_pay, partial(_uniform, noise=1e-2), contact_forces=True),
    "InvertedDoublePendulum-v5": Robot(
        (*_PLANE, "qfrc_constraint", "site_xpos"),
        _double_pendulum,
        _balance,
        partial(_normal, noise=0.1),
        stands=lambda fields: ~(fields["site_xpos"][:, 0, 2] <= 1),  # m, of the tip
    ),
    "InvertedPendulum-v5": Robot(
        _PLANE, partial(_pose, hidden=0), _stay, partial(_uniform, noise=0.01), stands=_pendulum_stands
    ),
    "Pusher-v5": Robot((*_PLANE, "xpos"), _pusher, _push, _pusher_start),
    "Reacher-v5": Robot((*_PLANE, "xpos"), _reacher, _reach, _reacher_start),
    "Swimmer-v5": Robot(
        _PLANE, partial(_pose, hidden=2), partial(_run, control=1e-4), partial(_uniform, noise=0.1), _root
    ),
    "Walker2d-v5": Robot(
        _PLANE,
        partial(_pose, hidden=1, fastest=10),
        partial(_walk, control=1e-3),
        partial(_uniform, noise=5e-3),
        _root,
        _walker_stands,
    ),
}
"""The formulas by Gymnasium's id."""
