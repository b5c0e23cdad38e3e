"""Best-of-n and GRPO on TextKeyword, by one reward model or by an ensemble of five that is mistrusted.

The reference is a small Decoder trained on demonstrations. The teacher answers 1500 pairs that it wrote, without
mistakes or with the wrong answer in a quarter of them. Five reward models (WordPairs trunks of 32, other weights and
other order of the data, same answers) are standardised on completions of the training prompts by the reference; rules
turn their scores into one: `single` is the average member (best-of-n: the mean over members of each one's curve; GRPO:
the first), `mean`, `worst_case` their least, `uncertainty_weighted` their mean less 5 variances (divided by 5). The
weight is the best of 0.5, 1, 2 and 5 on pilot seeds; it is in units of standardised scores. Of TextKeyword
and TextSentiment, which pilots compared, TextKeyword is the one whose gold falls where a reward model is followed: it
pays for words of the prompt, and repetition and length cost.

Best-of-n is estimated from 2048 completions of each of 12 test prompts without bias, n up to 1024. GRPO (Dr. GRPO's
advantages, KL weight 0 or 0.1 in the reward) sees answers with mistakes, and is followed for 80 rollouts of 128. Gold
is the true reward. A fall is the gold at the peak less the last; the gain is the gold at the peak less the reference's.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.reward_models.text import WordPairs
from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS
from prefenvs.agents.text import GRPO, GRPO_VARIANTS, TextEvalCallback, TextPreferenceConfig, ask_pairs, learn_reward
from prefenvs.agents.text.rollouts import written_for
from prefenvs.metrics import best_of_n_table, peak_to_final_drop
from prefenvs.studies import Paper, Table, Tables, Verdict, curves, decide, means, over_seeds, runs
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import pretrain
from prefenvs.teacher import Teacher

PAPER = Paper(
    card="49",
    name="rm-ensembles",
    title="Reward Model Ensembles Help Mitigate Overoptimization",
    authors="Coste, Anwar, Kirk and Krueger",
    year=2023,
    arxiv="2310.02743",
)
CLAIM = (
    "With a quarter of the answers wrong and with none, the gold of best-of-n by a single reward model falls from its "
    "peak by 10% of its gain or more; by the worst case or the uncertainty-weighted mean of five it falls by 3% at "
    "most, and at n = 1024 it is above the single model's by 10% of that gain or more. Under GRPO both end above the "
    "single model, and with a KL weight of 0.1 neither falls from its peak by more than 0.1."
)
MARGIN = {"single falls": 0.1, "ensemble falls": 0.03, "lead": 0.1, "GRPO lead": 0.0, "GRPO falls": 0.1}
"""Shares of the gain; for GRPO units of gold, of which an evaluation's standard error is 0.06."""
PARTS = ("TextKeyword", "WordPairs", "trunk_ensemble", "worst_case", "uncertainty_weighted", "GRPO", "best_of_n_curve")
TESTS = (
    "tests/agents/reward_transforms/test_card49_rm_ensembles.py",
    "tests/prefenvs/metrics/test_over_optimisation.py",
)
SEEDS = {"smoke": (0, 1), "full": (100, 101, 102, 103, 104)}
RULES: dict[str, dict[str, Any]] = {
    "single": {},
    "mean": {},
    "worst_case": {},
    "uncertainty_weighted": {"weight": 5.0, "unbiased": False},
}
FLIPS, BETAS, MEMBERS = (0.0, 0.25), (0.0, 0.1), 5
SIZES = {
    "smoke": {"queries": 100, "prompts": 3, "samples": 64, "n": 6, "rollouts": 2, "training": 20},
    "full": {"queries": 1500, "prompts": 12, "samples": 2048, "n": 11, "rollouts": 80, "training": 600},
}
"""n is how many powers of 2, from 1; training is the number of gradient steps of the reference."""
COLUMNS = ("method", "n", "kl", "gold", "proxy")
"""n is of best-of-n, or the completions that GRPO has learned from."""
ENV, COMPLETIONS, EVALUATIONS = "prefenvs/TextKeyword-v0", 128, 8
LANGUAGE = language_of(ENV)


def arms(scale: str) -> tuple[str, ...]:
    """How the scores of reward models become one reward."""
    return tuple(RULES)


def run(arm: str, seed: int, scale: str) -> Table:
    """A row for each n of best-of-n, by share of wrong answers, and for each evaluation of GRPO, by KL weight."""
    rows: list[dict[str, Any]] = []
    for flips in FLIPS:
        gold, scores = judged(seed, scale, flips)
        proxy = scores if arm == "single" else REWARD_TRANSFORMS[arm](scores, **RULES[arm])[None]
        found = best_of_n_table(gold, proxy.unflatten(1, gold.shape).numpy(), [2**i for i in range(SIZES[scale]["n"])])
        rows += [{"method": f"best of n, {flips:.0%} wrong", **row} for row in found]
    for beta in BETAS:
        members = ensemble(seed, scale, FLIPS[-1])
        reward: Any = members if arm != "single" else lambda *texts, members=members: members.members(*texts)[0]
        aggregate: dict[str, Any] = {} if arm == "single" else {"aggregate": arm, "aggregate_options": RULES[arm]}
        config = replace(GRPO_VARIANTS["dr_grpo"], beta=beta, kl="reward", learning_rate=1e-3, **aggregate)
        envs = gym.make_vec(ENV, num_envs=COMPLETIONS, view="completion")
        learner = GRPO(copy.deepcopy(reference(scale)), envs, reward=reward, config=config, seed=seed, device="cpu")
        total = SIZES[scale]["rollouts"] * COMPLETIONS
        evaluations = TextEvalCallback(ENV, total // EVALUATIONS, COMPLETIONS)
        learner.learn(total, callback=evaluations)
        rows += [{"method": f"GRPO, KL weight {beta}", **row} for row in evaluations.rows()]
    return [{column: row[column] for column in COLUMNS} for row in rows]


@cache
def reference(scale: str) -> Any:
    """The language model that all seeds begin with."""
    return pretrain(ENV, layers=1, width=32, heads=2, steps=SIZES[scale]["training"])


@cache  # the rules read the same ensemble
def ensemble(seed: int, scale: str, flips: float) -> Any:
    """Five reward models fitted to the same answers, each with mean 0 and deviation 1 over the reference's texts."""
    teacher, queries = Teacher(eps_mistake=flips), SIZES[scale]["queries"]
    envs = gym.make_vec(ENV, num_envs=COMPLETIONS, view="completion", teacher=teacher, budget=queries)
    learner, rng = GRPO(reference(scale), envs, seed=seed, device="cpu"), torch.Generator().manual_seed(seed)
    trunks = [WordPairs(LANGUAGE.vocab_size, seed=MEMBERS * seed + member) for member in range(MEMBERS)]
    config = TextPreferenceConfig(reward_model="trunk_ensemble", learning_rate=3e-3, epochs=8, stop_accuracy=1.0)
    model: Any = learn_reward(trunks, *ask_pairs(learner, queries, rng), config, rng)[0]
    model.standardize(*written_for(reference(scale), LANGUAGE, LANGUAGE.prompts("train"), 100, rng))
    return model


@cache
def judged(seed: int, scale: str, flips: float) -> tuple[np.ndarray, Tensor]:
    """(prompts, N) gold and (M, prompts x N) scores of completions of test prompts by the reference."""
    ids, samples = LANGUAGE.prompts("test")[: SIZES[scale]["prompts"]], SIZES[scale]["samples"]
    rng = torch.Generator().manual_seed(10_000 + seed)
    prompts, tokens = written_for(reference(scale), LANGUAGE, ids, samples, rng)
    model, batches = ensemble(seed, scale, flips), zip(prompts.split(4096), tokens.split(4096), strict=True)
    with torch.no_grad():
        scores = torch.cat([model.members(*batch) for batch in batches], 1)
    task = gym.make(ENV, evaluation=True).unwrapped.task  # type: ignore[attr-defined]
    return task.rewards(np.repeat(ids, samples), tokens.numpy()).reshape(len(ids), -1), scores


def check(tables: Tables) -> Verdict:
    """Falls from the peak, and leads of the ensembles over the single model, paired by seed."""
    estimates = []
    for method in dict.fromkeys(r["method"] for r in next(iter(tables["single"].values()))):
        bon = method.startswith("best")
        gold = {arm: np.array(runs(tables, arm, "gold", method=method)) for arm in tables}  # (seeds, n)
        # In shares of the gain; GRPO's gains are near 0, so there in units of gold.
        gain = {arm: g.max(1) - g[:, 0] if bon else 1.0 for arm, g in gold.items()}
        fall = {arm: peak_to_final_drop(g) / gain[arm] for arm, g in gold.items()}
        if bon:
            estimates.append(over_seeds(f"{method}: fall, single", fall["single"], MARGIN["single falls"]))
        for arm in ("worst_case", "uncertainty_weighted"):
            lead = (gold[arm] - gold["single"])[:, -1] / gain["single"]
            margin = MARGIN["lead" if bon else "GRPO lead"]
            estimates.append(over_seeds(f"{method}: lead over single, {arm}", lead, margin))
            if bon or method.endswith(str(BETAS[-1])):
                margin = -MARGIN["ensemble falls" if bon else "GRPO falls"]
                estimates.append(over_seeds(f"{method}: change from the peak, {arm}", -fall[arm], margin))
    return decide(*estimates)


summary = means("gold", "proxy", "kl", by=("method",), last=True)
draw = curves(("n", "gold"), panels="method", xscale="symlog", names={"n": "n, completions"})
