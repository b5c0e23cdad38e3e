"""Units of a teacher's parameters: how much segment scores differ over a task's reference set."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prefenvs.segments import JudgedSegments

if TYPE_CHECKING:
    import gymnasium as gym


@dataclass(frozen=True)
class Calibration:
    """What random play looks like to one preference model. Frozen: it never follows the learner."""

    mean: float = 0.0
    """Mean segment score, in units of utility."""
    sd: float = 1.0
    """Standard deviation of segment scores: the unit of `1 / beta`, `eps_equal` and `eps_skip`."""
    floor: float = 0.0
    """Lowest segment score."""
    factor_sd: dict[str, float] = field(default_factory=dict)
    """Standard deviation of each reward factor summed over a segment."""
    steps: int = 0
    """Steps a segment; 0 where the figures hold for any."""
    myopia: float = 1.0
    """Weight of a step for each step that follows it in the segment, as the teacher's."""

    def __post_init__(self) -> None:
        for name, value in {"mean": self.mean, "sd": self.sd, "floor": self.floor, **self.factor_sd}.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"{name}={value}, expected a finite number. Where play at random meets rewards or factors that are "
                    "nan or infinite, no unit can be measured."
                )
        if not self.sd > 0:
            raise ValueError(
                f"sd={self.sd}, expected a positive unit. Pass Calibration(sd=...) for a task of your own."
            )


def random_play(task: Any, steps: int, horizon: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Episodes of a task, `steps` steps in all: dicts with fields of JudgedSegments.

    Actions are uniformly random, or those of the task's own `reference_episode(rng)`, which gives a reset's options and
    the actions: random words say nothing of how much texts differ.
    """
    episodes = []
    task.action_space.seed(int(rng.integers(2**31)))
    taken = 0
    while taken < steps:
        options, planned = task.reference_episode(rng) if hasattr(task, "reference_episode") else (None, None)
        observation, _ = task.reset(seed=int(rng.integers(2**31)), options=options)
        episode: dict[str, Any] = {"observations": [observation], "actions": [], "rewards": [], "factors": []}
        terminated = truncated = False
        while not (terminated or truncated) and len(episode["actions"]) < (horizon or steps):
            action = task.action_space.sample() if planned is None else planned[len(episode["actions"])]
            observation, reward, terminated, truncated, _ = task.step(action)
            episode["observations"].append(observation)
            episode["actions"].append(action)
            episode["rewards"].append(float(reward))
            episode["factors"].append(task.reward_factors())
        episode["terminated"] = bool(terminated)
        taken += len(episode["actions"])
        episodes.append(episode)
    return episodes


def cut_windows(
    episodes: list[dict[str, Any]], steps: int, count: int, rng: np.random.Generator, task: str = ""
) -> JudgedSegments:
    """`count` windows of `steps` from episodes of `random_play`, short ones at the end of those that terminated."""
    starts = [
        (episode, start)
        for episode in episodes
        for start in range(
            len(episode["rewards"]) if episode["terminated"] else max(len(episode["rewards"]) - steps + 1, 1)
        )
    ]
    chosen = [starts[index] for index in rng.choice(len(starts), size=count)]
    lengths = np.array([min(len(episode["rewards"]) - start, steps) for episode, start in chosen])

    def stack(name: str, width: int) -> Any:
        first = chosen[0][0][name][0]
        if isinstance(first, dict):
            return {key: pad([[v[key] for v in e[name][s : s + width]] for e, s in chosen], width) for key in first}
        return pad([episode[name][start : start + width] for episode, start in chosen], width)

    def pad(rows: list[list[Any]], width: int) -> np.ndarray:
        out = np.zeros((len(rows), width, *np.shape(rows[0][0])), np.asarray(rows[0][0]).dtype)
        for row, values in zip(out, rows, strict=True):
            row[: len(values)] = values
        return out

    return JudgedSegments(
        observations=stack("observations", steps + 1),
        actions=stack("actions", steps),
        rewards=stack("rewards", steps),
        factors=stack("factors", steps),
        mask=np.arange(steps) < lengths[:, None],
        terminated=np.array(
            [e["terminated"] and s + n == len(e["rewards"]) for (e, s), n in zip(chosen, lengths, strict=True)]
        ),
        task=task,
    )


def utility_of(preference_model: Any, segments: JudgedSegments) -> np.ndarray:
    """(n, T) utility of each step, or (n, 1) of each whole segment.

    Raises:
        ValueError: if the preference model gives another shape.
    """
    utility, (n, steps) = np.asarray(preference_model.utility(segments)), segments.mask.shape
    if utility.shape not in ((n, steps), (n, 1)):
        raise ValueError(
            f"{type(preference_model).__name__}.utility gave shape {utility.shape}, expected (n, T) = ({n}, {steps}), "
            f"of steps, or (n, 1) = ({n}, 1), of whole segments. Nothing was asked."
        )
    return utility


def weighted_scores(utility: np.ndarray, mask: np.ndarray, myopia: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums over a segment with and without myopia.

    Args:
        utility: (n, T) a step or (n, 1) a whole segment.
        mask: (n, T) bool.
        myopia: weight of a step for each step that follows it in the segment; the last step weighs 1.

    Returns:
        (n,) plain sums and (n,) weighted sums; equal where utility is of whole segments.
    """
    if utility.shape[1] == 1 and mask.shape[1] != 1:
        return utility[:, 0], utility[:, 0]
    utility = np.where(mask, utility, 0.0)  # nan on padding says nothing
    plain = utility.sum(1)
    if myopia == 1.0:
        return plain, plain
    to_end = np.maximum(mask.sum(1, keepdims=True) - 1 - np.arange(mask.shape[1]), 0)
    return plain, (utility * myopia**to_end).sum(1)


def measure(preference_model: Any, segments: JudgedSegments, myopia: float = 1.0) -> Calibration:
    """The units of a preference model over a reference set of segments, whose steps weigh as `myopia` says."""
    factor_sd = {name: float(np.std(values.sum(1))) for name, values in segments.factors.items()}
    steps = segments.mask.shape[1]
    if not hasattr(preference_model, "utility"):
        return Calibration(factor_sd=factor_sd, steps=steps, myopia=myopia)
    scores = weighted_scores(utility_of(preference_model, segments), segments.mask, myopia)[1]
    sd = float(np.std(scores))
    # Random play may never change the score (sparse rewards). Then a score of 1 is the unit.
    sd = sd if sd > 1e-12 * (1.0 + float(np.abs(scores).max())) else 1.0
    return Calibration(float(np.mean(scores)), sd, float(np.min(scores)), factor_sd, steps, myopia)


def calibrate(
    env: gym.Env[Any, Any] | str,
    oracle: Any = "partial_return",
    *,
    segment_steps: int,
    steps: int = 5000,
    seed: int = 0,
    myopia: float = 1.0,
    factors: Callable[[gym.Env[Any, Any]], dict[str, float]] | None = None,
) -> Calibration:
    """Measure the units of a teacher's parameters by random play.

    Args:
        env: id or name of a task, or an environment of your own whose reward is the true one; it is reset.
        oracle: what to score segments with: a name, `{"name": ..., **arguments}` or a preference model.
        segment_steps: T, steps of the segments that will be asked about.
        steps: steps of random play.
        seed: of resets, actions and windows.
        myopia: of the teacher, where it rates: ratings are relative to scores as it remembers them.
        factors: of an environment of your own, as given to `prefenvs.wrap`; their units are what "hierarchical" needs.

    Raises:
        ValueError: for an unknown oracle or task, an environment whose reward is hidden, or factors of a suite's task.

    Example:
        >>> calibration = calibrate("Pendulum", segment_steps=50)
        >>> calibration.sd > 0
        True
    """
    from prefenvs.making import ForeignTask
    from prefenvs.oracles import make_oracle
    from prefenvs.preference_env import PreferenceEnv

    if isinstance(env, str):
        if factors is not None:
            raise ValueError(f"factors= is for an environment of your own; {env} names its own factors.")
        name = env.removeprefix("prefenvs/").split("-v")[0]
        return measure(make_oracle(oracle, name), reference_set(name, segment_steps, steps, seed), myopia)
    if isinstance(env.unwrapped, PreferenceEnv):
        raise ValueError(
            f"{env} hides its reward, so every score would be 0. Pass the environment that you gave to prefenvs.wrap, "
            "or the name of a task of the suite."
        )
    rng = np.random.default_rng(seed)
    horizon = env.spec.max_episode_steps if env.spec is not None and env.spec.max_episode_steps else steps
    episodes = random_play(ForeignTask(env, factors), steps, horizon, rng)
    return measure(make_oracle(oracle, None), cut_windows(episodes, segment_steps, 2000, rng), myopia)


def reference_set(
    task: str,
    segment_steps: int,
    steps: int = 5000,
    seed: int = 0,
    task_kwargs: Mapping[str, Any] | None = None,
) -> JudgedSegments:
    """2000 windows of random play in a task of the suite, the same on every call.

    Raises:
        ValueError: for an unknown task.
    """
    from prefenvs.error import unknown_name
    from prefenvs.tasks import TASKS

    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    arguments = (task, segment_steps, steps, seed, tuple(sorted((task_kwargs or {}).items())))
    try:
        return _reference_set(*arguments)
    except TypeError:  # arguments that cannot be hashed, as a list, cannot be remembered
        return _reference_set.__wrapped__(*arguments)


def forget_reference_sets() -> None:
    """Play anew where units are asked for next: a task was replaced."""
    _reference_set.cache_clear()


@functools.lru_cache(maxsize=32)
def _reference_set(
    task: str, segment_steps: int, steps: int, seed: int, task_kwargs: tuple[tuple[str, Any], ...]
) -> JudgedSegments:
    from prefenvs.making import make_task
    from prefenvs.tasks import TASKS

    rng = np.random.default_rng(seed)
    base = make_task(TASKS[task], task_kwargs=dict(task_kwargs))
    episodes = random_play(base, steps, TASKS[task].horizon, rng)
    base.close()
    return cut_windows(episodes, segment_steps, 2000, rng, task)
