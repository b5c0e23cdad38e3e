"""The `prefenvs` program."""

from __future__ import annotations

import ctypes.util
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from prefenvs.error import PrefenvsError, unknown_name

if TYPE_CHECKING:
    from prefenvs.agents.presets import Preset
    from prefenvs.runs import Outcome


@dataclass
class List:
    """List what can be named: tasks, oracles, teachers, query strategies, metrics, agents, presets and studies."""

    what: tyro.conf.Positional[str | None] = None
    """The same as --kind."""
    kind: str = "tasks"
    """tasks, oracles, teachers, strategies, metrics, agents, presets or studies (with their latest verdicts)."""
    json: bool = False
    """Print for machines."""

    def run(self, command: str) -> int:
        """Print the names."""
        from prefenvs.metrics import REWARD_METRICS
        from prefenvs.oracles import ORACLES
        from prefenvs.queries import STRATEGIES
        from prefenvs.tasks import TASKS
        from prefenvs.teacher import TEACHERS

        kind = self.what or self.kind
        if kind == "studies":
            from prefenvs.studies._pages import board

            rows = board()
        elif kind == "presets":
            from prefenvs.agents.presets import PRESETS

            rows = {name: [p.task, p.agent, f"{p.total_steps:,} steps"] for name, p in PRESETS.items()}
        else:
            from prefenvs.agents import AGENTS

            kinds: dict[str, dict[str, list[str]]] = {
                "tasks": {
                    s.id: [
                        f"horizon {s.horizon}",
                        f"random {s.random_score.mean:.1f}" if s.random_score else "",
                        ", ".join(s.factors),
                        f"[{s.extra}]" if s.extra else "",
                    ]
                    for s in TASKS.values()
                },
                "oracles": {name: [] for name in ORACLES},
                "teachers": {name: [] for name in TEACHERS},
                "strategies": {name: [] for name in STRATEGIES},
                "metrics": {name: [] for name in REWARD_METRICS},
                "agents": {name: [place] for name, place in AGENTS.items()},
            }
            if kind not in kinds:
                raise unknown_name("kind", kind, (*kinds, "presets", "studies"))
            rows = kinds[kind]
        if self.json:
            print(json.dumps(rows, indent=1))
        else:
            width = max(map(len, rows), default=0)
            for name, facts in rows.items():
                print(f"{name:{width}}  {'  '.join(fact for fact in facts if fact)}".rstrip())
        return 0


@dataclass
class Train:
    """Train an agent from preferences, or on the true reward (agents sac and ppo). The same command again resumes."""

    env: str | None = None
    """Task: an id such as prefenvs/Pendulum-v0, or its name. By default the preset's."""
    agent: str | None = None
    """pebble, prefppo, or on the true reward sac, ppo. By default the preset's."""
    preset: str | None = None
    """Named settings; see `prefenvs list presets`. By default those of the task."""
    oracle: str = "partial_return"
    """What the simulated person cares about."""
    teacher: str = "oracle"
    """How the simulated person errs."""
    budget: int | None = None
    """Queries that may be asked; by default the preset's number."""
    steps: int | None = None
    """Environment steps; by default the preset's."""
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
    """Folder of the run; by default runs/<task>-<agent>-<seed>, of several seeds runs/<task>-<agent>."""
    json: bool = False
    """Print the result for machines."""

    def run(self, command: str) -> int:
        """Train."""
        at_least(1, steps=self.steps, budget=self.budget, seeds=self.seeds, jobs=self.jobs)
        at_least(0, seed=self.seed, clips=self.clips)
        preset = self._preset()
        from prefenvs.agents.train import Run, train, train_side_by_side

        runs = {
            f"seed-{seed}": Run(preset, seed, self.oracle, self.teacher, self.budget, self.device, self.reward_metrics)
            for seed in range(self.seed, self.seed + self.seeds)
        }
        name, shown = f"{preset.task}-{preset.agent}", sys.stderr.isatty()
        if self.seeds > 1:
            out = self.out or Path("runs") / name
            outcome = train_side_by_side(
                runs, out, command=command, workers=self.jobs, progress=shown, clips=self.clips
            )
            return self._print_seeds(outcome, out)
        out = self.out or Path("runs") / f"{name}-{self.seed}"
        result = train(runs[f"seed-{self.seed}"], out, command=command, progress=shown, clips=self.clips)
        print(json.dumps(result, indent=1) if self.json else f"{_score(result)}; {out}")
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

    def _preset(self) -> Preset:
        """The preset that is named, or that of the task, with the changes asked for."""
        from prefenvs.agents import AGENTS
        from prefenvs.agents.presets import PRESETS, default_agent, default_preset, has_discrete_actions
        from prefenvs.agents.train import BASELINES

        if self.preset is not None and self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        task = task_name(self.env) if self.env else None
        if self.preset is None and task is None:
            raise ValueError("give --env or --preset; `prefenvs list tasks` and `prefenvs list presets` name them.")
        if self.agent is not None and self.agent not in (*AGENTS, *BASELINES):
            raise unknown_name("agent", self.agent, (*AGENTS, *BASELINES))
        if self.preset is not None:
            preset = PRESETS[self.preset]
            kinds = {"pebble": "off-policy", "sac": "off-policy", "prefppo": "on-policy", "ppo": "on-policy"}
            mine, its = kinds.get(self.agent or preset.agent), kinds.get(preset.agent)
            if mine != its:
                raise ValueError(
                    f"preset {self.preset!r} has the settings of {preset.agent} ({its}), --agent {self.agent} needs "
                    f"others. Leave --preset out: prefenvs train --env {preset.task} --agent {self.agent}."
                )
        else:
            preset = default_preset(str(task), self.agent or default_agent(str(task)))
        changes: dict[str, Any] = {"task": task, "agent": self.agent, "total_steps": self.steps}
        preset = dataclasses.replace(preset, **{key: value for key, value in changes.items() if value is not None})
        if preset.agent in ("pebble", "sac") and has_discrete_actions(preset.task):
            other = {"pebble": "prefppo", "sac": "ppo"}[preset.agent]
            raise ValueError(
                f"{preset.agent} acts in continuous spaces only, {preset.task} is not. Use --agent {other}."
            )
        return preset


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

        at_least(1, episodes=self.episodes)
        if (self.env is None) == (self.run_folder is None):
            raise ValueError("give one of --env (random play) and --run-folder (its agent).")
        from prefenvs.agents.evaluation import evaluate

        policy = None
        task = task_name(self.env) if self.env else ""
        if self.run_folder is not None:
            from prefenvs.agents.train import read_config

            config = read_config(self.run_folder)
            task = config["task"]
            policy = _load_agent(config["agent"], self.run_folder / "agent.zip", task)
        found = evaluate(policy, TASKS[task].id, self.episodes)
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
        from prefenvs.report import write_report

        print(write_report(*self.runs))
        return 0


@dataclass
class Demo:
    """Learn HalfCheetah from preferences in minutes; end with a table and a report."""

    full: bool = False
    """Also train SAC on the true reward, in place of the recorded figure."""
    seed: int = 0
    """Seed of everything random."""
    steps: int | None = None
    """Environment steps, to try it out faster."""
    out: Path = Path("runs/demo")
    """Folder of the runs."""

    def run(self, command: str) -> int:
        """Train and report."""
        at_least(1, steps=self.steps)
        at_least(0, seed=self.seed)
        from prefenvs.agents.demo import run_demo

        return run_demo(self.out, self.seed, steps=self.steps, full=self.full, command=command)


@dataclass
class Experts:
    """List the values that regret is measured against, or train them: a policy on the true reward and its values."""

    action: tyro.conf.Positional[Literal["list", "train"]] = "list"
    """list what is shipped, or train."""
    env: str | None = None
    """Task to train on: an id such as prefenvs/Pendulum-v0, or its name."""
    steps: int | None = None
    """Environment steps; by default those of the task's settings."""
    seed: int = 0
    """Seed of everything random."""
    policy: Path | None = None
    """File of values whose policy to keep: none is trained, its values are learned anew."""
    out: Path | None = None
    """File to write; by default <task>.safetensors. Use it as oracle={"name": "regret", "values": FILE}."""
    json: bool = False
    """Print for machines."""

    def run(self, command: str) -> int:
        """List or train."""
        if self.action == "list":
            from prefenvs.oracles import NetworkValues, expert_values, shipped_experts

            known = {task: expert_values(task) for task in shipped_experts()}
            self._show({task: dict(v.facts) for task, v in known.items() if isinstance(v, NetworkValues)})
            return 0
        at_least(1, steps=self.steps)
        at_least(0, seed=self.seed)
        if self.env is None:
            raise ValueError("give --env, the task to train on; `prefenvs list tasks` names them.")
        from prefenvs.agents.experts import train_expert
        from prefenvs.oracles import load_values

        task = task_name(self.env)
        out = self.out or Path(f"{task}.safetensors")
        progress = sys.stderr.isatty()
        policy = None if self.policy is None else load_values(self.policy)
        values = train_expert(task, steps=self.steps, seed=self.seed, policy=policy, command=command, progress=progress)
        values.save(out)
        self._show({task: dict(values.facts)})
        print(f"wrote {out}", file=sys.stderr)
        return 0

    def _show(self, rows: dict[str, dict[str, Any]]) -> None:
        if self.json:
            print(json.dumps(rows, indent=1))
            return
        for task, facts in rows.items():
            reference = facts["reference_score"]
            print(
                f"{task:24}true return {facts['score']:9.1f} +- {facts['score_sd']:.1f}"
                + (f", reference {reference:.1f}" if reference is not None else "")
                + f"  gamma {facts['gamma']:g}  {facts['steps']:,} steps"
                + f"  rank correlation of regret {facts['fit']['rank_correlation']:.2f}"
            )


@dataclass
class Study:
    """Measure a paper's claim; exits 0 if it holds, 1 otherwise. The same command again resumes."""

    name: tyro.conf.Positional[str]
    """A study, see `prefenvs list studies`, or all."""
    scale: str = "smoke"
    """smoke, which shows in seconds that it runs, or full."""
    seeds: int | None = None
    """Number of seeds; by default the study's own."""
    jobs: int = 1
    """Processes at a time."""
    out: Path = Path("runs/studies")
    """Folder of the runs."""
    record: bool = False
    """Keep the result in docs/results/studies and make its page; full scale only."""
    json: bool = False
    """Print the results for machines."""

    def run(self, command: str) -> int:
        """Run, judge and show."""
        from prefenvs.studies import STUDIES
        from prefenvs.studies._show import run_studies

        names = list(STUDIES) if self.name == "all" else [self.name]
        return run_studies(names, self, command, progress=sys.stderr.isatty())


VERBS = {
    "list": List,
    "train": Train,
    "eval": Eval,
    "experts": Experts,
    "report": Report,
    "demo": Demo,
    "study": Study,
}


def at_least(least: int, **flags: int | None) -> None:
    """Check numbers given as flags; None was not given.

    Raises:
        ValueError: naming the flag that is too small.
    """
    for name, value in flags.items():
        if value is not None and value < least:
            raise ValueError(f"--{name} {value} is too small, expected {least} or more.")


def task_name(env: str) -> str:
    """The name of a task from its id or name.

    Raises:
        ValueError: with the nearest known name.
    """
    from prefenvs.tasks import TASKS

    name = env.removeprefix("prefenvs/")
    for spec in TASKS.values():
        if env in (spec.id, spec.name) or name == spec.id.removeprefix("prefenvs/"):
            return spec.name
    raise unknown_name("env", name.split("-v")[0], TASKS)


def _score(result: Mapping[str, Any]) -> str:
    return f"true return {result['final']:.1f} +- {result['sd']:.1f} over {result['episodes']} episodes"


def _load_agent(agent: str, path: Path, task: str) -> Any:
    import gymnasium as gym

    from prefenvs.agents import PEBBLE, PrefPPO
    from prefenvs.tasks import TASKS

    loaders: dict[str, Any] = {"pebble": PEBBLE, "prefppo": PrefPPO}
    if agent not in loaders:
        raise unknown_name("agent", agent, loaders, "Agents on the true reward are not kept.")
    if not path.is_file():
        raise ValueError(f"there is no {path}: the run has not finished. Go on with its own command, then score it.")
    return loaders[agent].load(path, gym.make(TASKS[task].id))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; exits 0 when done, 1 when it failed, 2 on bad usage."""
    if (renderer := offscreen_renderer()) is not None:
        os.environ["MUJOCO_GL"] = renderer
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(["prefenvs", *given])
    verb = tyro.extras.subcommand_cli_from_dict(
        {name: _identity(cls) for name, cls in VERBS.items()}, args=given, prog="prefenvs", description=__doc__
    )
    try:
        sys.exit(verb.run(command))
    except (ValueError, TypeError) as error:
        print(f"prefenvs: {error}", file=sys.stderr)
        sys.exit(2)
    except (PrefenvsError, ImportError, OSError) as error:
        print(f"prefenvs: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stopped:
        kept = f" {stopped}" if str(stopped) else ""
        print(f"\nstopped.{kept} Resume with the same command: {command}", file=sys.stderr)
        sys.exit(130)


def offscreen_renderer() -> str | None:
    """The MUJOCO_GL that draws without a screen here; None where that is decided already or nothing can draw."""
    if sys.platform != "linux" or os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return None
    libraries = {"osmesa": "OSMesa", "egl": "EGL"}  # egl may be there and still find no device
    return next((name for name, library in libraries.items() if ctypes.util.find_library(library)), None)


def _identity(cls: Any) -> Any:
    return cls


if __name__ == "__main__":
    main()
