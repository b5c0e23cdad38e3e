"""What a report reads: run folders, checked, and grouped into arms."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefenvs.error import DamagedFile

Table = dict[str, np.ndarray]
"""Columns by name, (rows,) each."""

EVALUATIONS = ("step", "true_return", "sd", "episodes")
SESSIONS = ("step", "asked", "answered", "loss", "accuracy", "held_out_accuracy", "epochs")
MAY_BE_NAN = frozenset({"loss", "accuracy", "held_out_accuracy", "epochs"})

ON_TRUE_REWARD = frozenset({"sac", "ppo"})
"""Agents that learn from the true reward; all others learn from preferences."""
DEFAULT_LOSS = "dpo"
"""The loss of a run of pairs of texts whose config names none."""
TITLES = {"pebble": "PEBBLE", "prefppo": "PrefPPO", "sac": "SAC", "ppo": "PPO"}


@dataclass(frozen=True)
class RunFolder:
    """One run as it lies on disk. None where a file was not written (yet)."""

    folder: Path
    config: dict[str, Any]
    evaluations: Table | None
    sessions: Table | None
    result: dict[str, Any] | None

    def value(self, name: str) -> float:
        """A number of the result, nan where it was not recorded."""
        return as_number((self.result or {}).get(name))


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed only."""

    label: str
    runs: tuple[RunFolder, ...]

    @property
    def config(self) -> dict[str, Any]:
        """The settings its runs share (and the first one's seed)."""
        return self.runs[0].config

    @property
    def title(self) -> str:
        """Name of the agent."""
        return TITLES.get(self.config["agent"], str(self.config["agent"]))

    @property
    def on_true_reward(self) -> bool:
        """Whether it learned from the true reward."""
        return self.config["agent"] in ON_TRUE_REWARD


def as_number(value: Any) -> float:
    """`value` as a float, nan if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def read_run(folder: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        ValueError: if it is not a run folder.
        DamagedFile: if a file in it cannot be read in full.
    """
    if not (folder / "config.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f" It holds run folders, name them: {', '.join(inside)}." if inside else ""
        raise ValueError(
            f"{folder} is not a run folder: it has no config.json. Expected the folder that "
            f"`prefenvs train` printed or was given as --out.{hint}"
        )
    config = read_json(folder / "config.json", dict)
    lacking = [key for key in ("task", "agent", "seed", "total_steps") if key not in config]
    if lacking:
        raise DamagedFile(
            f"{folder / 'config.json'} lacks {', '.join(lacking)}. Expected what `prefenvs train` writes; "
            "train again into another folder."
        )
    result = folder / "result.json"
    return RunFolder(
        folder,
        config,
        read_table(folder / "evaluations.csv", EVALUATIONS),
        read_table(folder / "sessions.csv", SESSIONS),
        read_json(result, dict) if result.exists() else None,
    )


def read_runs(folders: Sequence[Path | str]) -> list[RunFolder]:
    """Read the run folders of a report.

    Raises:
        ValueError: if no folder is given, one is no run folder, or they do not belong together.
        DamagedFile: if a file in a folder cannot be read in full.
    """
    if not folders:
        raise ValueError("no run folder was given, expected at least one: prefenvs report RUN [RUN ...].")
    runs = [read_run(Path(folder)) for folder in folders]
    group_arms(runs)
    return runs


def read_json(path: Path, kind: type) -> Any:
    """The JSON value in `path`, which must be of the given kind (dict or list).

    Raises:
        DamagedFile: if it is not.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFile(
            f"{path} cannot be read as JSON ({error}). Remove it and repeat the run's command, which goes on from its "
            "last checkpoint."
        ) from error
    if not isinstance(value, kind):
        raise DamagedFile(f"{path} holds a JSON {type(value).__name__}, expected a {kind.__name__}.")
    return value


def read_table(path: Path, header: tuple[str, ...]) -> Table | None:
    """The columns of a CSV file of numbers with increasing steps; None if there is no such file.

    Raises:
        DamagedFile: naming the line, and how to mend it.
    """
    if not path.exists():
        return None
    mend = "Mend or remove that line, or remove the file to report without it."
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DamagedFile(f"{path} cannot be read ({error}). Remove it to report without it.") from error
    if not rows or tuple(rows[0]) != header:
        raise DamagedFile(f"{path} line 1: expected the header {','.join(header)}, got {rows[:1]!r}. {mend}")
    values = np.zeros((len(rows) - 1, len(header)))
    for i, row in enumerate(rows[1:]):
        try:
            values[i] = [float(cell) for _, cell in zip(header, row, strict=True)]
        except ValueError as error:
            raise DamagedFile(
                f"{path} line {i + 2}: expected {len(header)} numbers ({','.join(header)}), got {','.join(row)!r}. "
                f"{mend}"
            ) from error
        bad = [name for name, v in zip(header, values[i], strict=True) if not np.isfinite(v) and name not in MAY_BE_NAN]
        if bad:
            raise DamagedFile(f"{path} line {i + 2}: {', '.join(bad)} must be finite, got {','.join(row)!r}. {mend}")
        if i and values[i, 0] <= values[i - 1, 0]:
            raise DamagedFile(f"{path} line {i + 2}: step {row[0]} does not come after {rows[i][0]}. {mend}")
    return dict(zip(header, values.T, strict=True))


def group_arms(runs: Sequence[RunFolder]) -> list[Arm]:
    """Runs by everything but their seed, those on preferences first.

    Raises:
        ValueError: if the runs are of several tasks, or two of an arm have one seed.
    """
    tasks = sorted({str(run.config["task"]) for run in runs})
    if len(tasks) > 1:
        raise ValueError(f"the runs are of {len(tasks)} tasks ({', '.join(tasks)}), expected one. Report each alone.")
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_settings(run.config), sort_keys=True), []).append(run)
    for group in groups.values():
        seen: dict[Any, Path] = {}
        for run in group:
            seed = json.dumps(run.config["seed"])
            if seed in seen:
                raise ValueError(
                    f"{seen[seed]} and {run.folder} are the same settings with the same seed {seed}: an interval over "
                    "them would be too narrow. Name one of them."
                )
            seen[seed] = run.folder
    ordered = sorted(groups.values(), key=lambda group: group[0].config["agent"] in ON_TRUE_REWARD)
    return [Arm(_label(group[0].config, [g[0].config for g in ordered]), tuple(group)) for group in ordered]


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    ignored = {"seed", "command", "versions", "device"}
    if config["agent"] in ON_TRUE_REWARD:
        ignored |= {"oracle", "teacher", "budget"}
    return {key: value for key, value in config.items() if key not in ignored}


def _label(config: dict[str, Any], all_configs: list[dict[str, Any]]) -> str:
    kind = "true reward" if config["agent"] in ON_TRUE_REWARD else "preferences"
    alike = [other for other in all_configs if other["agent"] == config["agent"]]
    differ = [
        f"{key} {config.get(key, DEFAULT_LOSS)}"
        for key in ("loss", "oracle", "teacher", "budget", "total_steps")
        if (key in config or key == "loss") and len({json.dumps(_settings(other).get(key)) for other in alike}) > 1
    ]
    if len(alike) > 1 and not differ:
        differ = [f"settings {alike.index(config) + 1}"]
    return f"{kind} ({', '.join([TITLES.get(config['agent'], str(config['agent'])), *differ])})"


def common_curve(tables: Sequence[Table], column: str) -> tuple[np.ndarray, np.ndarray]:
    """(P,) steps and (seeds, P) values of a column over them.

    Runs with other steps than the first are interpolated linearly at the first one's, within what all have reached.
    """
    steps = tables[0]["step"]
    if all(np.array_equal(table["step"], steps) for table in tables):
        return steps, np.stack([table[column] for table in tables])
    first, last = max(t["step"][0] for t in tables), min(t["step"][-1] for t in tables)
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.stack([np.interp(steps, table["step"], table[column]) for table in tables])


def bootstrap_interval(
    values: np.ndarray, rng: np.random.Generator, level: float = 0.95, resamples: int = 5_000
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of the mean over seeds. With few seeds it is too narrow. Efron 1979.

    Args:
        values: (seeds, P).
        rng: draws the resamples; the same seeds for every point.
        level: of confidence.
        resamples: how many.

    Returns:
        (P,) lower and (P,) upper ends.
    """
    seeds = len(values)
    counts = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples)  # (resamples, seeds)
    means = values[0] + counts @ (values - values[0]) / seeds  # exact where all seeds agree
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
