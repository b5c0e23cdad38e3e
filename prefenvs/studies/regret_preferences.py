"""Labels by partial return and by regret, each learned from by both models, on grid worlds.

A seed draws as many deterministic grids (the delivery grid is one of them) as stochastic ones, in which a lottery is
worth less than the goal or more, in turn. Queries show two segments of three random steps from random states.
Noiseless labels name the better segment, or tie; logistic ones follow sigmoid(difference), in the oracle's own units.
Both learners fit a reward that is linear in the grid's features. The policy that is optimal for it is near-optimal if
its true return is above 0.9, where the uniform policy has 0 and the optimal one 1. Arms see the same segments.
`moved` is the share of noiseless answers, about segments that did not end, which change where each step pays 2 more: of
the labels, and of the learner's model of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from prefenvs.agents.reward_models import fit_linear, linear_model
from prefenvs.metrics import normalised_return, optimal_policy
from prefenvs.oracles import PartialReturn, Regret, TabularValues
from prefenvs.segments import JudgedSegments, TorchSegments
from prefenvs.studies import Paper, Table, Tables, Verdict, decide, lead, means, over_seeds, per_seed, within
from prefenvs.tasks.grid.delivery import delivery_world
from prefenvs.tasks.grid.random_mdp import GAMMA, random_grid, random_lottery_grid
from prefenvs.tasks.grid.sampling import random_segments
from prefenvs.tasks.grid.tabular import TabularMDP
from prefenvs.teacher import Teacher, choose, draws_needed

PAPER = Paper(
    card="25",
    name="regret-preferences",
    title="Models of human preference for learning reward functions",
    authors="Knox et al.",
    year=2022,
    arxiv="2206.02231",
)
CLAIM = (
    "From 100 noiseless labels or more, labels by regret and a learner by regret give a near-optimal policy on at "
    "least 20 points more grids than labels and a learner by partial return, and on either kind of labels the learner "
    "that assumes the other kind does worse, by a point at least, than the one that assumes the right one. A constant "
    "added to each step's reward, enough that walking on for ever pays, changes no answer by partial return about "
    "segments of one length, and 30% or more of those by regret."
)
MARGIN = {"gain": 0.20, "matched": 0.01, "moved": 0.30, "near optimal": 0.9, "labels": 100}
PARTS = ("oracle regret", "oracle partial_return", "LinearRegret", "LinearReward", "grids delivery and random")
TESTS = (
    "tests/tasks/grid/test_card25_regret_preferences.py",
    "tests/agents/reward_models/test_linear_regret.py",
    "tests/prefenvs/studies/test_regret_preferences.py",
)
SEEDS = {"smoke": (0, 1), "full": (100, 101, 102, 103, 104)}
GRIDS = {"smoke": 2, "full": 15}
"""Grids of each kind."""
LABELS = {"smoke": (10, 100), "full": (3, 10, 30, 100, 300, 1000)}
FIT_STEPS = {"smoke": 100, "full": 300}
POLICIES = {"smoke": 40, "full": 100}
BETAS = {"noiseless": float("inf"), "logistic": 1.0}
WINS = (100.0, 200.0)
MODELS = ("partial_return", "regret")


def arms(scale: str) -> tuple[str, ...]:
    """Labels by one model to a learner by another."""
    return tuple(f"{oracle} to {learner}" for oracle in MODELS for learner in MODELS)


def run(arm: str, seed: int, scale: str) -> Table:
    """Means over grids, by kind of grid, noise and number of labels."""
    oracle, learner = arm.split(" to ")
    settings = [(noise, labels) for noise in BETAS for labels in LABELS[scale]]
    rows: dict[tuple[Any, ...], list[tuple[float, ...]]] = {}
    for index, (kind, mdp) in enumerate(problems(seed, scale)):
        rng = np.random.default_rng([seed, index])
        seen = random_segments(mdp, 2 * max(LABELS[scale]), 3, rng)
        uniforms = rng.random((max(LABELS[scale]), draws_needed(2)))
        choices = {noise: answers(mdp, oracle, seen, uniforms, beta) for noise, beta in BETAS.items()}
        model = linear_model(learner, mdp, len(settings), policies=POLICIES[scale], rng=rng)
        shown = TorchSegments(*(torch.as_tensor(array) for array in seen))
        counts = np.array([labels for _, labels in settings])
        fit_linear(model, shown, np.stack([choices[noise] for noise, _ in settings]), counts, steps=FIT_STEPS[scale])
        blind = tuple(moved(mdp, preference, seen, uniforms) for preference in (oracle, learner))
        policies = np.stack([optimal_policy(mdp.with_weights(w)) for w in model.weights.detach().numpy()])
        for setting, value in zip(settings, normalised_return(mdp, policies), strict=True):
            rows.setdefault((kind, *setting, setting[1] >= MARGIN["labels"]), []).append(
                (value > MARGIN["near optimal"], value, *blind)
            )
    names = ("grids", "noise", "labels", "enough", "near optimal", "normalised return", "labels moved", "model moved")
    return [dict(zip(names, (*key, *np.mean(values, axis=0).tolist()), strict=True)) for key, values in rows.items()]


def problems(seed: int, scale: str) -> Iterator[tuple[str, TabularMDP]]:
    """The seed's grids with their kinds."""
    rng = np.random.default_rng([seed, 2**16])
    for i in range(GRIDS[scale]):
        yield "deterministic", (random_grid(rng) if i else delivery_world(gamma=GAMMA)).mdp
        yield "stochastic", random_lottery_grid(rng, WINS[i % 2]).mdp


def answers(
    mdp: TabularMDP, preference: str, seen: tuple[np.ndarray, ...], uniforms: np.ndarray, beta: float = float("inf")
) -> np.ndarray:
    """(n, 2) choices between neighbouring segments."""
    states, actions, mask = seen
    rewards = mdp.rewards[states[:, :-1], actions, states[:, 1:]] * mask
    segments = JudgedSegments(states, actions, rewards, {}, mask, mdp.terminal[states[:, -1]])
    oracle: Any = PartialReturn() if preference == "partial_return" else Regret(TabularValues.of(mdp))
    return choose(Teacher(beta=beta, scale="raw"), oracle.utility(segments).sum(1).reshape(-1, 2), uniforms)


def moved(mdp: TabularMDP, preference: str, seen: tuple[np.ndarray, ...], uniforms: np.ndarray) -> float:
    """Share of the noiseless answers about segments of full length that change where each step pays 2 more."""
    assert mdp.weights is not None  # grids have them
    each_step = [name not in ("coin", "roadblock") for name in mdp.feature_names]  # these come on top of another
    other = mdp.with_weights(mdp.weights + 2.0 * np.array(each_step))
    first, second = (answers(problem, preference, seen, uniforms) for problem in (mdp, other))
    return float((first != second).any(1)[seen[2].reshape(len(first), -1).all(1)].mean())


def check(tables: Tables) -> Verdict:
    """Gain of regret over partial return, of the matched over the mismatched learner, and what a constant changes."""
    share = {arm: per_seed(tables, arm, "near optimal", noise="noiseless", enough=True) for arm in tables}
    contrasts = (
        ("regret to regret", "partial_return to partial_return", "gain"),
        ("regret to regret", "regret to partial_return", "matched"),
        ("partial_return to partial_return", "partial_return to regret", "matched"),
    )
    estimates = [lead("", share, ours, theirs, MARGIN[margin]) for ours, theirs, margin in contrasts]
    for place, column in enumerate(("labels moved", "model moved")):
        blind, seeing = ([arm for arm in tables if arm.split(" to ")[place] == kind] for kind in MODELS)
        most, theirs = max(per_seed(tables, arm, column).max() for arm in blind), per_seed(tables, seeing[0], column)
        estimates.append(within(f"{column} by a constant, partial return, greatest", most, 0.0))
        estimates.append(over_seeds(f"{column} by a constant, regret", theirs, MARGIN["moved"]))
    return decide(*estimates)


summary = means("near optimal", by=("noise",), across="labels")


def draw(tables: Tables, figure: Any) -> None:
    """Share of near-optimal grids by number of labels; dashed for logistic labels."""
    axes, rows = figure.subplots(), means("near optimal", by=("noise", "labels"))(tables)
    for colour, arm in enumerate(tables):
        for noise, style in (("noiseless", "-"), ("logistic", "--")):
            line = [(r["labels"], r["near optimal"]) for r in rows if (r["arm"], r["noise"]) == (arm, noise)]
            label = arm.replace("_", " ") if noise == "noiseless" else None
            axes.plot(*zip(*line, strict=True), style, color=f"C{colour}", label=label)
    axes.set(xscale="log", xlabel="labels", ylabel="share of near-optimal grids", ylim=(0, 1.02))
    axes.legend(title="labels by ... to a learner by ...")
