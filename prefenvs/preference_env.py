"""The two doors to a task: `PreferenceEnv`, which hides the true reward, and `EvaluationEnv`, which shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from prefenvs.error import EvaluationOnly, PrefenvsError
from prefenvs.recorder import SNAPSHOT_EVERY, Recorder
from prefenvs.registration import reduced
from prefenvs.tasks.task import State, Task

if TYPE_CHECKING:
    from prefenvs.calibration import Calibration


@dataclass(frozen=True)
class FeedbackConfig:
    """How questions about an environment are answered. Picklable; every sub-environment of a batch holds the same."""

    oracle: Any = "partial_return"
    """What the person cares about: a name from ORACLES, `{"name": ..., **arguments}`, or a preference model."""
    teacher: Any = "oracle"
    """How the person errs: a name from TEACHERS, `{"name": ..., **arguments}`, or a Teacher."""
    budget: int | None = None
    """Queries that may be asked, skipped ones included; None for no limit."""
    answer: str = "choice"
    """Kind of answer: choice, ranking, rating, or soft (probabilities in place of answers)."""
    feedback_seed: int = 0
    """Seed of the teacher's answers; the environment's own seed does not touch it."""
    store: str | None = None
    """SQLite file that keeps the answers, or None for memory. Refused for other settings than it was begun with, so an
    oracle with settings, or an object among a task's arguments, is a dataclass or has a text `source`. Functions are
    told by their names: two lambdas of one place are not told apart, nor is what a local function holds."""
    run: str = "run"
    """Name under which the answers are kept in the store."""
    calibration: Calibration | None = None
    """The units of the teacher's parameters for a task of your own, from `prefenvs.calibrate`."""


SHOWN_METADATA = ("render_modes", "render_fps", "language")
"""Keys of a task's metadata that both doors show; `language` is what may be known of a text task."""


class PreferenceEnv(gym.Env[Any, Any]):
    """A task whose true reward is hidden: `step` returns 0.0 and `info` only says where in the stream a step lies.

    `info["segment_id"]` is (stream, episode, t), int64, for the observation it comes with: t is 0 after a reset and the
    number of steps taken otherwise. Ask about segments with `prefenvs.feedback(env)`.

    Ids are not given twice, so `check_env` of Gymnasium finds that "step info are not equivalent for the same seed"; it
    finds nothing else.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> env = gym.make("prefenvs/CartPole-v0", budget=10)
        >>> _, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(1)
        >>> reward, info["segment_id"].tolist()
        (0.0, [-1, 0, 1])
    """

    def __init__(
        self,
        task: Task,
        *,
        name: str,
        factors: tuple[str, ...],
        horizon: int,
        config: FeedbackConfig,
        harmless_info: tuple[str, ...] = (),
        recorded_episodes: int = 100,
        pixels: int | None = None,
        snapshot_every: int | None = SNAPSHOT_EVERY,
        task_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Hide `task`. Use `gym.make` or `prefenvs.wrap` instead, which call this.

        Args:
            task: the base environment, private from here on.
            name: name of the task.
            factors: names of its reward factors.
            horizon: steps after which an episode is cut (by a TimeLimit outside).
            config: how questions are answered.
            harmless_info: keys of the task's info that may reach the learner.
            recorded_episodes: finished episodes that can still be asked about.
            pixels: side of square images to observe in place of the task's own observation.
            snapshot_every: steps between states that are kept to draw segments, from which `task.unwrapped` repeats the
                steps; None for a task without `get_state` and `set_state`.
            task_kwargs: what a task of the suite was made with, so that units and optimal values are those of the same
                task. None: it is a user's own, whatever its name.
        """
        self.task_name, self.horizon, self.feedback_config = name, horizon, config
        self._task, self._harmless_info, self._pixels = task, harmless_info, pixels
        self._restorable = snapshot_every is not None
        self._recorder = Recorder(factors, recorded_episodes, snapshot_every or SNAPSHOT_EVERY)
        self._task_kwargs = None if task_kwargs is None else dict(task_kwargs)
        self._stream = -1
        self._feedback: Any = None
        self._rebuild: tuple[Callable[..., gym.Env[Any, Any]], dict[str, Any]] | None = None
        base: Any = task
        self.action_space = base.action_space
        self.observation_space = base.observation_space
        if pixels is not None:
            self.observation_space = gym.spaces.Box(0, 255, (pixels, pixels, 3), np.uint8)
        self.metadata = {key: base.metadata[key] for key in SHOWN_METADATA if key in base.metadata}
        self.render_mode = base.render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; `seed` seeds the dynamics only, never the teacher."""
        super().reset(seed=seed)
        base: Any = self._task
        observation, info = base.reset(seed=seed, options=options)
        self._recorder.reset(observation)
        self._snapshot()
        return self._observe(observation), self._info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act. The reward returned is always 0.0.

        Raises:
            ValueError: if the action holds nan; nothing was done.
            gymnasium.error.ResetNeeded: if no episode was begun, as in a copy; nothing was done.
        """
        check_action(action, self.action_space)
        if self._recorder.episode < 0:
            raise gym.error.ResetNeeded("no episode was begun, as in a copy. Call reset() first. Nothing was done.")
        base: Any = self._task
        observation, reward, terminated, truncated, info = base.step(action)
        factors = self._task.reward_factors()
        self._recorder.add(
            action,
            observation,
            float(reward),
            tuple(float(factors[name]) for name in self._recorder.factor_names),
            terminated=bool(terminated),
        )
        self._snapshot()
        return self._observe(observation), 0.0, bool(terminated), bool(truncated), self._info(info)

    def render(self) -> Any:
        """An image of the present state."""
        base: Any = self._task
        return base.render()

    def close(self) -> None:
        """Free the simulator."""
        base: Any = self._task
        base.close()

    def _snapshot(self) -> None:
        if self._restorable and self._recorder.wants_snapshot():
            self._recorder.add_snapshot(self._task.get_state())

    def _observe(self, observation: Any) -> Any:
        if self._pixels is None:
            return observation
        return _shrink(np.asarray(self.render()), self._pixels)

    def _info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        shown = {key: info[key] for key in self._harmless_info if key in info} if info else {}
        shown["segment_id"] = np.array([self._stream, self._recorder.episode, self._recorder.step], np.int64)
        return shown

    def __reduce__(self) -> Any:
        """Pickle as the recipe: a copy starts afresh, without recordings and without the feedback of the original."""
        if self._rebuild is None:
            raise TypeError("this PreferenceEnv was not made by gym.make or prefenvs.wrap and cannot be pickled.")
        return reduced(*self._rebuild, self.spec)

    # The oracle's side, reached by `prefenvs.feedback` in this process or from another one.

    def _oracle_side(self, request: str, *arguments: Any) -> Any:
        """Answer a request of `Feedback`: one private method a request, all under one name for remote callers.

        An error is the reply, for the caller to raise: raised here it would end the worker that the environment is in.
        """
        try:
            return getattr(self, f"_serve_{request}")(*arguments)
        except (PrefenvsError, ValueError) as error:
            return error

    def _serve_attach(self, stream: int) -> dict[str, Any]:
        self._stream = stream
        return {
            "config": self.feedback_config,
            "task": self.task_name,
            "task_kwargs": self._task_kwargs,
            "horizon": self.horizon,
            "factors": self._recorder.factor_names,
            "episodes": self._recorder.capacity,
        }

    def _serve_judge(self, *window: Any) -> dict[str, Any]:
        return self._recorder.judge(*window)

    def _serve_recent_returns(self) -> tuple[float, float]:
        return self._recorder.recent_returns()

    def _serve_state(self) -> dict[str, np.ndarray]:
        return self._recorder.state()

    def _serve_load_state(self, state: dict[str, np.ndarray]) -> None:
        self._recorder.load_state(state)

    def _serve_render(self, episode: int, steps: list[int]) -> list[np.ndarray]:
        """Images of the states before the given steps of an episode; the present state is put back afterwards."""
        if self.render_mode != "rgb_array":
            raise ValueError("cannot draw segments: make the env with render_mode='rgb_array'.")
        if not self._restorable:
            raise ValueError(
                "cannot draw segments: this environment has no get_state and set_state. Add the two methods, as of "
                "prefenvs.tasks.Task."
            )
        base: Any = self._task
        present: State = base.get_state()
        try:  # below a TimeLimit and its like, which would count replayed steps as the present episode's
            return replayed_frames(base.unwrapped, self._recorder, episode, steps)
        finally:
            base.set_state(present)


def replayed_frames(task: Any, recorder: Recorder, episode: int, steps: list[int]) -> list[np.ndarray]:
    """Images of the states before the given steps of an episode, for which `task` is moved about."""
    frames = []
    for step in steps:
        state, actions, at = recorder.replay_from(episode, step)
        task.set_state(state)
        for action in actions[: step - at]:
            task.step(action)
        frames.append(np.asarray(task.render()))
    return frames


class EvaluationEnv(gym.Env[Any, Any]):
    """A task with its true reward shown: `info` holds `factors` and, if the task has one, `success`. For metrics.

    Made by `gym.make(id, evaluation=True)`. `prefenvs.feedback` raises EvaluationOnly on it.
    """

    def __init__(self, task: Task, *, name: str, pixels: int | None = None) -> None:
        """Show everything of `task`."""
        base: Any = task
        self.task_name, self._task, self._pixels = name, task, pixels
        self.action_space, self.observation_space = base.action_space, base.observation_space
        if pixels is not None:
            self.observation_space = gym.spaces.Box(0, 255, (pixels, pixels, 3), np.uint8)
        self.metadata, self.render_mode = base.metadata, base.render_mode

    @property
    def task(self) -> Any:
        """The base environment, with its factors, state and (on grids) its exact solution."""
        return self._task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        observation, info = self.task.reset(seed=seed, options=options)
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act; the reward returned is the true one."""
        check_action(action, self.action_space)
        observation, reward, terminated, truncated, info = self.task.step(action)
        info = {**info, "factors": dict(self._task.reward_factors())}
        success = self._task.success()
        if success is not None:
            info["success"] = bool(success)
        return self._observe(observation), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """An image of the present state."""
        return self.task.render()

    def close(self) -> None:
        """Free the simulator."""
        self.task.close()

    def _observe(self, observation: Any) -> Any:
        return observation if self._pixels is None else _shrink(np.asarray(self.render()), self._pixels)

    def _oracle_side(self, request: str, *arguments: Any) -> Any:
        return evaluation_only(self.task_name)


def evaluation_only(task: str) -> EvaluationOnly:
    """What the evaluation door answers to any request of `Feedback`."""
    return EvaluationOnly(
        f"{task} was made with evaluation=True: this door shows the true reward and answers no queries. "
        "Make another env without evaluation=True to ask for labels."
    )


def check_action(action: Any, space: gym.Space[Any]) -> None:
    """Refuse actions of a wrong shape or with nan before the simulator sees them.

    Raises:
        ValueError: saying what was expected.
    """
    if isinstance(space, gym.spaces.Box):
        array = np.asarray(action)
        if array.shape != space.shape:
            raise ValueError(f"action has shape {array.shape}, expected {space.shape}. Nothing was done.")
        if not np.logical_and.reduce(np.isfinite(array), axis=None):  # half of what .all() takes
            raise ValueError(f"action is {array}, expected finite numbers: has the policy diverged? Nothing was done.")
    elif not space.contains(action):
        raise ValueError(f"action={action!r} is not in {space}. Nothing was done.")


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 to (side, side, 3), each pixel the mean of the area it covers."""
    for axis in (0, 1):
        size = image.shape[axis]
        edges = np.linspace(0, size, side + 1).astype(int)
        image = np.add.reduceat(image.astype(np.float32), edges[:-1], axis) / _column(np.diff(edges), axis)
    return np.rint(image).astype(np.uint8)


def _column(values: np.ndarray, axis: int) -> np.ndarray:
    return values.reshape([-1 if i == axis else 1 for i in range(3)])
