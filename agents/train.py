"""One training run in a folder of its own: config, curve, checkpoints, agent and result."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import VecMonitor

from prefenvs._worker import write_atomically
from prefenvs.agents import AGENTS
from prefenvs.agents.checkpoint import Barrier
from prefenvs.agents.evaluation import EvalCallback, evaluate, write_csv
from prefenvs.agents.preference_callback import HISTORY, PreferenceConfig
from prefenvs.agents.preset_choice import BASELINES, TEXT, agent_class
from prefenvs.agents.presets import Preset, schedules
from prefenvs.agents.reward_metrics import RewardMetricsCallback, check_metrics
from prefenvs.agents.text.learner import TextLearner
from prefenvs.agents.text.rewards import TextPreferenceConfig
from prefenvs.agents.text.run import train_text
from prefenvs.error import DamagedFile, RunMismatch, unknown_name
from prefenvs.oracles import make_oracle
from prefenvs.runs import Job, Outcome, Table, execute, versions
from prefenvs.sb3 import sb3_vec
from prefenvs.tasks import TASKS
from prefenvs.teacher import make_teacher


@dataclass(frozen=True)
class Run:
    """What decides a run's numbers."""

    preset: Preset
    seed: int = 0
    oracle: str = "partial_return"
    teacher: str = "oracle"
    budget: int | None = None
    device: str = "auto"
    reward_metrics: tuple[str, ...] = ()
    """Metrics of the learned reward after each session, in metrics.csv; they change no other number."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Run:
        """The run that `describe` described."""
        preset = dict(description["preset"])
        kind = TextPreferenceConfig if writes_text(preset["agent"]) else PreferenceConfig
        preset["preferences"] = kind(**preset["preferences"])
        settings = ("seed", "oracle", "teacher", "budget", "device")
        metrics = tuple(description.get("reward_metrics", ()))
        return cls(Preset(**preset), **{name: description[name] for name in settings}, reward_metrics=metrics)

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        preset = asdict(self.preset)
        return json.loads(
            json.dumps(
                {
                    "task": self.preset.task,
                    "agent": self.preset.agent,
                    "seed": self.seed,
                    "total_steps": self.preset.total_steps,
                    "oracle": self.oracle,
                    "teacher": self.teacher,
                    "budget": self.budget,
                    "device": self.device,
                    "preset": preset,
                }
                | ({"reward_metrics": self.reward_metrics} if self.reward_metrics else {})
                | ({"loss": preset["extra"]["loss"]} if "loss" in preset["extra"] else {})
            )
        )


def train(
    run: Run, folder: Path, *, command: str = "", progress: bool = False, quiet: bool = False, clips: int = 0
) -> dict[str, Any]:
    """Train, or go on where a killed run stopped, and return the result (also in result.json).

    Args:
        run: what to do.
        folder: of this run alone; made if need be.
        command: written into the folder, so that a reader can repeat it.
        progress: show a progress bar.
        quiet: print nothing.
        clips: questions of the last session to draw for the report, where MuJoCo can draw.

    Raises:
        RunMismatch: if the folder holds a run with another configuration.
        DamagedFile: if the folder's config, result or latest checkpoint cannot be read.
        ValueError: for an unknown task, agent, oracle or teacher.
    """
    preset = run.preset
    check_names(run)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    open_folder(run, folder, command)
    if (folder / "result.json").exists():
        return _read_json(folder / "result.json")
    if writes_text(preset.agent):
        result = train_text(run, folder, progress=progress, quiet=quiet)
    else:
        result = _train_control(run, folder, progress=progress, quiet=quiet, clips=clips)
    write_atomically(folder / "result.json", json.dumps(result, indent=1))
    return result


def _train_control(run: Run, folder: Path, *, progress: bool, quiet: bool, clips: int) -> dict[str, Any]:
    """Train an SB3 algorithm, with a learned reward or the true one."""
    preset, started = run.preset, time.perf_counter()
    env_id = TASKS[preset.task].id
    model = make_agent(run, folder, render_mode="rgb_array" if clips else None)
    preferences = getattr(model, "preferences", None)
    if preferences is not None:
        preferences.history_path = folder / "sessions.csv"
    curve = EvalCallback(env_id, preset.eval_every, path=folder / "evaluations.csv")
    parts: tuple[Any, ...] = (curve,) if preferences is None else (preferences, curve)
    if preferences is not None and run.reward_metrics:
        parts += (RewardMetricsCallback(preferences, run.reward_metrics, seed=run.seed, path=folder / "metrics.csv"),)
    feedback = None if preferences is None else preferences.feedback
    barrier = Barrier(folder / "checkpoints", preset.checkpoint_every, run.seed, feedback, parts)
    if barrier.begin(model) and not quiet:
        print(f"resumed at step {model.num_timesteps:,} of {preset.total_steps:,}", file=sys.stderr)
    callback = CallbackList([*(part for part in parts if part is not preferences), barrier])
    left = preset.total_steps - model.num_timesteps
    if left > 0:
        model.learn(left, callback=callback, reset_num_timesteps=False, progress_bar=progress, tb_log_name="log")
    final = evaluate(model, env_id, 20)
    result: dict[str, Any] = {
        "task": preset.task,
        "agent": preset.agent,
        "seed": run.seed,
        **final.facts(deterministic=True),
        "device": str(model.device),
        "seconds": time.perf_counter() - started,
    }
    if preferences is not None:
        write_csv(folder / "sessions.csv", HISTORY, preferences.history)
        last = preferences.history[-1] if len(preferences.history) else [float("nan")] * 7
        names = ("asked", "answered", "accuracy", "held_out_accuracy")
        values = (feedback.asked, feedback.answered, float(last[4]), float(last[5]))  # type: ignore[union-attr]
        result |= {k: None if v != v else v for k, v in zip(names, values, strict=True)}
        model.save(folder / "agent.zip")
        if clips and preferences.latest is not None:
            from prefenvs.report import save_clips

            query, label = preferences.latest
            save_clips(model.get_env(), query, label, folder / "clips", limit=clips)
    venv = model.get_env()
    assert venv is not None
    venv.close()
    if feedback is not None:
        feedback.close()
    return result


def train_side_by_side(
    runs: Mapping[str, Run],
    folder: Path,
    *,
    command: str = "",
    workers: int = 1,
    progress: bool = False,
    clips: int = 0,
) -> Outcome:
    """Train runs in worker processes, or go on where they stopped; one that fails does not stop the others.

    Args:
        runs: what to do, by the name of the run's own folder.
        folder: of all of them; made if need be.
        command: written into each run's folder.
        workers: processes at a time.
        progress: show a progress bar of finished runs.
        clips: questions of the last session to draw, a run.

    Returns:
        The tables of one row each, `train`'s results, and the failures.

    Raises:
        RunMismatch, DamagedFile, ValueError: as `train` and `execute` do.
    """
    for run in runs.values():
        check_names(run)
    for name, run in runs.items():
        open_folder(run, folder / name, command)
    place = f"{train_job.__module__}:{train_job.__name__}"
    plan = [
        Job(name, place, {"run": run.describe(), "clips": clips, **_own_class(run.preset.agent)})
        for name, run in runs.items()
    ]
    return execute(plan, folder, workers=workers, progress=progress)


def _own_class(agent: str) -> dict[str, str]:
    """Where the class of an agent of one's own is, which another process does not know; empty for another agent."""
    place = AGENTS.get(agent, "prefenvs.")
    return {} if place.startswith("prefenvs.") else {"own_class": place}


def train_job(folder: Path, run: Mapping[str, Any], clips: int, own_class: str | None = None) -> Table:
    """`train` as a job for `prefenvs.runs`: the result as a table of one row, less what a row cannot hold.

    Args:
        folder: see `train`.
        run: as `Run.describe` gives it.
        clips: see `train`.
        own_class: `module:class` of the run's agent, where it is one of one's own.
    """
    if own_class is not None:
        AGENTS[run["agent"]] = own_class
    result = train(Run.from_description(run), folder, clips=clips)
    return [{name: value for name, value in result.items() if not isinstance(value, dict)}]


def check_names(run: Run) -> None:
    """Refuse unknown names before anything is written.

    Raises:
        ValueError: for an unknown task, agent, oracle, teacher, metric or device, an agent that is not for the task, or
            a GPU that is not there.
    """
    if run.preset.task not in TASKS:
        raise unknown_name("env", run.preset.task, TASKS)
    if run.preset.agent not in (*AGENTS, *BASELINES):
        raise unknown_name("agent", run.preset.agent, (*AGENTS, *BASELINES))
    text = run.preset.task in TEXT
    if text != writes_text(run.preset.agent):
        fitting = [name for name in (*AGENTS, *BASELINES) if writes_text(name) == text]
        raise ValueError(
            f"{run.preset.agent} {'does not write' if text else 'writes'} text, and {run.preset.task} is "
            f"{'a' if text else 'no'} text task. Use --agent with one of: {', '.join(sorted(fitting))}."
        )
    check_device(run.device)
    make_oracle(run.oracle, run.preset.task)
    make_teacher(run.teacher)
    check_metrics(run.reward_metrics)
    if run.reward_metrics and text:
        raise ValueError("reward_metrics compare rewards of steps; runs of text tasks write over_optimisation.csv.")
    if run.reward_metrics and run.preset.agent in BASELINES:
        raise ValueError(
            f"reward_metrics compare a learned reward with the true one, and {run.preset.agent} learns none."
        )


def check_device(device: str) -> None:
    """Refuse a device that is not there, for which SB3 would take the CPU without a word.

    Raises:
        ValueError: saying what there is.
    """
    try:
        wanted = torch.device("cpu" if device == "auto" else device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not known. Expected cpu, cuda or auto.") from error
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.type == "cuda" and (wanted.index or 0) >= found:
        raise ValueError(f"device={device!r}, but torch finds {found} CUDA devices. Use another, cpu or auto.")


def make_agent(run: Run, folder: Path | None = None, render_mode: str | None = None) -> BaseAlgorithm:
    """A new agent and its environments: preference environments, or the true reward's for SB3's own algorithms."""
    preset = run.preset
    env_id = TASKS[preset.task].id
    settings: dict[str, Any] = {"evaluation": True}
    if preset.agent in AGENTS:
        settings = {"oracle": run.oracle, "teacher": run.teacher, "budget": run.budget, "feedback_seed": run.seed}
        settings |= {"store": None if folder is None else str(folder / "answers.sqlite"), "render_mode": render_mode}
    venv = VecMonitor(sb3_vec(env_id, preset.num_envs, **settings))
    log = None if folder is None else str(folder / "tensorboard")
    shared = {"seed": run.seed, "device": run.device, "tensorboard_log": log}
    arguments = schedules(copy.deepcopy(preset.algorithm)) | shared  # SB3 writes into policy_kwargs
    if preset.agent in AGENTS:
        arguments |= {"preferences": preset.preferences, **preset.extra}
    return agent_class(preset.agent)("MlpPolicy", venv, **arguments)


def writes_text(agent: str) -> bool:
    """Whether an agent is a learner of language models, for the text tasks."""
    return issubclass(agent_class(agent), TextLearner)


def read_config(folder: Path) -> dict[str, Any]:
    """What a run's config.json holds.

    Raises:
        ValueError: if there is none.
        DamagedFile: if it cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no run: there is no config.json in it. Name a folder that `train --out` made."
        )
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{path} cannot be read ({error}). It was left as it is; give another --out.") from error


def open_folder(run: Run, folder: Path, command: str) -> None:
    """Make a run's folder, or check that it belongs to this run.

    Raises:
        RunMismatch: naming the settings that differ.
        DamagedFile: if its config.json cannot be read.
    """
    config = run.describe()
    path = folder / "config.json"
    if path.exists():
        found = read_config(folder)
        different = [key for key in config if found.get(key) != config[key]]
        if different:
            raise RunMismatch(
                f"{folder} holds a run with other settings: {', '.join(different)} differ. "
                "Give another --out, or repeat its own command: " + str(found.get("command", "see config.json"))
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**config, "command": command, "versions": versions()}, indent=1))
