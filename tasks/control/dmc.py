"""DeepMind's Control Suite: its own physics and rewards, with the reward's terms by name and a restorable state.

Each task is a pair of functions: `terms` reads the factors from the physics, `combine` is the reward's formula over
arrays of them. Both follow `dm_control/suite/<domain>.py` of dm_control 1.0.28; the tests hold them to its rewards.
Tassa et al. 2018, arXiv:1801.00690.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from prefenvs.tasks.task import State

try:
    from dm_control import suite
    from dm_control.mujoco.index import FieldIndexer
    from dm_control.rl.control import PhysicsError
    from dm_control.utils.rewards import tolerance
except ModuleNotFoundError as error:
    if error.name and error.name.partition(".")[0] == "dm_control":
        raise ImportError(
            'DMControl tasks need dm_control, which is not installed: pip install "prefenvs[dmc]".'
        ) from error
    raise

Physics = Any  # dm_control's, one class a domain
Terms = dict[str, float]
Factors = Mapping[str, Any]

WALKER_HEIGHT = 1.2  # m, of the torso when standing
WALKER_SPEED = {"walk": 1.0, "run": 8.0}  # m/s
CHEETAH_SPEED = 10.0  # m/s
QUADRUPED_SPEED = {"walk": 0.5, "run": 5.0}  # m/s
HOPPER_HEIGHT = (0.6, 2.0)  # m, of the torso above the foot
HOPPER_SPEED = 2.0  # m/s
HUMANOID_HEIGHT = 1.4  # m, of the head when standing
FINGER_SPEED = 15.0  # rad/s, of the spun body

DYNAMICS = mujoco.mjtState.mjSTATE_INTEGRATION.value  # all that mj_step reads, qacc_warmstart included
WARNINGS = tuple(mujoco.mjtWarning.__members__)
GAUSSIAN = np.sqrt(-2 * np.log(0.1))  # what makes the flank of `tolerance` 0.1 at the margin
SEED_WORD = 2**32  # RandomState takes seeds below this, or lists of them


@dataclass(frozen=True)
class Reward:
    """The true reward of one task, taken apart."""

    terms: Callable[[Physics], Terms]
    """Factors of the present state and controls, each in [0, 1]."""
    combine: Callable[[Factors], np.ndarray]
    """True reward in [0, 1] of factors of any common shape."""
    solved: Callable[[Terms], bool] | None = None
    """Whether the factors say that the task is solved, where it can be."""


def _at_least(value: Any, bound: float, margin: float, value_at_margin: float) -> float:
    """1 from `bound` on, falling linearly to `value_at_margin` at `bound - margin`: `tolerance` of one number."""
    if value >= bound:
        return 1.0
    fallen = (bound - value) / margin * (1 - value_at_margin)
    return float(1 - fallen) if fallen < 1 else 0.0


def _between(value: Any, lower: float, upper: float = np.inf, margin: float = 0.0) -> float:
    """1 between the bounds, 0.1 at `margin` beyond them and falling as a Gaussian: `tolerance` of one number.

    dm_control's own makes arrays of it, which took a fifth of a step of walker-walk.
    """
    if lower <= value <= upper:
        return 1.0
    if margin == 0.0:
        return 0.0
    beyond = np.float64(lower - value if value < lower else value - upper) / margin
    return float(np.exp(-0.5 * (beyond * GAUSSIAN) ** 2))


def _small_control(physics: Physics) -> float:
    """1 for no control, 0 for full control, averaged over the actuators."""
    return float(tolerance(physics.control(), margin=1, value_at_margin=0, sigmoid="quadratic").mean())


def _walker_terms(physics: Physics, speed: float) -> Terms:
    return {
        "standing": _between(physics.torso_height(), WALKER_HEIGHT, margin=WALKER_HEIGHT / 2),
        "move": _at_least(physics.horizontal_velocity(), speed, margin=speed / 2, value_at_margin=0.5),
        "upright": float((1 + physics.torso_upright()) / 2),
    }


def _walker(speed: float) -> Reward:
    def combine(factors: Factors) -> np.ndarray:
        return (3 * factors["standing"] + factors["upright"]) / 4 * (5 * factors["move"] + 1) / 6

    return Reward(partial(_walker_terms, speed=speed), combine)


def _cheetah_terms(physics: Physics) -> Terms:
    return {"move": _at_least(physics.speed(), CHEETAH_SPEED, margin=CHEETAH_SPEED, value_at_margin=0.0)}


def _quadruped_terms(physics: Physics, speed: float) -> Terms:
    return {
        "upright": _at_least(physics.torso_upright(), 1.0, margin=2.0, value_at_margin=0.0),
        "move": _at_least(physics.torso_velocity()[0], speed, margin=speed, value_at_margin=0.5),
    }


def _quadruped(speed: float) -> Reward:
    return Reward(partial(_quadruped_terms, speed=speed), lambda factors: factors["upright"] * factors["move"])


def _hopper_terms(physics: Physics) -> Terms:
    return {
        "standing": _between(physics.height(), *HOPPER_HEIGHT),
        "hopping": _at_least(physics.speed(), HOPPER_SPEED, margin=HOPPER_SPEED / 2, value_at_margin=0.5),
    }


def _humanoid_terms(physics: Physics) -> Terms:
    velocity = physics.center_of_mass_velocity()[[0, 1]]
    return {
        "standing": _between(physics.head_height(), HUMANOID_HEIGHT, margin=HUMANOID_HEIGHT / 4),
        "upright": _at_least(physics.torso_upright(), 0.9, margin=1.9, value_at_margin=0.0),
        "small_velocity": float(tolerance(velocity, margin=2).mean()),
        "small_control": _small_control(physics),
    }


def _humanoid_combine(factors: Factors) -> np.ndarray:
    standing = factors["standing"] * factors["upright"]
    return (4 + factors["small_control"]) / 5 * standing * factors["small_velocity"]


def _cartpole_terms(physics: Physics) -> Terms:
    return {
        "upright": float(((physics.pole_angle_cosine() + 1) / 2).mean()),
        "centered": _between(physics.cart_position(), 0.0, 0.0, margin=2),
        "small_velocity": float(tolerance(physics.angular_vel(), margin=5).min()),
        "small_control": _small_control(physics),
    }


def _cartpole_combine(factors: Factors) -> np.ndarray:
    control = (4 + factors["small_control"]) / 5
    return factors["upright"] * control * (1 + factors["small_velocity"]) / 2 * (1 + factors["centered"]) / 2


def _finger_terms(physics: Physics) -> Terms:
    return {"spinning": float(physics.hinge_velocity() <= -FINGER_SPEED)}


def _reacher_terms(physics: Physics) -> Terms:
    radii = physics.named.model.geom_size[["target", "finger"], 0].sum()
    return {"at_target": _between(physics.finger_to_target_dist(), 0, radii)}


def _cup_terms(physics: Physics) -> Terms:
    return {"in_cup": float(physics.in_target())}


def _fish_terms(physics: Physics) -> Terms:
    radii = physics.named.model.geom_size[["mouth", "target"], 0].sum()
    distance = np.linalg.norm(physics.mouth_to_target())
    return {
        "at_target": _between(distance, 0, radii, margin=2 * radii),
        "upright": float(0.5 * (physics.upright() + 1)),
    }


REWARDS: dict[tuple[str, str], Reward] = {
    ("walker", "walk"): _walker(WALKER_SPEED["walk"]),
    ("walker", "run"): _walker(WALKER_SPEED["run"]),
    ("cheetah", "run"): Reward(_cheetah_terms, lambda factors: factors["move"]),
    ("quadruped", "walk"): _quadruped(QUADRUPED_SPEED["walk"]),
    ("quadruped", "run"): _quadruped(QUADRUPED_SPEED["run"]),
    ("hopper", "hop"): Reward(_hopper_terms, lambda factors: factors["standing"] * factors["hopping"]),
    ("humanoid", "stand"): Reward(_humanoid_terms, _humanoid_combine),
    ("cartpole", "swingup"): Reward(_cartpole_terms, _cartpole_combine),
    ("finger", "spin"): Reward(_finger_terms, lambda factors: factors["spinning"]),
    ("reacher", "hard"): Reward(
        _reacher_terms, lambda factors: factors["at_target"], lambda terms: terms["at_target"] == 1.0
    ),
    ("ball_in_cup", "catch"): Reward(
        _cup_terms, lambda factors: factors["in_cup"], lambda terms: terms["in_cup"] == 1.0
    ),
    ("fish", "swim"): Reward(
        _fish_terms,
        lambda factors: (7 * factors["at_target"] + factors["upright"]) / 8,
        lambda terms: terms["at_target"] == 1.0,
    ),
}
"""Reward of each (domain, task)."""


class DMControlTask(gym.Env[np.ndarray, np.ndarray]):
    """One task of DeepMind's Control Suite, with float64 observations flattened in its own order of keys.

    A state holds the dynamics as they were *before* the last step and the controls of that step. Restoring takes the
    step again, so that sensors, contacts and the picture come out bit-equal without being listed here.

    Example:
        >>> task = DMControlTask("walker", "walk")
        >>> _ = task.reset(seed=0)
        >>> _ = task.step(task.action_space.sample())
        >>> list(task.reward_factors())
        ['standing', 'move', 'upright']
    """

    def __init__(
        self, domain: str, task: str, render_mode: str | None = None, width: int = 480, height: int = 480
    ) -> None:
        """Make the task without its time limit.

        Args:
            domain: the suite's domain, such as "walker".
            task: the domain's task, such as "walk".
            render_mode: "rgb_array" or None.
            width: of a rendered frame, in pixels.
            height: of a rendered frame, in pixels.
        """
        self._reward = REWARDS[domain, task]
        self._env: Any = suite.load(domain, task, task_kwargs={"time_limit": float("inf")})
        self._physics: Any = self._env.physics
        named = self._physics.named
        self._physics._named = named._replace(data=_Remembered(named.data), model=_Remembered(named.model))
        self._pointers = self._physics.model.ptr, self._physics.data.ptr
        self._warnings = self._pointers[1].warning.number
        self._halved = self._physics.legacy_step and self._pointers[0].opt.integrator != mujoco.mjtIntegrator.mjINT_RK4
        self._substeps = round(self._env.control_timestep() / self._physics.timestep())
        # A first reset leaves in the model what every reset writes there (sizes, damping, colours).
        parts = [np.asarray(part) for part in self._env.reset().observation.values()]
        ends = np.cumsum([part.size for part in parts]).tolist()
        self._places = [slice(end - part.size, end) for part, end in zip(parts, ends, strict=True)]
        self._before = self._dynamics()
        self._stepped = False
        self._terms: Terms = {}  # of the last step
        self._size = (height, width)
        actions = self._env.action_spec()
        low, high = actions.minimum.astype(np.float32), actions.maximum.astype(np.float32)
        self.action_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (ends[-1],), np.float64)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / self._env.control_timestep())}
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; a seed below 2**32 gives that of `suite.load(..., task_kwargs={"random": seed})`."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._env.task.random.seed(seed if seed < SEED_WORD else _words(seed))
        observation = self._flat(self._env.reset().observation)
        self._stepped = False
        return observation, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step of the suite's, which never ends an episode."""
        mujoco.mj_getState(self._physics.model.ptr, self._physics.data.ptr, self._before, DYNAMICS)
        self._stepped = True
        self._advance(action)
        observation = self._flat(self._env.task.get_observation(self._physics))
        return observation, float(self._reward.combine(self._terms)), False, False, {}

    def reward_factors(self) -> dict[str, float]:
        """Terms of the last step's true reward, each in [0, 1]."""
        if not self._stepped:
            raise RuntimeError("no step was taken since reset(), so there is no last reward. Call step() first.")
        return dict(self._terms)

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The suite's formula over terms of any common shape, in units of reward."""
        return self._reward.combine({name: np.asarray(factor) for name, factor in factors.items()})

    def success(self) -> bool | None:
        """Whether the target is reached or the ball caught; None for the other tasks."""
        return self._reward.solved(self._reward.terms(self._physics)) if self._reward.solved else None

    def get_state(self) -> State:
        """Dynamics before the last step, its controls (empty before the first), target position and generator."""
        _, keys, position, has_gauss, gauss = self._env.task.random.get_state()
        return {
            "dynamics": self._before.copy() if self._stepped else self._dynamics(),
            "controls": self._physics.control().copy() if self._stepped else np.empty(0),
            "geom_pos": self._physics.model.geom_pos.copy(),  # resets of reacher and fish move the target, in the model
            "generator_keys": keys.copy(),
            "generator_rest": np.array([position, has_gauss, gauss], dtype=np.float64),
        }

    def set_state(self, state: State) -> None:
        """Continue from a state that `get_state` gave."""
        model, data = self._physics.model.ptr, self._physics.data.ptr
        mujoco.mj_setState(model, data, state["dynamics"], DYNAMICS)
        self._physics.model.geom_pos[:] = state["geom_pos"]
        self._before = state["dynamics"].copy()
        self._stepped = bool(state["controls"].size)
        if self._stepped:
            # A step of the suite's begins in the middle of MuJoCo's, with positions and velocities worked out.
            mujoco.mj_step1(model, data)
            self._advance(state["controls"])
        else:
            self._physics.after_reset()
            mujoco.mj_setState(model, data, state["dynamics"], DYNAMICS)  # after_reset has moved qacc_warmstart
        position, has_gauss, gauss = state["generator_rest"].tolist()
        self._env.task.random.set_state(("MT19937", state["generator_keys"], int(position), int(has_gauss), gauss))

    def render(self) -> np.ndarray | None:
        """(height, width, 3) uint8 picture of the present state, or None without render_mode="rgb_array"."""
        if self.render_mode is None:
            return None
        height, width = self._size
        screen = self._physics.model.vis.global_
        screen.offwidth, screen.offheight = max(screen.offwidth, width), max(screen.offheight, height)
        return self._physics.render(height, width, camera_id=0)

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()

    def _advance(self, action: np.ndarray) -> None:
        """What the suite's own step does to the physics; its reward is worked out once, from the terms."""
        task, physics = self._env.task, self._physics
        task.before_step(action, physics)
        if self._halved:  # as physics.step, whose look-ups and checks took a twentieth of walker-walk's step
            model, data = self._pointers
            mujoco.mj_step2(model, data)
            if self._substeps > 1:
                mujoco.mj_step(model, data, self._substeps - 1)
            mujoco.mj_step1(model, data)
            if any(self._warnings.tolist()):
                names = [name for name, count in zip(WARNINGS, self._warnings, strict=False) if count]
                raise PhysicsError(f"the simulation became invalid: {', '.join(names)}. Reset, and see the action.")
        else:
            physics.step(self._substeps)
        task.after_step(physics)
        self._terms = self._reward.terms(physics)

    def _flat(self, observation: Mapping[str, Any]) -> np.ndarray:
        """(obs_dim,) float64, in the order of the suite's keys; its parts have one axis or none."""
        flat = np.empty(self._places[-1].stop)
        for place, part in zip(self._places, observation.values(), strict=True):
            flat[place] = part
        return flat

    def _dynamics(self) -> np.ndarray:
        model, data = self._physics.model.ptr, self._physics.data.ptr
        state = np.empty(mujoco.mj_stateSize(model, DYNAMICS))
        mujoco.mj_getState(model, data, state, DYNAMICS)
        return state


class _Remembered:
    """dm_control's access to a struct by names of bodies and joints, which looks up each key only once.

    The suite's observations and rewards ask for the same few keys at every step, and spend most of their time there.
    """

    def __init__(self, struct: Any) -> None:
        self._struct = struct

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._struct, name)
        if isinstance(found, FieldIndexer):
            found = _RememberedField(found)
            setattr(self, name, found)  # so that it is found at once from now on
        return found


class _RememberedField:
    """One field of such a struct."""

    def __init__(self, field: FieldIndexer) -> None:
        self._field, self._array = field, np.asarray(field._field)
        self._keys: dict[Any, Any] = {}  # by the key as asked for, what NumPy takes in its place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._field, name)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._array[self._keys[key]]
        except TypeError:  # a list, or a tuple that holds one
            known = repr(key)
        except KeyError:
            known = key
        if known not in self._keys:
            self._keys[known] = self._field._convert_key(key)
        return self._array[self._keys[known]]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._field[key] = value


def _words(seed: int) -> list[int]:
    """Digits of a large seed in base 2**32, the lowest first."""
    words = []
    while seed:
        seed, word = divmod(seed, SEED_WORD)
        words.append(word)
    return words
