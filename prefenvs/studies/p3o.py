"""TextEnum, 8 prompts of 121 completions: policies are tables, and KL (in nats) and gold are exact along each run.

A reward table is fitted to 4000 pairs that the reference draws and a Boltzmann teacher answers. P3O, PPO and RLOO are
trained on it from 6400 completions of their own, DPO on the pairs. `x1` and `x4` are passes over a rollout; with one,
P3O's two variants are RLOO with two completions, which runs beside it. `moved` adds N(0, 25) to the rewards of each
prompt, which changes no pair. Gold is the true reward gained over the reference, in standard deviations of the
reference's. Learning rate and KL weight are the best of one grid for each method, PPO's critic rate too, without
offsets on seeds 0 to 2. The card's KLs of 5 and 10 nats are out of reach: a sure answer has 5 to 8.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from prefenvs.agents.text import P3O, RLOO, DirectAlignment, P3OConfig, RLOOConfig, TokenPPO, TokenPPOConfig, exact
from prefenvs.studies import Paper, Table, Tables, Verdict, curves, decide, lead, means, over_seeds, per_seed, within
from prefenvs.tasks.text.enumerable import TextEnum
from prefenvs.tasks.text.lm import Tabular
from prefenvs.teacher import Teacher

PAPER = Paper(
    card="73",
    name="p3o",
    title="Pairwise Proximal Policy Optimization: Harnessing Relative Feedback for LLM Alignment",
    authors="Wu et al.",
    year=2023,
    arxiv="2310.00212",
)
CLAIM = (
    "At KLs of 0.5, 1 and 2 nats P3O's gold is above PPO's by 0.05 standard deviations in the mean, with one pass over "
    "a rollout and with four, and at least DPO's. Offsets of each prompt's rewards change no number of P3O's, of "
    "either variant, and cost PPO 0.1 of gold at the same KLs."
)
MARGIN = {"lead": 0.05, "dpo": 0.0, "same": 0.0, "drop": 0.1}
PARTS = ("P3O", "TokenPPO", "RLOO", "DirectAlignment", "TextEnum", "gold at matched KL")
TESTS = ("tests/agents/text/test_card73_p3o.py", "tests/agents/text/test_exact.py")
SEEDS = {"smoke": (0, 1), "full": (100, 101, 102, 103, 104)}
KLS = {"smoke": (0.05,), "full": (0.5, 1.0, 2.0)}
ROLLOUTS = {"smoke": 16, "full": 100}
PAIRS, RIDGE, OFFSET_SD, COMPLETIONS, EVERY, GRID = 4000, 0.3, 5.0, 64, 4, 1024
RATE, BETA, CRITIC_RATE = 0.05, 0.1, 1.0
DPO_STEPS, DPO_RATE, DPO_BETA = 4, 0.1, 0.3
"""Steps in place of one rollout, on half as many pairs."""


ONLINE: dict[str, Any] = {
    "p3o": (P3O, P3OConfig, {}),
    "p3o joint": (P3O, P3OConfig, {"clipping": "joint"}),
    "ppo": (TokenPPO, TokenPPOConfig, {"critic_learning_rate": CRITIC_RATE}),
    "rloo": (RLOO, RLOOConfig, {"group": 2}),
}


def arms(scale: str) -> tuple[str, ...]:
    """Methods, passes over a rollout, and whether rewards are moved."""
    moved = ("p3o x1", "p3o x4", "p3o joint x4", "ppo x1", "ppo x4")
    return (*moved, "rloo x1", "dpo", *(f"{arm} moved" for arm in moved))


def run(arm: str, seed: int, scale: str) -> Table:
    """A row a checkpoint; `matched` is the mean gold of the run at KLS."""
    task, rng = TextEnum(), np.random.default_rng(seed)
    policy, gold = Tabular.of(task.language, seed=seed), task.reward_table()
    law = exact.completion_probabilities(policy, task)
    answers = exact.draw_answered_pairs(law, gold, PAIRS, Teacher(beta=1.0, scale="raw"), rng)
    rewards = exact.fit_reward_table(*answers, exact.one_hot(*gold.shape), ridge=RIDGE)
    offsets = rng.normal(0.0, OFFSET_SD, (len(law), 1)) * arm.endswith("moved")
    # On a grid on which float32 adds without rounding: what is left of an offset is the method's doing.
    rewards = (np.round(GRID * rewards) + np.round(GRID * offsets)) / GRID
    learner = make_learner(arm, task, policy, rewards, answers, seed)
    pace, size = (DPO_STEPS, COMPLETIONS // 2) if arm == "dpo" else (1, COMPLETIONS)
    curve = exact.ExactCurve(policy, task, pace * EVERY, gold=exact.standardised(law, gold))
    learner.learn(pace * size * ROLLOUTS[scale], curve)
    rows = curve.table(KLS[scale])
    return [{**row, "matched": sum(row[f"gold at {kl}"] for kl in KLS[scale]) / len(KLS[scale])} for row in rows]


def make_learner(arm: str, task: TextEnum, policy: Tabular, rewards: np.ndarray, answers: Any, seed: int) -> Any:
    """The learner of an arm with its reward or its pairs."""
    method, _, passes = arm.removesuffix(" moved").partition(" x")
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=COMPLETIONS, view="completion")
    if method == "dpo":
        config: Any = DirectAlignment.config_class(
            learning_rate=DPO_RATE, batch_size=COMPLETIONS // 2, options={"beta": DPO_BETA}
        )
        pairs = exact.listed_pairs(task, *answers)
        return DirectAlignment(policy, envs, pairs=pairs, config=config, seed=seed, device="cpu")
    learner, make, own = ONLINE[method]
    config = make(learning_rate=RATE, beta=BETA, epochs=int(passes), **own)
    return learner(policy, envs, reward=exact.TableReward(task, rewards), config=config, seed=seed, device="cpu")


def check(tables: Tables) -> Verdict:
    """Leads at the same KLs, and what offsets change."""
    gold = {arm: per_seed(tables, arm, "matched") for arm in tables}
    leads = (("p3o x1", "ppo x1"), ("p3o x4", "ppo x4"), ("p3o joint x4", "ppo x4"))
    fall = {arm: gold[arm] - gold[f"{arm} moved"] for arm in ("ppo x1", "ppo x4")}
    changes = [
        abs(one[key] - other[key])
        for arm in ("p3o x1", "p3o x4", "p3o joint x4")
        for seed in tables[arm]
        for one, other in zip(tables[arm][seed], tables[f"{arm} moved"][seed], strict=True)
        for key in ("kl", "gold")
    ]
    return decide(
        *(lead("gold", gold, ours, theirs, MARGIN["lead"]) for ours, theirs in leads),
        lead("gold", gold, "p3o x1", "dpo", MARGIN["dpo"]),
        within("greatest change of P3O by offsets", max(changes), MARGIN["same"]),
        *(over_seeds(f"fall of {arm} by offsets", fall[arm], MARGIN["drop"]) for arm in fall),
    )


summary = means(last=True)
draw = curves(("kl", "gold"), dashed="moved", names={"kl": "KL [nats]", "gold": "gold [sd]"})
