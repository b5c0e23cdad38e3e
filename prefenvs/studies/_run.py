"""Runs a study: one job for each arm and seed, then the verdict."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import prefenvs
from prefenvs._worker import write_atomically
from prefenvs.error import PrefenvsError, unknown_name
from prefenvs.runs import Job, execute, versions
from prefenvs.studies._check import Estimate, Paper, Tables, Verdict
from prefenvs.studies._history import commit_that_fixed, head, is_clean
from prefenvs.studies._study import SCALES, Statement, load, making_hash, statement
from prefenvs.studies._tables import means

ON_TOP = ("bench", "cli", "studies", "web")
"""What the rest of the package never imports."""
MAKES_NUMBERS = (".json", ".py", ".safetensors")
"""Files of the package that its numbers come from: scores and values are shipped."""


class JobsFailed(PrefenvsError):
    """Jobs of a study failed, so there is no verdict. Those that finished are kept."""


def job(*, folder: Path, module: str, arm: str, seed: int, scale: str) -> list[dict[str, Any]]:
    """What a worker calls: the table of one arm and seed. Its CPU seconds are left beside it."""
    begin = time.process_time()
    table = importlib.import_module(module).run(arm, seed, scale)
    (folder / "seconds.json").write_text(json.dumps(time.process_time() - begin), encoding="utf-8")
    return [dict(row) for row in table]


def conduct(
    name: str,
    scale: str,
    out: Path,
    *,
    seeds: int | None = None,
    jobs: int = 1,
    command: str = "",
    progress: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Run what has not been run of a study, judge it, and write `result.json`.

    The folder's name holds a hash of the code and shipped values that make the tables, so that tables of others are
    never taken for this one's; the functions that read the tables may change.

    Args:
        name: of the study, as on the command line.
        scale: "smoke" or "full".
        out: folder of folders of studies.
        seeds: number of seeds; the study's own by default.
        jobs: worker processes.
        command: what was typed, for the record.
        progress: show a bar.

    Returns:
        Its folder, and the result.

    Raises:
        ValueError: for unknown names and numbers that cannot be.
        JobsFailed: if there is no verdict because jobs failed.
    """
    study = statement(name)
    chosen = seeds_of(study, scale, seeds)
    module = load(name)
    arms = tuple(module.arms(scale))
    folder = Path(out) / name / f"{scale}-{code_hash(study)[:12]}"
    plan = {
        (arm, seed): Job(
            f"{place}-{re.sub(r'[^A-Za-z0-9._=+-]+', '_', arm)}-{seed}",
            "prefenvs.studies._run:job",
            {"module": study.module, "arm": arm, "seed": seed, "scale": scale},
        )
        for place, arm in enumerate(arms)
        for seed in chosen
    }
    begun = _begin(folder, study)
    outcome = execute(list(plan.values()), folder, workers=jobs, progress=progress)
    if outcome.failures:
        key, error = next(iter(outcome.failures.items()))
        raise JobsFailed(
            f"study {name}: {len(outcome.failures)} of {len(plan)} jobs failed, so there is no verdict. The first, "
            f"{key}: {error.strip().splitlines()[-1]} (all of it in {folder / key / 'error.txt'}). The same command "
            "runs the failed jobs again and keeps the others."
        )
    tables = {arm: {seed: outcome.tables[plan[arm, seed].key] for seed in chosen} for arm in arms}
    verdict = module.check(tables)
    result = {
        "study": name,
        "scale": scale,
        "paper": asdict(study.paper),
        "claim": study.claim,
        "protocol": study.protocol,
        "margin": study.margin,
        "parts": study.parts,
        "tests": study.tests,
        "arms": arms,
        "seeds": chosen,
        "fixed": {"hash": study.fixed, "commit": begun["fixed"]},
        "verdict": asdict(verdict),
        "summary": summary(module, tables),
        "command": command,
        "commit": begun["commit"],
        "versions": begun["versions"],
        "cpu_seconds": round(sum(json.loads((folder / j.key / "seconds.json").read_text()) for j in plan.values()), 1),
        "tables": {arm: {str(seed): packed(table) for seed, table in seeds.items()} for arm, seeds in tables.items()},
    }
    write_atomically(folder / "result.json", dump(result))
    return folder, json.loads(dump(result))


def seeds_of(study: Statement, scale: str, count: int | None) -> tuple[int, ...]:
    """The first seeds of a scale; more than it has go on from its last.

    Raises:
        ValueError: for an unknown scale, or a count below 1.
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    own = study.seeds[scale]
    if count is None:
        return own
    if count < 1:
        raise ValueError(f"seeds={count}, expected 1 or more.")
    return (*own, *range(own[-1] + 1, own[-1] + 1 + count))[:count]


def code_hash(study: Statement) -> str:
    """A hash of what makes a study's tables: the study, and the package but for `ON_TOP`."""
    digest = hashlib.sha256(making_hash(study.source).encode())
    package = Path(prefenvs.__file__).resolve().parent
    for root in (package, package / "agents", package / "tasks"):  # links, which a walk does not follow
        for path in sorted(root.resolve().rglob("*.*")):
            inside = path.relative_to(root.resolve())
            if path.suffix in MAKES_NUMBERS and (root != package or inside.parts[0] not in ON_TOP):
                digest.update(f"{root.name}/{inside.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def packed(table: list[dict[str, Any]]) -> dict[str, Any]:
    """A table as columns' names and rows of values, which is shorter."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    if any(list(row) != columns for row in table):
        return {"rows": table}
    return {"columns": columns, "rows": [list(row.values()) for row in table]}


def unpacked(result: Mapping[str, Any]) -> Tables:
    """The tables of a result, by arm and seed."""

    def rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "columns" not in table:
            return table["rows"]
        return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]

    return {arm: {int(s): rows(table) for s, table in seeds.items()} for arm, seeds in result["tables"].items()}


def verdict_of(result: Mapping[str, Any]) -> Verdict:
    """The verdict of a result."""
    held = result["verdict"]
    return Verdict(held["outcome"], tuple(Estimate(**estimate) for estimate in held["estimates"]), held["note"])


def paper_of(result: Mapping[str, Any]) -> Paper:
    """The paper of a result."""
    return Paper(**result["paper"])


def summary(module: Any, tables: Tables) -> list[dict[str, Any]]:
    """The table of the page: the study's own, or means over rows and seeds, a row an arm."""
    own = module.summary if hasattr(module, "summary") else means()
    return [dict(row) for row in own(tables)]


def dump(result: Mapping[str, Any]) -> str:
    """JSON, indented, with a line for each row of a table."""
    rest = {key: value for key, value in result.items() if key != "tables"}
    arms = [
        f"  {json.dumps(arm)}: {{\n"
        + ",\n".join(f"   {json.dumps(str(seed))}: {_lines(table)}" for seed, table in seeds.items())
        + "\n  }"
        for arm, seeds in result["tables"].items()
    ]
    return json.dumps(rest, indent=1)[:-2] + ',\n "tables": {\n' + ",\n".join(arms) + "\n }\n}\n"


def _lines(table: Mapping[str, Any]) -> str:
    columns = f'"columns": {json.dumps(table["columns"])}, ' if "columns" in table else ""
    rows = ",\n".join(f"    {json.dumps(row)}" for row in table["rows"])
    return f'{{{columns}"rows": [\n{rows}\n   ]}}'


def _begin(folder: Path, study: Statement) -> dict[str, Any]:
    """When a folder is new, note at which commit it was begun, and whether its claim was committed by then."""
    path = folder / "begun.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        noted = {"fixed": commit_that_fixed(study), "commit": head(), "clean": is_clean(), "versions": versions()}
        write_atomically(path, json.dumps(noted, indent=1))
    return json.loads(path.read_text(encoding="utf-8"))
