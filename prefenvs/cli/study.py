"""`prefenvs study`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from prefenvs.cli.checks import at_least, usage


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
        from prefenvs.studies._run import seeds_of
        from prefenvs.studies._show import run_studies
        from prefenvs.studies._study import statement

        names = list(STUDIES) if self.name == "all" else [self.name]
        with usage():
            at_least(1, jobs=self.jobs)
            for name in names:
                seeds_of(statement(name), self.scale, self.seeds)
        return run_studies(names, self, command, progress=sys.stderr.isatty())
