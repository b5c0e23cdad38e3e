"""`prefenvs train`, `eval`, `report` and `demo`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from prefenvs.cli.checks import at_least, task_name, usage
from prefenvs.error import unknown_name

if TYPE_CHECKING:
    from prefenvs.runs import Outcome


@dataclass
class Train:
    """Train an agent from preferences, or on the true reward (agents sac and ppo). The same command again resumes."""

    env: str | None = None
    """Task: an id such as prefenvs/Pendulum-v0, or its name; one of your own as my_module:prefenvs/TextMine-v0. By
    default the preset's."""
    agent: str | None = None
    """See `prefenvs list agents`; on the true reward sac and ppo. On text tasks ppo is token_ppo, which learns from
    preferences. By default the preset's."""
    preset: str | None = None
    """Named settings; see `prefenvs list presets`. By default those of the task."""
    loss: str | None = None
    """Loss of pairs of texts, for the agents dpo and rso; see `prefenvs list losses`. By default dpo; others have their
    own options."""
    oracle: str = "partial_return"
    """What the simulated person cares about."""
    teacher: str = "oracle"
    """How the simulated person errs."""
    budget: int | None = None
    """Queries to ask in all, spread as the preset's are; by default the preset's number."""
    steps: int | None = None
    """Environment steps, or completions or pairs of text; by default the preset's."""
    seed: int = 0
    """Seed of everything random; the first one if there are several."""
    seeds: int = 1
    """Seeds to train, each in a folder seed-<seed> under --out if there are several."""
    jobs: int = 1
    """Seeds to train at a time, each in a process of its own with one thread."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    reward_metrics: tuple[str, ...] = ()
    """Metrics of the learned reward to write to metrics.csv after each session; `prefenvs list --kind metrics`."""
    clips: int = 0
    """Questions of the last session to draw for the report."""
    out: Path | None = None
    """Folder of the run; by default runs/<task>-<agent>-<seed>, of several seeds runs/<task>-<agent>. After the agent
    comes a --loss."""
    json: bool = False
    """Print the result for machines."""

    def run(self, command: str) -> int:
        """Train."""
        with usage():
            at_least(1, steps=self.steps, budget=self.budget, seeds=self.seeds, jobs=self.jobs)
            at_least(0, seed=self.seed, clips=self.clips)
            from prefenvs.agents.preset_choice import choose_preset
            from prefenvs.agents.train import Run, check_names, train, train_side_by_side

            task = task_name(self.env) if self.env else None
            preset = choose_preset(task, self.agent, self.preset, self.steps, self.budget, self.loss)
            run = Run(preset, self.seed, self.oracle, self.teacher, self.budget, self.device, self.reward_metrics)
            check_names(run)
        parts = (preset.task, preset.agent, preset.extra.get("loss"))
        name, shown = "-".join(part for part in parts if part), sys.stderr.isatty()
        if self.seeds > 1:
            out = self.out or Path("runs") / name
            runs = {f"seed-{run.seed + i}": dataclasses.replace(run, seed=run.seed + i) for i in range(self.seeds)}
            outcome = train_side_by_side(
                runs, out, command=command, workers=self.jobs, progress=shown, clips=self.clips
            )
            return self._print_seeds(outcome, out)
        out = self.out or Path("runs") / f"{name}-{self.seed}"
        result = train(run, out, command=command, progress=shown, clips=self.clips)
        if self.json:
            print(json.dumps(result, indent=1))
            return 0
        if "after" in result:
            from prefenvs.agents.text.run import summary

            print(summary(result))
        print(f"{_score(result)}; {out}")
        return 0

    def _print_seeds(self, outcome: Outcome, out: Path) -> int:
        results = {name: table[0] for name, table in outcome.tables.items()}
        if self.json:
            print(json.dumps(list(results.values()), indent=1))
        else:
            for name, result in results.items():
                print(f"{_score(result)}; {out / name}")
        for name, failure in outcome.failures.items():
            reason = failure.strip().splitlines()
            print(f"prefenvs: {name} failed: {reason[-1]}; see {out / name / 'error.txt'}", file=sys.stderr)
        return 1 if outcome.failures else 0


@dataclass
class Eval:
    """Score random play, or the agent of a run, through the evaluation door."""

    env: str | None = None
    """Task to play at random."""
    run_folder: Path | None = None
    """Run whose agent is scored."""
    episodes: int = 20
    """Episodes to play."""
    json: bool = False
    """Print for machines."""

    def run(self, command: str) -> int:
        """Evaluate."""
        from prefenvs.tasks import TASKS

        with usage():
            at_least(1, episodes=self.episodes)
            if (self.env is None) == (self.run_folder is None):
                raise ValueError("give one of --env (random play) and --run-folder (its agent).")
            task, agent = (task_name(self.env or ""), "") if self.run_folder is None else _trained(self.run_folder)
        from prefenvs.agents.evaluation import evaluate

        if self.run_folder is None:
            found = evaluate(None, TASKS[task].id, self.episodes)
        else:
            from prefenvs.agents.text.evaluation import evaluate_text
            from prefenvs.agents.train import writes_text

            policy = _load_agent(agent, self.run_folder / "agent.zip", task)
            score = evaluate_text if writes_text(agent) else evaluate
            found = score(policy, TASKS[task].id, self.episodes)
        if self.json:
            print(json.dumps(dataclasses.asdict(found)))
        else:
            print(f"true return {found.mean:.2f} +- {found.sd:.2f} over {found.episodes} episodes of {TASKS[task].id}")
        return 0


@dataclass
class Report:
    """Write one HTML page about runs."""

    runs: tyro.conf.Positional[list[Path]]
    """Folders of runs: seeds of one agent, or several agents on one task."""

    def run(self, command: str) -> int:
        """Write the page."""
        from prefenvs.report.page import write_page
        from prefenvs.report.read import read_runs

        with usage():
            runs = read_runs(self.runs)
        print(write_page(runs))
        return 0


@dataclass
class Demo:
    """Learn HalfCheetah from preferences in minutes; end with a table and a report."""

    full: bool = False
    """Also train SAC on the true reward, in place of the recorded figure."""
    seed: int = 30
    """Seed of everything random. 30 is the first of those recorded in docs/benchmarks.md, so that the demonstration
    repeats what is shown there; others may end lower."""
    steps: int | None = None
    """Environment steps, to try it out faster."""
    out: Path = Path("runs/demo")
    """Folder of the runs."""

    def run(self, command: str) -> int:
        """Train and report."""
        with usage():
            at_least(1, steps=self.steps)
            at_least(0, seed=self.seed)
        from prefenvs.agents.demo import run_demo

        return run_demo(self.out, self.seed, steps=self.steps, full=self.full, command=command)


def _score(result: Mapping[str, Any]) -> str:
    return f"true return {result['final']:.1f} +- {result['sd']:.1f} over {result['episodes']} episodes"


def _trained(folder: Path) -> tuple[str, str]:
    """Task and agent of a finished run."""
    from prefenvs.agents import AGENTS
    from prefenvs.agents.train import read_config
    from prefenvs.tasks import TASKS

    config, path = read_config(folder), folder / "agent.zip"
    if config["agent"] not in AGENTS:
        raise unknown_name("agent", config["agent"], AGENTS, "Agents on the true reward are not kept.")
    if config["task"] not in TASKS:
        first = 'One of your own: python -c "import my_module, prefenvs.cli as c; c.main()" eval --run-folder ...'
        raise unknown_name("task", config["task"], TASKS, first)
    if not path.is_file():
        raise ValueError(f"there is no {path}: the run has not finished. Go on with its own command, then score it.")
    return config["task"], config["agent"]


def _load_agent(agent: str, path: Path, task: str) -> Any:
    import gymnasium as gym

    from prefenvs.agents.train import agent_class, writes_text
    from prefenvs.tasks import TASKS

    env_id = TASKS[task].id
    env = gym.make_vec(env_id, num_envs=64, view="completion") if writes_text(agent) else gym.make(env_id)
    return agent_class(agent).load(path, env)
