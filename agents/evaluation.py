"""Scores a policy through the evaluation door."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

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


def evaluate(
    policy: Any, env_id: str, episodes: int = 20, *, deterministic: bool = True, first_seed: int = FIRST_SEED
) -> Evaluation:
    """Play episodes with the true reward shown. The same episodes every time.

    Args:
        policy: an SB3 model (anything with `predict`), or None for uniformly random actions.
        env_id: id of a task.
        episodes: how many.
        deterministic: take the policy's mode.
        first_seed: of episode 0; episode i is reset with this plus i.
    """
    env = gym.make(env_id, evaluation=True)
    env.action_space.seed(first_seed)
    returns, successes = [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=first_seed + episode)
        total, over = 0.0, False
        info: dict[str, Any] = {}
        while not over:
            action = env.action_space.sample()
            if policy is not None:
                action, _ = policy.predict(observation, deterministic=deterministic)
            observation, reward, terminated, truncated, info = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
        if "success" in info:
            successes.append(bool(info["success"]))
    env.close()
    share = float(np.mean(successes)) if successes else None
    return Evaluation(float(np.mean(returns)), float(np.std(returns)), episodes, share)


class EvalCallback(BaseCallback):
    """Logs `eval/true_return` every so many steps and keeps the curve; it never chooses a model by it."""

    def __init__(self, env_id: str, every: int, episodes: int = 5, path: Path | None = None) -> None:
        """Evaluate on `env_id`.

        Args:
            env_id: id of a task.
            every: environment steps between evaluations.
            episodes: a time.
            path: CSV file that gets the curve, or None.
        """
        super().__init__()
        self.env_id, self.every, self.episodes, self.path = env_id, every, episodes, path
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
        found = evaluate(self.model, self.env_id, episodes or self.episodes)
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
