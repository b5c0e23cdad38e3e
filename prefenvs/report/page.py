"""The page: a sentence, a table, the curve, what the labels were and how well they were learned, and the settings."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from prefenvs.report.charts import Level, Series, line_chart, number, percent
from prefenvs.report.clips import show_clips
from prefenvs.report.read import (
    ON_TRUE_REWARD,
    Arm,
    RunFolder,
    Table,
    as_number,
    bootstrap_interval,
    common_curve,
    group_arms,
    read_runs,
)
from prefenvs.report.summary import References, evaluations, final_score, headline, mean_of, references_of

NOT_RECORDED = "not recorded"


def write_report(*folders: Path | str, out: Path | None = None) -> Path:
    """Write one self-contained HTML page about runs of one task: seeds of an agent, several agents, or both.

    Args:
        *folders: run folders, as `prefenvs train` writes them.
        out: the page's file; by default `report.html` in the first folder.

    Returns:
        The page's path.

    Raises:
        ValueError: if no folder is given, one is no run folder, or they do not belong together.
        DamagedFile: if a file in a folder cannot be read in full.
    """
    return write_page(read_runs(folders), out)


def write_page(runs: Sequence[RunFolder], out: Path | None = None) -> Path:
    """As `write_report`, of runs that `read_runs` gave."""
    arms = group_arms(runs)
    references = references_of(arms)
    task = str(runs[0].config["task"])
    sections = [
        f'<p class="headline">{escape(headline(arms, references))}</p>',
        _results(arms, references),
        _curve(arms, references),
        *(_labels(arm, i) + _accuracy(arm, i) for i, arm in enumerate(arms) if not arm.on_true_reward),
        _clips(arms),
        _each_run(runs),
        _settings(runs),
    ]
    template = Template(files("prefenvs.report").joinpath("page.html").read_text(encoding="utf-8"))
    titles = " and ".join(dict.fromkeys(arm.title for arm in arms))
    page = template.substitute(title=escape(f"{task}: {titles}"), body="\n".join(sections))
    path = out or runs[0].folder / "report.html"
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)
    return path


def _results(arms: Sequence[Arm], references: References) -> str:
    rows = [[references.random_label, number(references.random), "", "", "", "", ""]]
    for arm in arms:
        score = final_score(arm)
        spread = NOT_RECORDED
        if math.isfinite(score.low):
            spread = f"{number(score.low)} to {number(score.high)} ({score.spread})"
        labels = accuracy = held_out = ""
        if not arm.on_true_reward:
            asked, answered = mean_of(arm, "asked"), mean_of(arm, "answered")
            labels = f"{number(answered)} of {number(asked)}" if math.isfinite(asked) else NOT_RECORDED
            accuracy, held_out = percent(mean_of(arm, "accuracy")), percent(mean_of(arm, "held_out_accuracy"))
        rows.append([arm.label, number(score.mean), spread, str(len(arm.runs)), labels, accuracy, held_out])
    if math.isfinite(references.true_reward) and not any(arm.on_true_reward for arm in arms):
        rows.append([references.true_reward_label, number(references.true_reward), "", "", "", "", ""])
    header = ["", "true return", "interval", "runs", "labels answered of asked", "accuracy, training", "held out"]
    return f"<h2>Result</h2>{_table(header, rows, _how_scored(arms))}"


def _how_scored(arms: Sequence[Arm]) -> str:
    results = [run.result for arm in arms for run in arm.runs if run.result is not None]
    if not results:
        return "No run has finished: no final score is recorded."
    text = []
    for r in results:
        drawn = "deterministic" if r.get("deterministic") else "sampled"
        model = "last model" if r.get("selected") == "last" else f"model {r.get('selected', 'not stated')}"
        door = r.get("door", "unstated")
        text.append(f"{r.get('episodes', 'unknown number of')} {drawn} episodes a run, {door} door, {model}")
    return f"True return an episode, in units of reward: {'; '.join(dict.fromkeys(text))}."


def learning_curve(arm: Arm) -> tuple[Series, str] | None:
    """True return against steps, and what the band is; None if nothing was evaluated."""
    tables = evaluations(arm)
    if not tables:
        return None
    steps, values = common_curve(tables, "true_return")
    mean = values.mean(0)
    if len(tables) == 1:
        sd, episodes = tables[0]["sd"], tables[0]["episodes"].max()
        band = f"one run, band \N{PLUS-MINUS SIGN} sd between {episodes:.0f} episodes"
        return Series(arm.label, steps, mean, mean - sd, mean + sd), band
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    band = f"mean of {len(tables)} seeds, band 95% bootstrap interval of the mean"
    if any(not np.array_equal(table["step"], steps) for table in tables):
        band += ", up to the step that all have reached"
    return Series(arm.label, steps, mean, low, high), band


def _curve(arms: Sequence[Arm], references: References) -> str:
    title = "<h2>True return while learning</h2>"
    found = [(arm, curve) for arm in arms if (curve := learning_curve(arm)) is not None and len(curve[0].x)]
    missing = [arm.label for arm in arms if arm not in [a for a, _ in found]]
    note = f'<p class="quiet">Curve {NOT_RECORDED}: {escape(", ".join(missing))}.</p>' if missing else ""
    if not found:
        return title + note
    series = [Series(f"{s.label}: {band}", s.x, s.y, s.low, s.high) for _, (s, band) in found]
    levels = [
        Level(label, value)
        for label, value in (
            (references.random_label, references.random),
            (references.true_reward_label, references.true_reward),
        )
        if math.isfinite(value)
    ]
    ends = "; ".join(
        f"{s.label} goes from {number(s.y[0])} at step {s.x[0]:,.0f} to {number(s.y[-1])} at step {s.x[-1]:,.0f}"
        for _, (s, _) in found
    )
    unit = _unit([arm for arm, _ in found])
    chart = line_chart(
        series,
        levels,
        name="curve",
        description=f"True return an episode against {unit}. {ends}."
        + "".join(f" {level.label}: {number(level.y)}." for level in levels),
        x_label=unit,
        y_label="true return (reward an episode)",
    )
    header = ["step", *(f"{s.label}, {edge}" for _, (s, _) in found for edge in ("mean", "low", "high"))]
    rows = _merge([s for _, (s, _) in found])
    shown = "Evaluated through the evaluation door; the learner never saw these numbers."
    return f"{title}{_figure(chart, shown, _table(header, rows))}{note}"


def _merge(series: Sequence[Series]) -> list[list[str]]:
    steps = sorted({float(x) for s in series for x in s.x})
    rows = []
    for step in steps:
        row = [f"{step:,.0f}"]
        for s in series:
            at = np.flatnonzero(s.x == step)
            edges = (s.y, s.low, s.high)
            row += [number(float(edge[at[0]])) if edge is not None and len(at) else "" for edge in edges]
        rows.append(row)
    return rows


def _sessions(arm: Arm) -> list[Table]:
    return [run.sessions for run in arm.runs if run.sessions is not None and len(run.sessions["step"])]


def _labels(arm: Arm, i: int) -> str:
    title = f"<h2>Labels: {escape(arm.label)}</h2>"
    tables = _sessions(arm)
    if not tables:
        return f'{title}<p class="quiet">Sessions {NOT_RECORDED} (a run writes them when it ends).</p>'
    steps, asked = common_curve(tables, "asked")
    _, answered = common_curve(tables, "answered")
    series = [Series("asked", steps, asked.mean(0)), Series("answered (not skipped)", steps, answered.mean(0))]
    total = f"{number(series[0].y[-1])} labels asked and {number(series[1].y[-1])} answered" if len(steps) else ""
    chart = line_chart(
        series,
        name=f"labels-{i}",
        description=f"Labels asked and answered, added up over {len(steps)} feedback sessions. In the end {total}.",
        x_label=_unit([arm]),
        y_label="labels so far (queries)",
        x_range=_whole_run(arm),
        y_range=(0.0, 1.05 * max(float(asked.max(initial=0.0)), 1.0)),
    )
    each = [np.diff(s.y, prepend=0.0) for s in series]
    rows = [
        [str(n + 1), f"{steps[n]:,.0f}", *(number(values[n]) for values in (*each, series[0].y, series[1].y))]
        for n in range(len(steps))
    ]
    header = ["session", "step", "asked", "answered", "asked so far", "answered so far"]
    caption = (
        f"One dot a feedback session{_averaged(tables)}. Skipped queries are asked, not answered, and cost budget."
    )
    return title + _figure(chart, caption, _table(header, rows))


def _accuracy(arm: Arm, i: int) -> str:
    title = f"<h2>Reward-model accuracy: {escape(arm.label)}</h2>"
    tables = _sessions(arm)
    curves = [(name, *common_curve(tables, name)) for name in ("accuracy", "held_out_accuracy") if tables]
    if not any(np.isfinite(values).any() for _, _, values in curves):
        return f'{title}<p class="quiet">Accuracy {NOT_RECORDED}.</p>'
    labels = {"accuracy": "labels it was trained on", "held_out_accuracy": "held-out labels"}
    series = [Series(labels[name], steps, values.mean(0)) for name, steps, values in curves]
    last = [f"{percent(float(s.y[-1]))} of {s.label}" for s in series if np.isfinite(s.y[-1])]
    chart = line_chart(
        series,
        [Level("chance, two segments a query", 0.5)],
        name=f"accuracy-{i}",
        description=f"Share of labels that the reward model predicts, after each session. At the last session "
        f"{' and '.join(last) or NOT_RECORDED}.",
        x_label=_unit([arm]),
        y_label="accuracy (% of labels)",
        x_range=_whole_run(arm),
        y_range=(0.0, 1.0),
        y_text=percent,
    )
    rows = [
        [str(n + 1), f"{series[0].x[n]:,.0f}", *(percent(float(s.y[n])) for s in series)]
        for n in range(len(series[0].x))
    ]
    caption = f"After each feedback session{_averaged(tables)}. Held-out labels were not trained on."
    return title + _figure(chart, caption, _table(["session", "step", *(s.label for s in series)], rows))


def _unit(arms: Sequence[Arm]) -> str:
    """What steps count, as the runs that have finished say."""
    results = [run.result for arm in arms for run in arm.runs if run.result is not None]
    return " or ".join(dict.fromkeys(str(result.get("unit", "environment steps")) for result in results)) or "steps"


def _whole_run(arm: Arm) -> tuple[float, float]:
    """The horizontal axis from the first step to the last planned or seen one."""
    seen = [float(table["step"][-1]) for table in (*evaluations(arm), *_sessions(arm))]
    planned = as_number(arm.config["total_steps"])
    return 0.0, max([1.0, *seen, *([planned] if math.isfinite(planned) else [])])


def _averaged(tables: Sequence[Table]) -> str:
    return f", mean of {len(tables)} seeds" if len(tables) > 1 else ""


def _clips(arms: Sequence[Arm]) -> str:
    shown = []
    for arm in arms:
        pages = ((run, show_clips(run.folder / "clips")) for run in arm.runs)
        first = next(((run, clips) for run, clips in pages if clips), None)
        if first is not None:
            shown.append(f"<p>{escape(arm.label)}, seed {escape(str(first[0].config['seed']))}:</p>{first[1]}")
    missing = f'<p class="quiet">Clips {NOT_RECORDED}.</p>'
    return f"<h2>What the teacher was shown</h2>{''.join(shown) or missing}"


def _each_run(runs: Sequence[RunFolder]) -> str:
    rows = []
    for run in runs:
        labels = ["", "", ""]
        if run.config["agent"] not in ON_TRUE_REWARD:
            labels = [
                number(run.value("asked")),
                number(run.value("answered")),
                percent(run.value("held_out_accuracy")),
            ]
        scores = [number(run.value("final")), number(run.value("sd"))]
        duration = run.value("seconds")
        minutes = f"{duration / 60:.1f}" if math.isfinite(duration) else NOT_RECORDED
        rows.append([str(run.config["agent"]), str(run.config["seed"]), *scores, *labels, minutes])
    header = ["agent", "seed", "true return", "sd of episodes", "asked", "answered", "held-out accuracy", "minutes"]
    return f"<h2>Each run</h2>{_table(header, rows)}"


def _settings(runs: Sequence[RunFolder]) -> str:
    parts = ["<h2>To repeat it</h2>"]
    for run in runs:
        config = dict(run.config)
        command, versions = config.pop("command", None) or NOT_RECORDED, config.pop("versions", None)
        parts.append(
            f"<details><summary>{escape(str(config['agent']))}, seed {escape(str(config['seed']))}: command, settings "
            f"and versions</summary><p>Command</p>{_code(str(command))}<p>Settings</p>{_code(_json(config))}"
            f"<p>Versions</p>{_code(_json(versions) if versions else NOT_RECORDED)}"
            f'<p class="quiet">Folder {escape(str(run.folder))}</p></details>'
        )
    return "".join(parts)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def _figure(chart: str, caption: str, table: str) -> str:
    numbers = f"<details><summary>The numbers</summary>{table}</details>"
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption>{numbers}</figure>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    top = f'<p class="quiet">{escape(caption)}</p>' if caption else ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'{top}<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
