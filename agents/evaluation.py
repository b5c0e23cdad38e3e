"""Scores a policy through the evaluation door."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from prefenvs.preference_env import PreferenceEnv

FIRST_SEED = 1_000_000
"""Evaluation episode i is reset with this seed plus i; training seeds lie far below."""


@dataclass(frozen=True)
class Evaluation:
    """True returns of some episodes."""

    mean: float
    """Mean true return, in units of reward."""
    sd: float
    """Standard deviation between episodes."""
    episodes: int
    success: float | None
    """Share of episodes that ended in success, where the task has such a notion."""

    def facts(self, *, deterministic: bool) -> dict[str, Any]:
        """What a run's result says of its last model, and how that was measured."""
        return {
            "final": self.mean,
            "sd": self.sd,
            "success": self.success,
            "door": "evaluation",
            "episodes": self.episodes,
            "deterministic": deterministic,
            "selected": "last",
        }


EnvMaker = str | Callable[[], gym.Env[Any, Any]]
"""An id of a task or of any Gymnasium environment, or a function that makes one with its true reward shown."""


def evaluate(
    policy: Any, env: EnvMaker, episodes: int = 20, *, deterministic: bool = True, first_seed: int = FIRST_SEED
) -> Evaluation:
    """Play episodes with the true reward shown. The same episodes every time.

    Args:
        policy: an SB3 model (anything with `predict`), or None for uniformly random actions. It is shown observations
            as its VecNormalize, if it has one, normalizes them.
        env: an id, or a function that makes the environment as the policy knows it, wrappers and their statistics
            included: `lambda: RescaleAction(gym.make(id, evaluation=True), -1, 1)`.
        episodes: how many.
        deterministic: take the policy's mode.
        first_seed: of episode 0; episode i is reset with this plus i.

    Raises:
        ValueError: if the reward is hidden, or the policy was trained on other spaces.
    """
    normalizer = policy.get_vec_normalize_env() if hasattr(policy, "get_vec_normalize_env") else None
    returns, successes = [], []
    with contextlib.closing(_made(env)) as played:
        _check_spaces(policy, played)
        played.action_space.seed(first_seed)
        for episode in range(episodes):
            observation, _ = played.reset(seed=first_seed + episode)
            total, over = 0.0, False
            info: dict[str, Any] = {}
            while not over:
                action = played.action_space.sample()
                if policy is not None:
                    observation = observation if normalizer is None else normalizer.normalize_obs(observation)
                    action, _ = policy.predict(observation, deterministic=deterministic)
                    if isinstance(played.action_space, gym.spaces.Discrete):
                        action = int(action)  # SB3's array of no axis is no number to all environments
                observation, reward, terminated, truncated, info = played.step(action)
                total, over = total + float(reward), terminated or truncated
            returns.append(total)
            if "success" in info:
                successes.append(bool(info["success"]))
    share = float(np.mean(successes)) if successes else None
    return Evaluation(float(np.mean(returns)), float(np.std(returns)), episodes, share)


def _made(env: EnvMaker) -> gym.Env[Any, Any]:
    if callable(env):
        made = env()
    else:
        made = gym.make(env, evaluation=True) if env.rpartition(":")[2].startswith("prefenvs/") else gym.make(env)
    if isinstance(made.unwrapped, PreferenceEnv):
        raise ValueError(
            f"{made} hides its reward, so every return would be 0. Make it with evaluation=True, or give the "
            "environment that was wrapped by prefenvs.wrap."
        )
    return made


def _check_spaces(policy: Any, env: gym.Env[Any, Any]) -> None:
    """Refuse a policy trained in wrappers that `env` lacks: observations or actions would mean something else."""
    for name in ("observation_space", "action_space"):
        trained, shown = getattr(policy, name, None), getattr(env, name)
        if trained is None or isinstance(trained, gym.spaces.Dict) or len(trained.shape or ()) == 3:
            continue  # SB3 turns images round itself, and refuses other values than those it knows
        if trained != shown:
            raise ValueError(
                f"the policy was trained with {name} {trained}, {env} has {shown}. If it was trained in wrappers, give "
                "a function that makes the environment in the same ones: evaluate(policy, lambda: Wrapper(gym.make(id, "
                "evaluation=True)))."
            )


class EvalCallback(BaseCallback):
    """Logs `eval/true_return` every so many steps and keeps the curve; it never chooses a model by it."""

    def __init__(self, env: EnvMaker, every: int, episodes: int = 5, path: Path | None = None) -> None:
        """Evaluate on `env`.

        Args:
            env: an id, or a function that makes an environment; see `evaluate`.
            every: environment steps between evaluations.
            episodes: a time.
            path: CSV file that gets the curve, or None.
        """
        super().__init__()
        self.env, self.every, self.episodes, self.path = env, every, episodes, path
        self.curve = np.zeros((0, 4))
        """(evaluations, 4) step, mean true return, standard deviation, episodes."""

    def _on_rollout_start(self) -> None:
        last = self.curve[-1, 0] if len(self.curve) else -1.0
        if self.num_timesteps // self.every > last // self.every:
            self.evaluate()

    def _on_step(self) -> bool:
        return True

    def evaluate(self, episodes: int | None = None) -> Evaluation:
        """Evaluate now."""
        found = evaluate(self.model, self.env, episodes or self.episodes)
        self.curve = np.vstack([self.curve, [self.num_timesteps, found.mean, found.sd, found.episodes]])
        self.logger.record("eval/true_return", found.mean)
        if self.path is not None:
            write_csv(self.path, ("step", "true_return", "sd", "episodes"), self.curve)
        return found

    def cut(self) -> None:
        """Nothing to cut."""

    def reseed(self, barrier: int) -> None:
        """Nothing to reseed: the episodes are fixed."""

    def state(self) -> dict[str, np.ndarray]:
        """The curve so far."""
        return {"curve": self.curve}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put the curve back."""
        self.curve = state["curve"]


def write_csv(path: Path, header: tuple[str, ...], rows: np.ndarray) -> None:
    """Write a table in one go, so that no reader sees half of it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[f"{value:.10g}" for value in row] for row in rows])
    part = path.with_suffix(".part")
    part.write_text(text.getvalue(), encoding="utf-8")
    os.replace(part, path)
