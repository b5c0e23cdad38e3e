"""STARC: distances between rewards that bound regret, on random sparse MDPs.

Three kinds of pairs, in equal numbers. `mixed`: R2 is an interpolation from R1 to an unrelated reward, then each of the
two is shaped, redistributed over next states and scaled at random. `equivalent`: the same without the interpolation.
`masked`: both of a mixed pair get the same large redistribution, which no policy feels and EPIC and DARD take for
agreement. Redistributions touch only transitions that can happen.
"""

from __future__ import annotations

import numpy as np

from prefenvs.metrics import REWARD_DISTANCES, disguised, normalised_regret, optimal_policy, s_redistribution, spearman
from prefenvs.studies import Paper, Table, Tables, Verdict, decide, means, over_seeds, per_seed, within
from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
from prefenvs.tasks.grid.tabular import TabularMDP

PAPER = Paper(
    card="75",
    name="starc",
    title="STARC: A General Framework For Quantifying Differences Between Reward Functions",
    authors="Skalse et al.",
    year=2023,
    arxiv="2309.15257",
)
CLAIM = (
    "Where rewards are shaped, scaled and redistributed over next states, the STARC distance (VAL) of two rewards "
    "ranks the regret of the second one's optimal policy better than EPIC and DARD do, is 0 for equivalent rewards "
    "where theirs are not, and bounds that regret, which theirs do not; DARD, which knows the dynamics, ranks better "
    "than EPIC."
)
MARGIN = {
    "spearman": 0.85,
    "lead": 0.15,
    "dynamics": 0.05,
    "equivalent": 1e-12,
    "blind": 0.1,
    "bound": 4.0,
    "unbounded": 10.0,
}
PARTS = ("reward distances", "reward transforms", "exact regret", "random sparse MDPs")
TESTS = ("tests/prefenvs/metrics/test_card75_starc.py", "tests/prefenvs/metrics/test_reward_distance.py")
SEEDS = {"smoke": (0, 1), "full": tuple(range(100, 110))}
SIZE = {"smoke": (10, 20), "full": (20, 50)}
"""MDPs a seed, and pairs of each kind an MDP."""
MASK = 100.0
"""Standard deviation of the shared redistribution, in standard deviations of the reward."""


def arms(scale: str) -> tuple[str, ...]:
    """The distances."""
    return ("starc", "epic", "dard")


def run(arm: str, seed: int, scale: str) -> Table:
    """Rank correlation with regret, and extremes, by kind of pair."""
    mdps, count = SIZE[scale]
    rng = np.random.default_rng(seed)
    found = [problem(rng, count) for _ in range(mdps)]
    rows = []
    for kind in ("mixed", "equivalent", "masked"):
        distance = np.concatenate([REWARD_DISTANCES[arm](*pairs[kind], mdp) for mdp, pairs, _ in found])
        regret = np.concatenate([regrets[kind] for _, _, regrets in found])
        rows.append(
            {
                "kind": kind,
                "pairs": len(regret),
                "spearman": float(spearman(distance, regret)),
                "mean distance": float(distance.mean()),
                "greatest distance": float(distance.max()),
                "greatest regret": float(regret.max()),
                "greatest ratio": float((regret / np.maximum(distance, 1e-12)).max()),
            }
        )
    return rows


def problem(
    rng: np.random.Generator, count: int
) -> tuple[TabularMDP, dict[str, tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray]]:
    """A random MDP, (count, S, A, S) pairs of rewards by kind, and the regret of each second reward's best policy."""
    states, actions, successors = (int(rng.integers(*span)) for span in ((6, 21), (2, 5), (2, 5)))
    mdp = random_sparse_mdp(rng, states, actions, successors)
    possible, shape = mdp.transitions > 0, (count, states, actions, states)
    share = rng.uniform(size=(count, 1, 1, 1))
    mixed = (1 - share) * mdp.rewards + share * possible * rng.standard_normal(shape)
    mask = MASK * possible * rng.standard_normal(shape)
    rewards = {
        "mixed": (disguised(mdp.rewards, mdp, count, rng), disguised(mixed, mdp, count, rng)),
        "equivalent": (disguised(mdp.rewards, mdp, count, rng), disguised(mdp.rewards, mdp, count, rng)),
        "masked": (s_redistribution(mdp.rewards, mask, mdp), s_redistribution(mixed, mask, mdp)),
    }
    # The changes are felt by no policy, so masked pairs have the regrets of mixed ones, and equivalent pairs none.
    regret = normalised_regret(mdp, np.stack([optimal_policy(mdp.with_rewards(r)) for r in mixed]))
    return mdp, rewards, {"mixed": regret, "equivalent": np.zeros(count), "masked": regret}


def check(tables: Tables) -> Verdict:
    """Ranks on mixed pairs, distances of equivalent pairs, regret over distance on all."""
    ranks = {arm: per_seed(tables, arm, "spearman", kind="mixed") for arm in tables}
    blind = {arm: per_seed(tables, arm, "mean distance", kind="equivalent") for arm in ("epic", "dard")}
    ratio = {arm: per_seed(tables, arm, "greatest ratio", kind="masked") for arm in tables}
    ours = [row for table in tables["starc"].values() for row in table]
    largest = max(row["greatest distance"] for row in ours if row["kind"] == "equivalent")
    bound = max(row["greatest ratio"] for row in ours if row["kind"] != "equivalent")
    estimates = [over_seeds("Spearman of STARC with regret", ranks["starc"], MARGIN["spearman"])]
    for arm in ("epic", "dard"):
        name = arm.upper()
        estimates += [
            over_seeds(f"Spearman, STARC - {name}", ranks["starc"] - ranks[arm], MARGIN["lead"]),
            over_seeds(f"mean {name} distance of equivalent rewards", blind[arm], MARGIN["blind"]),
            over_seeds(f"greatest regret / {name} distance, masked", ratio[arm], MARGIN["unbounded"]),
        ]
    estimates += [
        over_seeds("Spearman, DARD - EPIC", ranks["dard"] - ranks["epic"], MARGIN["dynamics"]),
        within("greatest STARC distance of equivalent rewards", largest, MARGIN["equivalent"]),
        within("greatest regret / STARC distance", bound, MARGIN["bound"]),
    ]
    return decide(*estimates)


summary = means(by=("kind",))
