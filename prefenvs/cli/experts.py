"""`prefenvs experts`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from prefenvs.cli.checks import at_least, task_name, usage


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
        with usage():
            at_least(1, steps=self.steps)
            at_least(0, seed=self.seed)
            if self.env is None:
                raise ValueError("give --env, the task to train on; `prefenvs list tasks` names them.")
            from prefenvs.agents.experts import check_task, train_expert
            from prefenvs.oracles import load_values

            task = task_name(self.env)
            policy = None if self.policy is None else load_values(self.policy)
            check_task(task, policy)
        out = self.out or Path(f"{task}.safetensors")
        progress = sys.stderr.isatty()
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
