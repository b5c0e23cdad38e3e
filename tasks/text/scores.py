"""Measures the scores that the text tasks' registry states: `python -m prefenvs.tasks.text.scores`."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from prefenvs.tasks.task import TaskSpec
from prefenvs.tasks.text import TEXT_TASKS
from prefenvs.tasks.text.env import TextTask


def make_task(spec: TaskSpec) -> TextTask:
    """The task that a line of the registry describes."""
    module, name = spec.entry_point.split(":")
    return getattr(import_module(module), name)(**spec.kwargs)


def random_rewards(task: TextTask, n: int = 20_000, seed: int = 0) -> np.ndarray:
    """(n,) true rewards of uniformly random tokens after prompts of the split "train"."""
    rng, language = np.random.default_rng(seed), task.language
    prompts = rng.choice(task.prompts("train"), n)
    return task.rewards(prompts, rng.integers(language.vocab_size, size=(n, language.max_new_tokens)))


def reference_rewards(task: TextTask) -> np.ndarray:
    """(n,) true rewards of the task's own answers to the prompts of the split "train"."""
    prompts = task.prompts("train")
    return task.rewards(prompts, task.answers(prompts))


if __name__ == "__main__":
    for spec in TEXT_TASKS:
        task = make_task(spec)
        rewards, reference = random_rewards(task), reference_rewards(task)
        print(f"{spec.name}: random {rewards.mean():.4f} sd {rewards.std():.4f}, reference {reference.mean():.4f}")
