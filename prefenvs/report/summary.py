"""What a report says first: final scores, what they are compared with, and the sentence that sums it up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefenvs.report.charts import number, percent
from prefenvs.report.read import Arm, Table, as_number, bootstrap_interval


@dataclass(frozen=True)
class Score:
    """The true return of an arm at the end, or of something to compare with."""

    mean: float
    low: float
    high: float
    spread: str
    """What the interval from `low` to `high` is."""


@dataclass(frozen=True)
class References:
    """What the arms are compared with. nan where it is not recorded."""

    random: float
    random_label: str
    true_reward: float
    true_reward_label: str


def final_score(arm: Arm) -> Score:
    """The true return of an arm's last models: over seeds where it has several, else over one run's episodes."""
    finals = np.array([run.value("final") for run in arm.runs])
    finals = finals[np.isfinite(finals)]
    if len(finals) > 1:
        low, high = bootstrap_interval(finals[:, None], np.random.default_rng(0))
        return Score(float(finals.mean()), float(low[0]), float(high[0]), f"95% over {len(finals)} seeds")
    if len(finals) == 1:
        sd = next(run.value("sd") for run in arm.runs if math.isfinite(run.value("final")))
        return Score(
            float(finals[0]), float(finals[0] - sd), float(finals[0] + sd), "\N{PLUS-MINUS SIGN} sd of episodes"
        )
    return Score(math.nan, math.nan, math.nan, "")


def headline(arms: Sequence[Arm], references: References) -> str:
    """What was learned, in a sentence or two."""
    arm = arms[0]
    score, task, title = final_score(arm), arm.config["task"], arm.title
    if not math.isfinite(score.mean):
        at = max((float(table["step"][-1]) for table in evaluations(arm)), default=math.nan)
        seen = f"The last evaluation was at step {at:,.0f}" if math.isfinite(at) else "Nothing was evaluated"
        return f"{title} on {task} is not finished. {seen} of {as_number(arm.config['total_steps']):,.0f}."
    answered = np.mean([run.value("answered") for run in arm.runs])
    source = "the true reward" if arm.on_true_reward else "preferences"
    if math.isfinite(answered):
        source = f"{number(float(answered))} answered labels" + (" a run" if len(arm.runs) > 1 else "")
    verdict = f"{title} trained on {task} from {source}"
    if math.isfinite(references.random):
        beaten = _lower_end(arm, score) > references.random
        did = "learned" if beaten else "did not clearly beat random play on"
        verdict = f"{title} {did} {task} from {source}"
    text = f"{verdict}: true return {number(score.mean)} an episode"
    if math.isfinite(references.random):
        text += f", random play {number(references.random)}"
    text += "."
    if not arm.on_true_reward and math.isfinite(references.true_reward):
        text += f" {references.true_reward_label} reaches {number(references.true_reward)}"
        share = _share(score.mean, references)
        text += f"; that is {percent(share)} of the way from random play to it." if math.isfinite(share) else "."
    return text


def _lower_end(arm: Arm, score: Score) -> float:
    """A mean's 95% lower end: over seeds, or over the episodes of a single run."""
    if len(arm.runs) > 1 or not math.isfinite(score.low):
        return score.low if math.isfinite(score.low) else score.mean
    episodes = arm.runs[0].value("episodes")
    sd = score.mean - score.low
    return score.mean - 1.96 * sd / math.sqrt(episodes) if episodes > 0 else score.low


def _share(mean: float, references: References) -> float:
    """(preference - random) / (true reward - random), nan unless the true reward beats random play."""
    span = references.true_reward - references.random
    return (mean - references.random) / span if span > 0 else math.nan


def references_of(arms: Sequence[Arm]) -> References:
    """What the runs recorded to compare with, else what the task knows."""
    runs = [run for arm in arms for run in arm.runs]
    randoms = [value for run in runs if math.isfinite(value := run.value("random"))]
    random, random_label = (randoms[0], "random play") if randoms else (math.nan, "random play")
    if not randoms:
        from prefenvs.tasks import TASKS

        spec = TASKS.get(str(arms[0].config["task"]))
        if spec is not None and spec.random_score is not None:
            random, random_label = spec.random_score.mean, "random play (measured with the task)"
    trained = [arm for arm in arms if arm.on_true_reward and math.isfinite(final_score(arm).mean)]
    if trained:
        return References(random, random_label, final_score(trained[0]).mean, f"{trained[0].title} on the true reward")
    for run in runs:
        known = (run.result or {}).get("true_reward")
        if isinstance(known, dict) and math.isfinite(as_number(known.get("score"))):
            kind = " (recorded earlier, not in this run)" if known.get("recorded") else ""
            return References(random, random_label, as_number(known["score"]), f"Learning on the true reward{kind}")
    return References(random, random_label, math.nan, "")


def mean_of(arm: Arm, name: str) -> float:
    """A number of the result, averaged over the runs that recorded it; nan if none did."""
    values = np.array([run.value(name) for run in arm.runs])
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else math.nan


def evaluations(arm: Arm) -> list[Table]:
    """The curves of the runs that have been evaluated."""
    return [run.evaluations for run in arm.runs if run.evaluations is not None and len(run.evaluations["step"])]
