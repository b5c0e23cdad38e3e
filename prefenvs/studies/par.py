"""TextEnum, 8 prompts of up to four letters, with gold and KL exact along each run of PPO over a table.

300 pairs of the reference's completions are answered by a Boltzmann teacher with 10% mistakes, who looks at pairs of
letters alone. The proxy is a Bradley-Terry reward, linear in counts of these pairs. Gold is the task's reward, which
also pays 0.5 for ending in time, less 1.5 for each pair of letters said again: both are what the proxy misses. Gold is
0 for the reference, in standard deviations of its gold. All shapings have the same learning rate and whitened
advantages. The KL weight of each is the best of 0.01, 0.05 and 0.25 by gold after 25 rollouts of 64 completions, on
seeds 0 to 2; the study goes on to 75.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from prefenvs.agents.text import TokenPPO, TokenPPOConfig, exact
from prefenvs.studies import Paper, Table, Tables, Verdict, at_end, curves, decide, lead, means, over_seeds
from prefenvs.tasks.text.enumerable import TextEnum
from prefenvs.tasks.text.lm import Tabular
from prefenvs.teacher import Teacher

PAPER = Paper(
    card="16",
    name="par",
    title="Reward Shaping to Mitigate Reward Hacking in RLHF",
    authors="Fu et al.",
    year=2025,
    arxiv="2502.18770",
)
CLAIM = (
    "After three times the usual steps PAR's gold is above that of PPO on the reward itself, on its running min-max "
    "and on the clipped reward by 0.15 standard deviations or more. The reward itself falls by 0.15 from its peak, "
    "PAR by at most 0.05. Centred shapings are at least as good as uncentred ones for four of five functions, and one "
    "reference response is within 0.05 of ten."
)
MARGIN = {"lead": 0.15, "hacked": 0.15, "kept": -0.05, "centred": 0.0, "references": -0.05}
PARTS = ("reward transforms", "TokenPPO", "TextEnum", "peak-to-final drop", "gold at matched KL")
TESTS = ("tests/agents/reward_transforms/test_card16_par.py", "tests/agents/text/test_exact.py")
SEEDS = {"smoke": (0, 1), "full": (100, 101, 102, 103, 104)}
ROLLOUTS = {"smoke": 5, "full": 75}
PAIRS, RIDGE, REPEATED, COMPLETIONS, EVERY, RATE, CRITIC_RATE = 300, 0.3, 1.5, 64, 5, 0.15, 1.0
KLS = (1.0, 2.0, 3.0)
SHAPINGS: dict[str, Any] = {
    "vanilla": ("identity", 0, {}, 0.05),
    "mean-std": ("mean_std", 0, {}, 0.25),
    "clip": ("clip", 0, {}, 0.05),
    "min-max": ("min_max", 0, {}, 0.01),
    "ceiling": ("saturate", 0, {"ceiling": 1.0}, 0.05),
    "lsc": ("lsc", 10, {}, 0.25),
    "sigmoid": ("sigmoid", 0, {}, 0.01),
    "sigmoid k=2": ("sigmoid", 0, {"slope": 2.0}, 0.01),
    "tanh": ("tanh", 0, {}, 0.01),
    "polynomial": ("polynomial", 0, {}, 0.01),
    "slow then fast": ("slow_then_fast", 10, {}, 0.01),
    "centre": ("centre", 10, {}, 0.05),
    "par": ("par", 10, {}, 0.01),
    "par k=2": ("par", 10, {"slope": 2.0}, 0.01),
    "centred tanh": ("centred_tanh", 10, {}, 0.05),
    "centred polynomial": ("centred_polynomial", 10, {}, 0.01),
    "par M=1": ("par", 1, {}, 0.01),
}
"""Transform, references a prompt, options, and weight of the KL."""
CENTRED = (
    ("centre", "vanilla"),
    ("par", "sigmoid"),
    ("par k=2", "sigmoid k=2"),
    ("centred tanh", "tanh"),
    ("centred polynomial", "polynomial"),
)


def arms(scale: str) -> tuple[str, ...]:
    """The shapings."""
    return tuple(SHAPINGS)


def run(arm: str, seed: int, scale: str) -> Table:
    """A row a checkpoint, with the run's fall from its peak and its gold at KLS."""
    task, pairs = TextEnum(), TextEnum().bigram_counts()
    policy = Tabular.of(task.language, seed=seed)
    law = exact.completion_probabilities(policy, task)
    gold = exact.standardised(law, task.reward_table() - REPEATED * np.maximum(pairs - 1, 0).sum(-1))
    proxy = proxy_reward(task, law, pairs, np.random.default_rng(seed))
    settings = zip(("transform", "references", "transform_options", "beta"), SHAPINGS[arm], strict=True)
    config = TokenPPOConfig(learning_rate=RATE, critic_learning_rate=CRITIC_RATE, epochs=1, **dict(settings))
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=COMPLETIONS, view="completion")
    learner = TokenPPO(policy, envs, reward=exact.TableReward(task, proxy), config=config, seed=seed, device="cpu")
    curve = exact.ExactCurve(policy, task, EVERY, gold=gold, proxy=proxy)
    learner.learn(COMPLETIONS * ROLLOUTS[scale], curve)
    return curve.table(KLS)


def proxy_reward(task: TextEnum, law: np.ndarray, pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(prompts, C) what is learned from answers that look at pairs of letters alone; the reference's mean is 0."""
    teacher = Teacher(beta=1.0, scale="raw", eps_mistake=0.1)
    answers = exact.draw_answered_pairs(law, task.factor_tables()["bigrams"], PAIRS, teacher, rng)
    proxy = exact.fit_reward_table(*answers, pairs, ridge=RIDGE)
    return proxy - (law * proxy).sum() / len(law)


def check(tables: Tables) -> Verdict:
    """Gold at the end and its fall from the peak, paired by seed."""
    gold, drop = ({arm: at_end(tables, arm, column) for arm in tables} for column in ("gold", "drop"))
    gains = np.sort([gold[ours] - gold[theirs] for ours, theirs in CENTRED], axis=0)  # by seed
    return decide(
        *(lead("gold", gold, "par", arm, MARGIN["lead"]) for arm in ("vanilla", "min-max", "clip")),
        over_seeds("fall of vanilla from its peak", drop["vanilla"], MARGIN["hacked"]),
        over_seeds("gain of par from its peak", -drop["par"], MARGIN["kept"]),
        over_seeds("gain by centring, second least", gains[1], MARGIN["centred"]),
        over_seeds("gold, M=1 - M=10", gold["par M=1"] - gold["par"], MARGIN["references"]),
        over_seeds("gold, M=10 - M=1", gold["par"] - gold["par M=1"], MARGIN["references"]),
    )


summary = means("gold", "drop", "kl", "proxy", *(f"gold at {kl}" for kl in KLS), last=True)
draw = curves(
    ("iteration", "gold"),
    ("kl", "gold"),
    arms=("vanilla", "clip", "min-max", "lsc", "sigmoid", "par"),
    names={"iteration": "rollouts", "kl": "KL [nats]", "gold": "gold [sd]"},
)
