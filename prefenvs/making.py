"""How the two doors are made: of the suite's tasks by `gym.make`, of a user's own environment by `prefenvs.wrap`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit

from prefenvs.error import unknown_name
from prefenvs.preference_env import EvaluationEnv, FeedbackConfig, PreferenceEnv
from prefenvs.recorder import SNAPSHOT_EVERY
from prefenvs.tasks import TASKS
from prefenvs.tasks.task import State, TaskSpec


def make(
    task: str,
    *,
    evaluation: bool = False,
    pixels: bool | int = False,
    render_mode: str | None = None,
    recorded_episodes: int = 100,
    task_kwargs: Mapping[str, Any] | None = None,
    **feedback: Any,
) -> gym.Env[Any, Any]:
    """The entry point behind every `gym.make("prefenvs/...")`.

    Args:
        task: name in TASKS.
        evaluation: open the evaluation door, which shows the true reward and answers no queries.
        pixels: observe square uint8 images, 84 wide if True.
        render_mode: "rgb_array" to be able to draw; some tasks have others.
        recorded_episodes: finished episodes that can still be asked about.
        task_kwargs: passed to the task's own class.
        **feedback: fields of FeedbackConfig: oracle, teacher, budget, answer, feedback_seed, store, run, calibration;
            and arguments of the task's class that its TaskSpec names, as `view` of the text tasks.

    Raises:
        ValueError: for unknown names and arguments, with the nearest known one.
        ImportError: if the task's simulator is not installed, naming the extra that brings it.
    """
    arguments = {
        "task": task,
        "evaluation": evaluation,
        "pixels": pixels,
        "render_mode": render_mode,
        "recorded_episodes": recorded_episodes,
        "task_kwargs": task_kwargs,
        **feedback,
    }
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    spec = TASKS[task]
    side = 84 if pixels is True else int(pixels) or None
    if side is not None and render_mode is None:
        render_mode = "rgb_array"
    if "autoreset_mode" in feedback:
        raise ValueError(
            "autoreset_mode= is an argument of batches that step as arrays, and of no single environment. Where each "
            'environment steps by itself, call gym.make_vec(..., vector_kwargs={"autoreset_mode": ...}).'
        )
    task_kwargs, feedback = split_arguments(spec, task_kwargs, feedback)
    config = feedback_config(feedback, tuple(spec.kwargs))
    if evaluation:
        return EvaluationEnv(make_task(spec, render_mode, task_kwargs), name=task, pixels=side)
    env = PreferenceEnv(
        make_task(spec, render_mode, task_kwargs),
        name=task,
        factors=spec.factors,
        horizon=spec.horizon,
        config=config,
        harmless_info=spec.harmless_info,
        recorded_episodes=recorded_episodes,
        pixels=side,
        task_kwargs=task_kwargs,
    )
    env._rebuild = (make, arguments)
    return env


def make_task(spec: TaskSpec, render_mode: str | None = None, task_kwargs: Mapping[str, Any] | None = None) -> Any:
    """The base environment of a task, true reward and all. For oracles, metrics and solvers."""
    module, _, name = spec.entry_point.partition(":")
    return getattr(importlib.import_module(module), name)(
        **{**spec.kwargs, **(task_kwargs or {})}, render_mode=render_mode
    )


def split_arguments(
    spec: TaskSpec, task_kwargs: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments for the task's class, with those of `settings` that its spec names, and the other settings."""
    own = {name: value for name, value in settings.items() if name in spec.kwargs}
    return {**own, **(task_kwargs or {})}, {name: value for name, value in settings.items() if name not in own}


def changed_arguments(spec: TaskSpec, task_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of a task that make it another than the suite's: no defaults spelt out and no size of a drawing."""
    module, _, name = spec.entry_point.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    usual = {**{key: parameter.default for key, parameter in parameters.items()}, **spec.kwargs}
    drawing = ("width", "height") if spec.entry_point.startswith("prefenvs.tasks.control") else ()
    return {
        key: value
        for key, value in (task_kwargs or {}).items()
        if key not in drawing and not (key in usual and _same(value, usual[key]))
    }


def _same(value: Any, usual: Any) -> bool:
    equal = value == usual
    return isinstance(equal, bool | np.bool_) and bool(equal)  # of arrays it is an array


def feedback_config(settings: Mapping[str, Any], others: tuple[str, ...] = ()) -> FeedbackConfig:
    """A FeedbackConfig from keyword arguments, checked as far as that costs nothing.

    Args:
        settings: its fields.
        others: names that the caller knows beside them, to suggest where one is misspelt.

    Raises:
        ValueError: for an unknown argument, oracle, teacher or kind of answer, or a budget or seed out of range.
        TypeError: for a budget or seed that is no whole number.
    """
    from prefenvs.oracles import ORACLES
    from prefenvs.teacher import ANSWERS, TEACHERS

    known = FeedbackConfig.__dataclass_fields__
    for key in settings:
        if key not in known:
            raise unknown_name("argument", key, (*known, *others))
    config = FeedbackConfig(**settings)
    for argument, value, registry in (("oracle", config.oracle, ORACLES), ("teacher", config.teacher, TEACHERS)):
        name = value.get("name") if isinstance(value, Mapping) else value
        if isinstance(name, str) and name not in registry:
            plugin = f"To add your own: prefenvs.{argument.upper()}S[{name!r}] = ..."
            raise unknown_name(argument, name, registry, plugin)
    if config.answer not in ANSWERS:
        raise unknown_name("answer", config.answer, ANSWERS)
    if not isinstance(config.budget, int | np.integer | None):
        raise TypeError(f"budget={config.budget!r}, expected a whole number of queries, or None for no limit.")
    if not isinstance(config.feedback_seed, int | np.integer):
        raise TypeError(f"feedback_seed={config.feedback_seed!r}, expected a whole number in [0, 2**64).")
    if config.budget is not None and config.budget < 0:
        raise ValueError(f"budget={config.budget} is negative. Expected a number of queries, or None for no limit.")
    if not 0 <= config.feedback_seed < 2**64:
        raise ValueError(f"feedback_seed={config.feedback_seed}, expected a whole number in [0, 2**64).")
    return config


def wrap(
    env: gym.Env[Any, Any],
    *,
    factors: Callable[[gym.Env[Any, Any]], dict[str, float]] | None = None,
    harmless_info: tuple[str, ...] = (),
    recorded_episodes: int = 100,
    name: str | None = None,
    **feedback: Any,
) -> PreferenceEnv:
    """Make a preference environment of any Gymnasium environment: its reward is hidden and answers come from an oracle.

    Args:
        env: the environment; its reward becomes the true reward. If it has `get_state` and `set_state`, segments of it
            can be drawn. Below other wrappers than PASS_ACTIONS every state is kept for that, where it can draw at all.
        factors: called with `env` after each step; named factors of the reward. By default the reward itself.
            To learn their names `env` is reset and they are asked for once here. `prefenvs.calibrate(..., factors=)`
            measures their units.
        harmless_info: keys of the env's info that say nothing of the reward and may reach the learner.
        recorded_episodes: finished episodes that can still be asked about.
        name: name of the task in segments and reports; by default the id of `env`.
        **feedback: fields of FeedbackConfig: oracle, teacher, budget, answer, feedback_seed, store, run, calibration.

    Raises:
        ValueError: for unknown names and arguments, or an environment whose reward is hidden already.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> env = prefenvs.wrap(gym.make("MountainCar-v0"), budget=100)
        >>> _, _ = env.reset(seed=0)
        >>> env.step(0)[1]
        0.0
    """
    arguments = {
        "env": env,
        "factors": factors,
        "harmless_info": harmless_info,
        "recorded_episodes": recorded_episodes,
        "name": name,
        **feedback,
    }
    if isinstance(env.unwrapped, PreferenceEnv):
        raise ValueError(
            f"{env} hides its reward, so every answer would be a tie. It is a preference environment as it is: give "
            "oracle=, budget= and the like where it is made, or wrap gym.make(..., evaluation=True)."
        )
    task = ForeignTask(env, factors)
    if factors is not None:
        env.reset()
    spec = env.spec
    env_horizon = spec.max_episode_steps if spec is not None else None
    wrapped = PreferenceEnv(
        task,
        name=name or (spec.id if spec is not None else type(env.unwrapped).__name__),
        factors=tuple(task.reward_factors()) if factors is not None else ("reward",),
        horizon=env_horizon or 0,
        config=feedback_config(feedback),
        harmless_info=harmless_info,
        recorded_episodes=recorded_episodes,
        snapshot_every=_snapshot_every(env),
    )
    wrapped._rebuild = (_wrap_arguments, arguments)
    return wrapped


def _wrap_arguments(**arguments: Any) -> PreferenceEnv:
    return wrap(arguments.pop("env"), **arguments)


_BY_GYMNASIUM = (TimeLimit, OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics)
PASS_ACTIONS = (*_BY_GYMNASIUM, gym.ObservationWrapper, gym.RewardWrapper)
"""Wrappers that are known to hand on actions as they are, so that steps can be repeated below them."""


def _snapshot_every(env: gym.Env[Any, Any]) -> int | None:
    """Steps between the states to keep of a user's environment; 1 where a wrapper may take other steps than told."""
    base = env.unwrapped
    if not (env.render_mode == "rgb_array" and hasattr(base, "get_state") and hasattr(base, "set_state")):
        return None
    while isinstance(env, PASS_ACTIONS):
        env = env.env
    return SNAPSHOT_EVERY if env is base else 1


class ForeignTask(gym.Wrapper[Any, Any, Any, Any]):
    """A user's environment seen as a Task."""

    def __init__(self, env: gym.Env[Any, Any], factors: Callable[[gym.Env[Any, Any]], dict[str, float]] | None) -> None:
        """Take its rewards, and what `factors` names of them, for the true ones."""
        super().__init__(env)
        self._factors, self._reward = factors, 0.0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment, and remember the reward."""
        result = super().step(action)
        self._reward = float(result[1])
        return result

    def reward_factors(self) -> dict[str, float]:
        """Factors of the last step's true reward."""
        return {"reward": self._reward} if self._factors is None else self._factors(self.env)

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The reward, where it is its only factor."""
        if self._factors is not None:
            raise NotImplementedError("a wrapped environment does not say how its factors combine.")
        return factors["reward"]

    def success(self) -> bool | None:
        """None: a user's environment does not say."""
        return None

    def get_state(self) -> State:
        """The environment's own, where it has one."""
        base: Any = self.env.unwrapped
        return base.get_state()

    def set_state(self, state: State) -> None:
        """Continue from a state that `get_state` gave."""
        base: Any = self.env.unwrapped
        base.set_state(state)
