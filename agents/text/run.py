"""A training run of a language model: pre-train, ask, fit a reward, optimise, and say what came of it."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

import prefenvs
from prefenvs.agents.checkpoint import read_folder, under, write_folder
from prefenvs.agents.evaluation import write_csv
from prefenvs.agents.preference_callback import HISTORY
from prefenvs.agents.reward_models import FitReport
from prefenvs.agents.text.evaluation import TextEvalCallback, evaluate_text
from prefenvs.agents.text.learner import TextLearner
from prefenvs.labelling import Feedback
from prefenvs.tasks import TASKS

if TYPE_CHECKING:
    from prefenvs.agents.train import Run


class TextCheckpoints(BaseCallback):
    """Writes all of a learner's state every so many completions or pairs; a run that goes on from it changes nothing.

    Unlike a `Barrier` it restarts no generator: those of a learner of language models are part of its state, and its
    environments draw nothing. The two latest checkpoints are kept. The teacher's side (questions asked, recorded true
    rewards) goes to a file of its own, which no learner reads.
    """

    def __init__(self, folder: Path, every: int, curve: TextEvalCallback, feedback: Feedback) -> None:
        """Write to subfolders of `folder`, with the curve so far and the feedback of the learner's environments."""
        super().__init__()
        self.folder, self.every, self.curve, self.feedback = folder, every, curve, feedback
        self.last = 0

    def _on_rollout_start(self) -> None:
        if self.num_timesteps // self.every > self.last:
            self.last = self.num_timesteps // self.every
            self.write()

    def _on_step(self) -> bool:
        return True

    def write(self) -> None:
        """Write a checkpoint of the present state."""
        model: Any = self.model
        arrays = model.state() | {f"curve/{name}": array for name, array in self.curve.state().items()}
        files = {"learner": arrays, "teacher": self.feedback.state()}
        write_folder(self.folder / f"{self.last:06d}", files, {"checkpoint": self.last})
        for old in self._found()[:-2]:
            shutil.rmtree(old)

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]*") if path.suffix != ".part")

    def begin(self, learner: TextLearner) -> bool:
        """Bring a prepared learner to the latest checkpoint, if there is one; returns whether there was.

        Raises:
            DamagedFile: if it cannot be read.
        """
        found = self._found()
        if found:
            files, facts = read_folder(found[-1])
            learner.load_state(files["learner"])
            self.curve.load_state(under("curve", files["learner"]))
            if "teacher" in files:  # earlier checkpoints lack it: what they asked was asked before the first iteration
                self.feedback.load_state(files["teacher"])
            self.last = int(facts["checkpoint"])
        return bool(found)


def make_text_agent(run: Run, folder: Path | None = None) -> TextLearner:
    """A new learner of language models and its environments."""
    from prefenvs.agents.train import agent_class

    preset = run.preset
    envs = gym.make_vec(
        TASKS[preset.task].id,
        num_envs=preset.num_envs,
        view="completion",
        oracle=run.oracle,
        teacher=run.teacher,
        budget=run.budget,
        feedback_seed=run.seed,
        store=None if folder is None else str(folder / "answers.sqlite"),
    )
    cls = agent_class(preset.agent)
    return cls(
        "decoder",
        envs,
        config=cls.config_class(**preset.algorithm),
        preferences=preset.preferences,
        seed=run.seed,
        device=run.device,
        tensorboard_log=None if folder is None else str(folder / "tensorboard"),
        **preset.extra,
    )


def train_text(run: Run, folder: Path, *, progress: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train, or go on where a killed run stopped; the result as JSON. `prefenvs.agents.train.train` calls this."""
    started, preset, env_id = time.perf_counter(), run.preset, TASKS[run.preset.task].id
    learner: Any = make_text_agent(run, folder)
    feedback = prefenvs.feedback(learner.envs)
    learner.prepare()  # asks, or is served the answers that the store has
    before = evaluate_text(learner, env_id)  # of the policy that is still the reference
    report = getattr(learner, "report", None) or FitReport(0, np.nan, np.nan, np.nan)
    fitted = (report.loss, report.accuracy, report.held_out_accuracy, report.epochs)
    write_csv(folder / "sessions.csv", HISTORY, np.array([[0, feedback.asked, feedback.answered, *fitted]], float))
    curve = TextEvalCallback(env_id, preset.eval_every, folder=folder)
    checkpoints = TextCheckpoints(folder / "checkpoints", preset.checkpoint_every, curve, feedback)
    if checkpoints.begin(learner) and not quiet:
        print(f"resumed at {learner.unit[:-1]} {learner.num_timesteps:,} of {preset.total_steps:,}", file=sys.stderr)
    left = preset.total_steps - learner.num_timesteps
    if left > 0:
        callbacks = [curve, checkpoints]
        learner.learn(left, callbacks, reset_num_timesteps=False, progress_bar=progress, tb_log_name="log")
    final = evaluate_text(learner, env_id)
    learner.save(folder / "agent.zip")
    learner.envs.close()
    feedback.close()
    return {
        "task": preset.task,
        "agent": preset.agent,
        "seed": run.seed,
        **final.facts(deterministic=False),
        "device": str(learner.device),
        "unit": learner.unit,
        "asked": feedback.asked,
        "answered": feedback.answered,
        **{name: _number(getattr(report, name)) for name in ("accuracy", "held_out_accuracy")},
        "before": json.loads(json.dumps(asdict(before))),
        "after": json.loads(json.dumps(asdict(final))),
        "seconds": time.perf_counter() - started,
    }


def _number(value: float) -> float | None:
    """As JSON, which has no nan."""
    return None if math.isnan(value) else value


def summary(result: Mapping[str, Any]) -> str:
    """What a run of a language model did, as lines to read."""
    before, after = result["before"], result["after"]
    titles = {
        "mean": "true reward",
        "train_mean": "true reward, prompts trained on",
        "success": "success",
        "proxy": "proxy",
        "kl": "KL in nats",
        "length": "tokens",
    }
    shown = [name for name in titles if after[name] is not None and (name != "train_mean" or after["split"] == "test")]
    lines = [f"{after['episodes']} completions of {after['split']} prompts".ljust(40) + f"{'before':>9}{'after':>9}"]
    for name in shown:
        cells = ("-" if part[name] is None else f"{part[name]:.3f}" for part in (before, after))
        lines.append(titles[name].ljust(40) + "".join(f"{cell:>9}" for cell in cells))
    lines.append(f"{result['asked']} questions asked, {result['answered']} answered")
    if result["held_out_accuracy"] is not None:
        lines[-1] += f"; the reward model foresees {result['held_out_accuracy']:.0%} of those held out"
    for (prompt, first, low), (_, last, high) in zip(before["examples"], after["examples"], strict=True):
        lines.append(f"  {prompt} | {first} ({low:.2f}) -> {last} ({high:.2f})")
    return "\n".join(lines)
