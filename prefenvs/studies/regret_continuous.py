"""Labels by regret and by partial return on Pendulum, each learned from by both models.

The claim is ours: the paper has finite problems alone. Labels by regret come from the values shipped with the task. All
arms see the same pairs of segments of 25 steps, played by policies that are best for random rewards, with up to all of
their actions random. The reward is linear in the 14 products of one or two entries of (cosine, sine, speed, torque), of
which the true reward is none but nearly a sum. Input policies of the regret learner are best for random rewards too, so
no learner knows anything of the true one but its labels. `return` is the mean true return of the policy that is best
for what was learned, where random play has 0 and the task's reference score is 1. `starc` and `spearman` compare
learned and true rewards of 1024 steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefenvs
from prefenvs.agents.evaluation import evaluate
from prefenvs.agents.gridded import CHARTS, GridPlanner, GridPolicies, GridPolicy, played_by, task_dynamics
from prefenvs.agents.reward_models import FeatureRegret, FeatureReward, fit_linear, quadratic_features, random_weights
from prefenvs.metrics import REWARD_METRICS, RewardComparison, Transitions
from prefenvs.studies import Paper, Table, Tables, Verdict, curves, decide, lead, means, over_seeds, per_seed
from prefenvs.tasks import TASKS

PAPER = Paper(
    card="25",
    name="regret-continuous",
    title="Models of human preference for learning reward functions",
    authors="Knox et al.",
    year=2022,
    arxiv="2206.02231",
)
CLAIM = (
    "On Pendulum, 30 to 300 labels by regret and a learner by regret give policies of 0.9 of the reference score or "
    "more, and a learner by partial return, on the same labels, gives policies that are worse by 0.1 or more, by 0.3 "
    "or more from 30 labels, where its reward is further from the true one, by 0.1 of STARC's distance. On labels by "
    "partial return the learner by regret is the worse one, by 0.05."
)
MARGIN = {"good": 0.9, "lead": 0.1, "early": 0.3, "starc": 0.1, "matched": 0.05}
PARTS = ("oracle regret", "oracle partial_return", "FeatureRegret", "FeatureReward", "GridPlanner", "Pendulum")
TESTS = (
    "tests/agents/reward_models/test_card25_feature_regret.py",
    "tests/agents/test_gridded.py",
    "tests/prefenvs/studies/test_regret_continuous.py",
)
SEEDS = {"smoke": (0, 1), "full": tuple(range(100, 108))}
LABELS = {"smoke": (10, 30), "full": (30, 100, 300)}
NODES = {"smoke": (17, 17), "full": (41, 41)}
POLICIES, TORQUES, SEGMENT = 20, 5, 25
STREAMS = {"smoke": 5, "full": 40}
"""Episodes that are played."""
FIT_STEPS = {"smoke": 30, "full": 200}
RATE = 0.03
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Sizes in which a random reward is tried as a start: the size says how sure labels are, and does not move policies."""
SHARES = (0.1, 0.3, 0.6, 1.0)
"""Shares of random actions in an episode, each as likely."""
GAMMA = 0.99
TASK = "Pendulum"
MODELS = ("partial_return", "regret")


def arms(scale: str) -> tuple[str, ...]:
    """Labels by one model to a learner by another."""
    return tuple(f"{oracle} to {learner}" for oracle in MODELS for learner in MODELS)


def run(arm: str, seed: int, scale: str) -> Table:
    """A row a number of labels."""
    oracle, learner = arm.split(" to ")
    rng, counts = np.random.default_rng(seed), np.array(LABELS[scale])
    envs = gym.make_vec(TASKS[TASK].id, STREAMS[scale], "sync", oracle=oracle, budget=int(max(counts)))
    space: Any = envs.single_action_space
    features = quadratic_features(envs.single_observation_space, space)
    torques = np.linspace(space.low, space.high, TORQUES)
    chart = replace(CHARTS[TASK], nodes=NODES[scale])
    planner = GridPlanner(chart, task_dynamics(TASK), torques, features, GAMMA)
    rewards = random_weights(POLICIES, len(features), rng)
    rewards /= np.linalg.norm(rewards, axis=1, keepdims=True)
    policies, shares = [GridPolicy(planner, w) for w in rewards[:5]], rng.permutation(np.resize(SHARES, envs.num_envs))
    act = played_by(policies, shares, space, rng)
    store = prefenvs.collect(envs, act, TASKS[TASK].horizon, seed=int(rng.integers(2**31)))
    query = prefenvs.Query(store.sample(2 * max(counts), steps=SEGMENT, rng=rng))
    model = FeatureReward(features, len(counts))
    if learner == "regret":
        starts = np.concatenate([size * rewards for size in SIZES])
        model = FeatureRegret(features, GridPolicies(planner, rewards), len(counts), starts=starts)
    choice = prefenvs.feedback(envs).ask(query).choice
    shown = store.sample(1024, steps=1, rng=rng)
    steps, true = Transitions.of(shown), prefenvs.true_scores(envs, shown)
    loss = fit_linear(model, query.segments.torch(), choice, counts, steps=FIT_STEPS[scale], lr=RATE)
    learned = model.members(torch.as_tensor(steps.observations), torch.as_tensor(steps.actions)).detach().numpy()
    rows = []
    for member, weights in enumerate(model.weights.detach()):
        held = RewardComparison(steps, true, learned[member], GAMMA)
        score = evaluate(GridPolicy(planner, weights), TASKS[TASK].id, STREAMS[scale])
        normalised = TASKS[TASK].normalised(score.mean)
        found = {name: REWARD_METRICS[name](held) for name in ("starc", "spearman")}
        rows.append({"labels": int(counts[member]), "return": normalised, **found, "loss": float(loss[member])})
    return rows


def check(tables: Tables) -> Verdict:
    """Return of the regret learner, and its lead, on labels by regret; the other one's lead on the others."""
    ours, theirs = "regret to regret", "regret to partial_return"
    matched, swapped = "partial_return to partial_return", "partial_return to regret"
    fewest = min(row["labels"] for table in tables[ours].values() for row in table)
    returns = {arm: per_seed(tables, arm, "return") for arm in tables}
    early, starc = ({arm: per_seed(tables, arm, c, labels=fewest) for arm in tables} for c in ("return", "starc"))
    return decide(
        over_seeds(f"return, {ours}", returns[ours], MARGIN["good"]),
        lead("return", returns, ours, theirs, MARGIN["lead"]),
        over_seeds(f"the same from {fewest} labels", early[ours] - early[theirs], MARGIN["early"]),
        lead(f"STARC from {fewest} labels", starc, theirs, ours, MARGIN["starc"]),
        lead("return", returns, matched, swapped, MARGIN["matched"]),
    )


summary = means("return", "starc", "spearman", by=("labels",))
draw = curves(("labels", "return"), ("labels", "starc"), xscale="log")
