"""The two doors to a batch of one task that steps as arrays. `gym.make_vec("prefenvs/...", num_envs=64)` opens them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from prefenvs.batched_recorder import BatchedRecorder
from prefenvs.error import PrefenvsError, unknown_name
from prefenvs.making import feedback_config, make_task, split_arguments
from prefenvs.preference_env import FeedbackConfig, evaluation_only, replayed_frames
from prefenvs.registration import reduced
from prefenvs.segments import Arrays, map_arrays
from prefenvs.tasks import TASKS
from prefenvs.tasks.task import BatchedStep, BatchedTask

Infos = dict[str, Any]
"""Gymnasium's infos of a vector environment: an array by name, and by `_name` which rows it holds for."""


class BatchedEnv(gym.vector.VectorEnv[Any, Any, np.ndarray]):
    """Seeds, step limit and autoreset of N environments that step as arrays, by Gymnasium's rules.

    What is shown of a step is the subclass's business. Actions are taken in the dtype of their space.
    """

    def __init__(
        self, task: BatchedTask, *, name: str, max_episode_steps: int | None, autoreset_mode: AutoresetMode | str
    ) -> None:
        """Run `task`, private from here on.

        Args:
            task: N simulations.
            name: name of the task.
            max_episode_steps: steps after which an episode is truncated; None for no limit.
            autoreset_mode: when episodes that ended begin anew, see Gymnasium's AutoresetMode.
        """
        base: Any = task.task
        self._task, self.task_name, self.num_envs = task, name, task.num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.single_action_space, self.single_observation_space = base.action_space, base.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.metadata, self.render_mode = {**base.metadata, "autoreset_mode": self.autoreset_mode}, base.render_mode
        self._limit = np.inf if max_episode_steps is None else max_episode_steps
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._over = np.ones(self.num_envs, bool)  # whose episode has ended, or never began
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs
        self._recipe: dict[str, Any] = {}

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin episodes: of all environments, or of those in `options["reset_mask"]`.

        Args:
            seed: environment i gets seed + i, or the i-th of a list; None goes on with its generator.
            options: `reset_mask`, (N,) bool, and what the task knows, for all or (N, ...) for each.

        Raises:
            ValueError: for another number of seeds, a mask of another shape, kind or without a True, or options that
                the task refuses. Nothing was reset.
        """
        mask = _reset_mask(options, self.num_envs)
        before = list(self._generators)
        self._seed(_seeds(seed, self.num_envs), mask)
        try:
            self._begin(mask, options)
        except ValueError:
            self._generators = before
            raise
        observations = self._task.observe()
        return observations, self._after_begin(observations, mask)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Act in all environments; those that NEXT_STEP autoreset is due for begin an episode instead.

        Raises:
            ValueError: if the actions hold nan or have another shape; nothing was done.
            gymnasium.error.ResetNeeded: if an episode is over that nobody resets; nothing was done.
        """
        actions = check_actions(actions, self.single_action_space, self.num_envs)
        acted = ~self._over
        if not acted.all():
            self._check_autoreset()
        self._before_step()
        result = self._task.step(actions, np.flatnonzero(acted))
        self._elapsed += acted
        terminated, truncated = result.terminated & acted, (self._elapsed >= self._limit) & acted
        if not acted.all():
            self._begin(~acted)
        self._over = terminated | truncated
        observations = self._task.observe()
        rewards, infos = self._after_step(actions, observations, result, acted)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._over.any():
            observations, infos = self._same_step(observations, infos)
        return observations, rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """An image of each environment, drawn one after the other; None without a render_mode."""
        if self.render_mode is None:
            return None
        base: Any = self._task.task
        images = []
        for row in range(self.num_envs):
            base.set_state(self._task.get_state(row))
            images.append(base.render())
        return tuple(images)

    def close_extras(self, **_: Any) -> None:
        """End threads and free the simulators."""
        self._task.close()

    def __reduce__(self) -> Any:
        """Pickle as the recipe: a copy starts afresh, without recordings and without the feedback of the original."""
        return reduced(make_vec, self._recipe, self.spec)

    def _check_autoreset(self) -> None:
        if self.autoreset_mode is not AutoresetMode.NEXT_STEP or None in self._generators:
            raise gym.error.ResetNeeded(
                f"the episodes of environments {np.flatnonzero(self._over).tolist()} are over or never began. "
                "Call reset(), with options={'reset_mask': mask} for some of them. Nothing was done."
            )

    def _seed(self, seeds: list[int | None], mask: np.ndarray) -> None:
        rows = [row for row in np.flatnonzero(mask).tolist() if seeds[row] is not None or not self._generators[row]]
        for row, generator in zip(rows, [seeding.np_random(seeds[row])[0] for row in rows], strict=True):
            self._generators[row] = generator

    def _begin(self, mask: np.ndarray, options: Mapping[str, Any] | None = None) -> None:
        rows = np.flatnonzero(mask)
        generators: list[Any] = [self._generators[row] for row in rows.tolist()]
        self._task.reset(rows, generators, options)
        self._elapsed[rows] = 0
        self._over = self._over & ~mask

    def _same_step(self, observations: Arrays, infos: Infos) -> tuple[Arrays, Infos]:
        """Begin the episodes that ended, and keep how they ended as `final_obs` and `final_info`."""
        over = self._over
        final = np.full(self.num_envs, None, object)
        for row in np.flatnonzero(over).tolist():
            final[row] = map_arrays(lambda array, row=row: array[row], observations)
        ended = {"final_obs": final, "_final_obs": over, "final_info": _only(infos, over), "_final_info": over.copy()}
        self._begin(over)
        observations = self._task.observe()
        begun = self._after_begin(observations, over)
        return observations, _only(infos, ~over, others=begun) | ended

    # What the doors differ in.

    def _before_step(self) -> None:
        """A step is about to be taken."""
        if self.render_mode is not None:
            self._task.remember(np.arange(self.num_envs))

    def _after_begin(self, observations: Arrays, began: np.ndarray) -> Infos:
        """Episodes of these rows have begun; their infos."""
        return {}

    def _after_step(
        self, actions: np.ndarray, observations: Arrays, result: BatchedStep, acted: np.ndarray
    ) -> tuple[np.ndarray, Infos]:
        """The rows that `acted` took a step and the others have begun an episode; rewards and infos to show."""
        raise NotImplementedError


class PreferenceVectorEnv(BatchedEnv):
    """A batch whose true rewards are hidden: N `PreferenceEnv`s, with the same numbers, that step as arrays.

    Rewards are 0.0 and `infos["segment_id"]` is (N, 3). Ask about segments with `prefenvs.feedback(envs)`.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> envs = gym.make_vec("prefenvs/HalfCheetah-v0", num_envs=4, budget=10)
        >>> feedback = prefenvs.feedback(envs)
        >>> _, infos = envs.reset(seed=0)
        >>> observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        >>> rewards.tolist(), infos["segment_id"][2].tolist()
        ([0.0, 0.0, 0.0, 0.0], [2, 0, 1])
        >>> envs.close()
    """

    def __init__(
        self,
        task: BatchedTask,
        *,
        config: FeedbackConfig,
        factors: tuple[str, ...],
        recorded_episodes: int,
        task_kwargs: Mapping[str, Any] | None = None,
        **base: Any,
    ) -> None:
        """Hide `task`. Use `gym.make_vec`, which calls this.

        Args:
            task: N simulations.
            config: how questions are answered.
            factors: names of the reward factors.
            recorded_episodes: finished episodes of each environment that can still be asked about.
            task_kwargs: what the task was made with, so that units and optimal values are those of the same task.
            **base: as BatchedEnv.
        """
        super().__init__(task, **base)
        self.feedback_config = config
        self._recorder = BatchedRecorder(self.num_envs, factors, recorded_episodes)
        self._task_kwargs = dict(task_kwargs or {})
        self._streams = np.full(self.num_envs, -1)
        self._feedback: Any = None

    def _before_step(self) -> None:
        super()._before_step()
        self._task.remember(self._recorder.snapshots_due(after=1))

    def _after_begin(self, observations: Arrays, began: np.ndarray) -> Infos:
        rows = np.flatnonzero(began)
        self._recorder.begin(rows, observations)
        for row in rows.tolist():
            self._recorder.add_snapshot(row, self._task.get_state(row))
        return _only(self._ids(), began)

    def _after_step(
        self, actions: np.ndarray, observations: Arrays, result: BatchedStep, acted: np.ndarray
    ) -> tuple[np.ndarray, Infos]:
        if not acted.all():
            self._after_begin(observations, ~acted)
        self._recorder.add(actions, observations, result.rewards, result.factors, result.terminated, acted)
        for row in self._recorder.snapshots_due().tolist():
            self._recorder.add_snapshot(row, self._task.get_state(row))
        return np.zeros(self.num_envs), self._ids()

    def _ids(self) -> Infos:
        ids = np.stack([self._streams, self._recorder.episodes, self._recorder.steps], 1)
        return {"segment_id": ids, "_segment_id": np.ones(self.num_envs, bool)}

    # The oracle's side, reached by `prefenvs.feedback`.

    def _oracle_side(self, stream: int, request: str, *arguments: Any) -> Any:
        """Answer a request of `Feedback` to one stream, as PreferenceEnv does; an error is the reply."""
        try:
            return getattr(self, f"_serve_{request}")(stream, *arguments)
        except (PrefenvsError, ValueError) as error:
            return error

    def _serve_attach(self, stream: int, number: int) -> dict[str, Any]:
        self._streams[stream] = number
        recorder = self._recorder.recorders[stream]
        return {
            "config": self.feedback_config,
            "task": self.task_name,
            "task_kwargs": self._task_kwargs,
            "horizon": TASKS[self.task_name].horizon,
            "factors": recorder.factor_names,
            "episodes": recorder.capacity,
        }

    def _serve_judge(self, stream: int, *window: Any) -> dict[str, Any]:
        return self._recorder.stream(stream).judge(*window)

    def _serve_recent_returns(self, stream: int) -> tuple[float, float]:
        return self._recorder.stream(stream).recent_returns()

    def _serve_state(self, stream: int) -> dict[str, np.ndarray]:
        return self._recorder.stream(stream).state()

    def _serve_load_state(self, stream: int, state: dict[str, np.ndarray]) -> None:
        self._recorder.load_stream(stream, state)

    def _serve_render(self, stream: int, episode: int, steps: list[int]) -> list[np.ndarray]:
        if self.render_mode != "rgb_array":
            raise ValueError("cannot draw segments: make the env with render_mode='rgb_array'.")
        return replayed_frames(self._task.task, self._recorder.stream(stream), episode, steps)


class EvaluationVectorEnv(BatchedEnv):
    """A batch with its true rewards shown: `infos` holds `factors` and, if the task has one, `success`. For metrics.

    Made by `gym.make_vec(id, num_envs=N, evaluation=True)`. `prefenvs.feedback` raises EvaluationOnly on it.
    """

    def __init__(self, task: BatchedTask, *, factors: tuple[str, ...], **base: Any) -> None:
        """Show everything of `task`; `factors` names its reward factors."""
        super().__init__(task, **base)
        self._factors = factors

    @property
    def task(self) -> BatchedTask:
        """The simulations, with their states."""
        return self._task

    def _after_step(
        self, actions: np.ndarray, observations: Arrays, result: BatchedStep, acted: np.ndarray
    ) -> tuple[np.ndarray, Infos]:
        factors = {name: result.factors[:, i] for i, name in enumerate(self._factors)}
        factors |= {f"_{name}": np.ones(self.num_envs, bool) for name in self._factors}
        infos: Infos = {"factors": factors, "_factors": np.ones(self.num_envs, bool)}
        if result.success is not None:
            infos |= {"success": result.success, "_success": np.ones(self.num_envs, bool)}
        return np.where(acted, result.rewards, 0.0), infos if acted.all() else _only(infos, acted)

    def _oracle_side(self, stream: int, request: str, *arguments: Any) -> Any:
        return evaluation_only(self.task_name)


def make_vec(
    task: str,
    num_envs: int,
    *,
    max_episode_steps: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    evaluation: bool = False,
    pixels: bool | int = False,
    render_mode: str | None = None,
    recorded_episodes: int = 100,
    task_kwargs: Mapping[str, Any] | None = None,
    threads: int | None = None,
    **feedback: Any,
) -> BatchedEnv:
    """The vector entry point behind `gym.make_vec("prefenvs/...")` for tasks that step as arrays.

    Args:
        task: name in TASKS.
        num_envs: N.
        max_episode_steps: steps after which an episode is truncated.
        autoreset_mode: Gymnasium's AutoresetMode, or its value.
        evaluation: open the evaluation door, which shows the true reward and answers no queries.
        pixels: not possible here; `gym.make_vec(..., vectorization_mode="sync")` observes images.
        render_mode: "rgb_array" to be able to draw.
        recorded_episodes: finished episodes of each environment that can still be asked about.
        task_kwargs: passed to the task's own class.
        threads: that step MuJoCo; by default one for each core this process may use.
        **feedback: fields of FeedbackConfig: oracle, teacher, budget, answer, feedback_seed, store, run, calibration;
            and arguments of the task's class that its TaskSpec names, as `view` of the text tasks.

    Raises:
        ValueError: for unknown names and arguments, with the nearest known one, and for pixels.
    """
    recipe = {name: value for name, value in locals().items() if name != "feedback"} | feedback
    if pixels:
        raise ValueError(f"pixels={pixels} cannot be observed in a batch; add vectorization_mode='sync' to make_vec.")
    modes = [mode.value for mode in AutoresetMode]
    if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in modes:
        raise unknown_name("autoreset_mode", autoreset_mode, modes)
    spec = TASKS[task]
    task_kwargs, feedback = split_arguments(spec, task_kwargs, feedback)
    config = feedback_config(feedback, tuple(spec.kwargs))
    assert spec.batched is not None, f"{task} has no batched simulation"
    module, _, name = spec.batched.partition(":")
    batched = getattr(importlib.import_module(module), name)
    settings = {} if threads is None else {"threads": threads}
    base = {
        "task": batched(make_task(spec, render_mode, task_kwargs), num_envs, **settings),
        "name": task,
        "factors": spec.factors,
        "max_episode_steps": max_episode_steps,
        "autoreset_mode": autoreset_mode,
    }
    env: BatchedEnv
    if evaluation:
        env = EvaluationVectorEnv(**base)
    else:
        env = PreferenceVectorEnv(**base, config=config, recorded_episodes=recorded_episodes, task_kwargs=task_kwargs)
    env._recipe = recipe
    return env


def check_actions(actions: Any, space: gym.Space[Any], num_envs: int) -> np.ndarray:
    """(N, *act) actions in the space's dtype, refused before the simulators see them where they are none.

    Raises:
        ValueError: saying what was expected.
    """
    array, shape = np.asarray(actions), (num_envs, *(space.shape or ()))
    if array.shape != shape:
        raise ValueError(f"actions have shape {array.shape}, expected (num_envs, *act) = {shape}. Nothing was done.")
    if isinstance(space, gym.spaces.Discrete):
        if array.dtype.kind not in "iu" or not ((array >= space.start) & (array < space.start + space.n)).all():
            raise ValueError(f"actions={array} are not all in {space}. Nothing was done.")
    elif isinstance(space, gym.spaces.MultiDiscrete):
        if array.dtype.kind not in "iu" or not ((array >= space.start) & (array < space.start + space.nvec)).all():
            raise ValueError(f"actions={array} are not all in {space}. Nothing was done.")
    elif not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).reshape(num_envs, -1).all(1))
        raise ValueError(
            f"actions of environments {rows.tolist()} are {array[rows].tolist()}, expected finite numbers: "
            "has the policy diverged? Nothing was done."
        )
    return array.astype(space.dtype, copy=False)


def _seeds(seed: int | list[int | None] | None, num_envs: int) -> list[int | None]:
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + row for row in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"{len(seed)} seeds were given, expected one for each of {num_envs} environments.")
    return [None if one is None else int(one) for one in seed]


def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> np.ndarray:
    if options is None or "reset_mask" not in options:
        return np.ones(num_envs, bool)
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] is {mask!r}, expected a numpy array of bool.")
    if mask.shape != (num_envs,) or not mask.any():
        raise ValueError(f"options['reset_mask'] is {mask}, expected shape ({num_envs},) and at least one True.")
    return mask


def _only(infos: Infos, mask: np.ndarray, others: Infos | None = None) -> Infos:
    """`infos` of the rows in `mask` alone, zeros elsewhere; `others` are infos of other rows to put beside them."""
    kept: Infos = {}
    for name, value in infos.items():
        held = infos[f"_{name}"] & mask if not name.startswith("_") else value & mask
        if not held.any():
            continue
        if isinstance(value, dict):
            kept[name] = _only(value, mask)
        else:
            kept[name] = value * mask.reshape(-1, *(1,) * (value.ndim - 1))
    for name, value in (others or {}).items():
        kept[name] = kept[name] + value if name in kept else value
    return kept
