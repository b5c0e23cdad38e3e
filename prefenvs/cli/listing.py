"""`prefenvs list`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import tyro

from prefenvs.cli.checks import usage
from prefenvs.error import unknown_name

Rows = dict[str, list[str]]
"""Facts by name."""


def tasks() -> Rows:
    """Tasks with horizon, random score, factors and the extra that they need."""
    from prefenvs.tasks import TASKS

    return {
        spec.id: [
            f"horizon {spec.horizon}",
            f"random {spec.random_score.mean:.1f}" if spec.random_score else "",
            ", ".join(spec.factors),
            f"[{spec.extra}]" if spec.extra else "",
        ]
        for spec in TASKS.values()
    }


def oracles() -> Rows:
    """What a person cares about."""
    from prefenvs.oracles import ORACLES

    return _bare(ORACLES)


def teachers() -> Rows:
    """How a person errs."""
    from prefenvs.teacher import TEACHERS

    return _bare(TEACHERS)


def strategies() -> Rows:
    """Ways to choose queries."""
    from prefenvs.queries import STRATEGIES

    return _bare(STRATEGIES)


def metrics() -> Rows:
    """Metrics of a learned reward."""
    from prefenvs.metrics import REWARD_METRICS

    return _bare(REWARD_METRICS)


def agents() -> Rows:
    """Agents with the place of their class."""
    from prefenvs.agents import AGENTS

    return {name: [place] for name, place in AGENTS.items()}


def losses() -> Rows:
    """Losses of pairs of texts, with what they read beside log-probabilities."""
    from prefenvs.agents.text.losses import PAIR_LOSSES
    from prefenvs.agents.text.pair_logps import READS

    return {name: [f"reads {READS[name]}" if name in READS else ""] for name in PAIR_LOSSES}


def presets() -> Rows:
    """Presets with task, agent and length."""
    from prefenvs.agents.presets import PRESETS

    return {name: [p.task, p.agent, f"{p.total_steps:,} steps"] for name, p in PRESETS.items()}


def studies() -> Rows:
    """Studies with their latest verdicts."""
    from prefenvs.studies._pages import board

    return board()


KINDS: dict[str, Callable[[], Rows]] = {
    found.__name__: found for found in (tasks, oracles, teachers, strategies, metrics, agents, losses, presets, studies)
}
"""What can be listed."""


@dataclass
class List:
    """List what can be named: tasks, oracles, teachers, strategies, metrics, agents, losses, presets and studies."""

    what: tyro.conf.Positional[str | None] = None
    """The same as --kind."""
    kind: str = "tasks"
    """tasks, oracles, teachers, strategies, metrics, agents, losses (of pairs of texts), presets or studies (with their
    latest verdicts)."""
    json: bool = False
    """Print for machines."""

    def run(self, command: str) -> int:
        """Print the names."""
        kind = self.what or self.kind
        with usage():
            if kind not in KINDS:
                raise unknown_name("kind", kind, KINDS)
        rows = KINDS[kind]()
        if self.json:
            print(json.dumps(rows, indent=1))
            return 0
        width = max(map(len, rows), default=0)
        for name, facts in rows.items():
            print(f"{name:{width}}  {'  '.join(fact for fact in facts if fact)}".rstrip())
        return 0


def _bare(names: Iterable[str]) -> Rows:
    return {name: [] for name in names}
