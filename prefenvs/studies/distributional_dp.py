"""Exact on two grids, and a quantile DQN on the first.

`ledge`: GridLedge, 50 steps, where after bad luck on a windy cell a gamble is worth it and after good luck not. Arms:
`stock`, the best policy of state and stock; `markov`, the best deterministic policy of the state alone, by branch and
bound; `nested`, CVaR step by step; `mean`, the best mean; `deep`, a quantile DQN with 16 quantiles for tau = 1/4, whose
initial stock is chosen from its learnt distribution. All policies are scored by the exact law of their return.
`pickups`: a windy grid of ours with +1 and -1 to pick up again and again for 20 steps, started with stocks -5 to 5 that
should end at 0: `stock` is one policy for all of them, and `mean` maximises the sum. Only `deep` depends on the seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule

from prefenvs.agents import distributional as dp
from prefenvs.studies import Paper, Table, Tables, Verdict, decide, means, over_seeds, per_seed, runs
from prefenvs.tasks.grid.ledge import ledge_world
from prefenvs.tasks.grid.world import build_grid

PAPER = Paper(
    card="23",
    name="distributional-dp",
    title="Optimizing Return Distributions with Distributional Dynamic Programming",
    authors="Pires et al.",
    year=2025,
    arxiv="2501.13028",
)
CLAIM = (
    "Dynamic programming over state and stock has at every tau at least the CVaR of the best policy of the state alone "
    "and of nested CVaR, at some tau 5% more than both, and is mean-optimal at tau = 1. One policy for initial stocks "
    "-5 to 5 ends within 0.5 of 0 in the mean, where maximising the mean ends 2 or more away. A quantile DQN with a "
    "stock comes within 5% of the exact CVaR."
)
MARGIN = {"lead": 0.05, "exact": 1e-9, "near": 0.5, "far": 2.0, "deep": -0.05}
PARTS = ("statistical functionals", "exact distributional DP", "stock wrapper", "QuantileDQN", "GridLedge")
TESTS = (
    "tests/agents/distributional/test_card23_distributional_dp.py",
    "tests/agents/distributional/test_exact.py",
    "tests/agents/distributional/test_quantile_dqn.py",
)
SEEDS = {"smoke": (0, 1), "full": (300, 301, 302, 303, 304)}
HORIZON = {"smoke": 16, "full": 50}
TAUS = {"smoke": (0.25, 1.0), "full": (0.1, 0.25, 0.5, 1.0)}
DEEP_TAU, DEEP_STEPS = 0.25, {"smoke": 2400, "full": 60_000}
DEEP: dict[str, Any] = {
    "quantiles": 16,
    "stocks": range(-8, 17),
    "relabel_stocks": range(-32, 17),
    "policy_kwargs": {"net_arch": [128]},
    "batch_size": 256,
    "train_freq": 1,
    "gradient_steps": 2,
    "learning_starts": 2000,
    "target_update_interval": 8,
    "tau": 0.03,
    "exploration_fraction": 0.4,
    "exploration_final_eps": 0.7,
}
PICKUPS = ("c.v.r", "..r..", "r...c")


def arms(scale: str) -> tuple[str, ...]:
    """Ways to choose a policy."""
    return ("stock", "markov", "nested", "mean", "deep")


def run(arm: str, seed: int, scale: str) -> Table:
    """A row for each tau on the ledge and each initial stock on the pickups; nan where an arm has no answer."""
    rows = [{"grid": "ledge", "at": tau, "value": ledge(arm, tau, seed, scale)} for tau in TAUS[scale]]
    return rows + [{"grid": "pickups", "at": c, "value": v} for c, v in zip(range(-5, 6), pickups(arm), strict=True)]


def ledge(arm: str, tau: float, seed: int, scale: str) -> float:
    """The CVaR of the arm's policy for tau."""
    mdp, horizon = ledge_world().mdp, HORIZON[scale]
    if arm == "stock":
        return dp.best_cvar(mdp, tau, horizon).value
    if arm == "markov":
        return dp.best_markov_cvar(mdp, tau, horizon)[0]
    if arm == "deep":
        return float(dp.CVaR(tau)(*learned(seed, scale).return_law())) if tau == DEEP_TAU else float("nan")
    graph = dp.StockGraph.build(mdp, horizon, [0.0])
    nested = arm == "nested"
    solution = dp.stepwise(graph, dp.nested_cvar(mdp, tau, horizon)) if nested else dp.value_iteration(graph, dp.Mean())
    return float(dp.CVaR(tau)(*solution.return_law()))


def learned(seed: int, scale: str) -> dp.Solution:
    """The exact laws of the greedy policy of a quantile DQN from the initial stock that it chooses."""
    env = make_vec_env("prefenvs/GridLedge-v0", 8, env_kwargs={"evaluation": True, "max_episode_steps": 200})
    rate = LinearSchedule(3e-3, 1e-5, 1.0)
    model = dp.QuantileDQN(
        "MlpPolicy", env, functional=dp.CVaR(DEEP_TAU), learning_rate=rate, seed=seed, device="cpu", **DEEP
    )
    return model.learn(DEEP_STEPS[scale]).solution(ledge_world().mdp, HORIZON[scale])


def pickups(arm: str) -> list[float]:
    """Mean distance of stock plus return from 0, for each initial stock."""
    if arm not in ("stock", "mean"):
        return [float("nan")] * 11
    mdp = build_grid(PICKUPS, {"gas": 0.0, "coin": 1.0, "roadblock": -1.0}, 1.0, starts=[(1, 1)]).mdp
    graph = dp.StockGraph.build(mdp, 20, np.arange(-5.0, 6.0))
    solution = dp.value_iteration(graph, dp.Target() if arm == "stock" else dp.Mean())
    return [float(-value) for value in solution.start_values(dp.Target())]


def check(tables: Tables) -> Verdict:
    """Every part of the claim, paired by seed."""
    taus = sorted({row["at"] for row in next(iter(tables["stock"].values())) if row["grid"] == "ledge"})
    cvar = {(arm, tau): per_seed(tables, arm, "value", grid="ledge", at=tau) for arm in tables for tau in taus}

    def lead(tau: float, arm: str) -> np.ndarray:
        return (cvar["stock", tau] - cvar[arm, tau]) / abs(cvar["stock", tau])

    over_both = np.array([np.minimum(lead(tau, "markov"), lead(tau, "nested")) for tau in taus])
    near, far = (np.array(runs(tables, arm, "value", grid="pickups")) for arm in ("stock", "mean"))
    return decide(
        over_seeds("lead over both, best tau", over_both.max(0), MARGIN["lead"]),
        over_seeds("lead over both, worst tau", over_both.min(0), -MARGIN["exact"]),
        over_seeds("minus distance to the best mean", -abs(lead(1.0, "mean")), -MARGIN["exact"]),
        over_seeds("minus greatest distance from 0", -near.max(1), -MARGIN["near"]),
        over_seeds("least distance, maximising the mean", far.min(1), MARGIN["far"]),
        over_seeds("lead of the quantile DQN", -lead(DEEP_TAU, "deep"), MARGIN["deep"]),
    )


summary = means("value", by=("grid", "at"))
