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
from stable_baselines3.common.logger import Logger

from prefenvs.agents.text.exact import (
    ExactCurve,
    TableReward,
    completion_probabilities,
    draw_answered_pairs,
    fit_reward_table,
    standardised,
)
from prefenvs.agents.text.ppo import TokenPPO, TokenPPOConfig
from prefenvs.studies import Paper, Table, Tables, Verdict, at_end, curves, decide, means, over_seeds
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
    task = TextEnum()
    language, pairs = task.language, pair_counts(task)
    policy = Tabular(language.prompt_tokens, language.vocab_size, language.max_new_tokens, seed=seed)
    law = completion_probabilities(policy, task)
    gold = standardised(law, task.reward_table() - REPEATED * np.maximum(pairs - 1, 0).sum(-1))
    proxy = proxy_reward(task, law, pairs, np.random.default_rng(seed))
    transform, references, options, beta = SHAPINGS[arm]
    config = TokenPPOConfig(
        learning_rate=RATE,
        critic_learning_rate=CRITIC_RATE,
        epochs=1,
        beta=beta,
        transform=transform,
        transform_options=options,
        references=references,
    )
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=COMPLETIONS, view="completion")
    learner = TokenPPO(policy, envs, reward=TableReward(task, proxy), config=config, seed=seed, device="cpu")
    learner.set_logger(Logger(None, []))
    exact = ExactCurve(policy, task, EVERY, gold=gold, proxy=proxy)
    learner.learn(COMPLETIONS * ROLLOUTS[scale], exact)
    return exact.table(KLS)


def pair_counts(task: TextEnum) -> np.ndarray:
    """(prompts, C, V^2) how often each pair of neighbouring letters stands in each completion, after the prompt."""
    listed, size = task.completions(), task.language.vocab_size
    shape = (len(task.language.prompt_tokens), *listed.shape)
    tokens = np.broadcast_to(listed, shape)
    last = np.broadcast_to(task.language.prompt_tokens[:, None, -1:], (*shape[:2], 1))
    kinds = np.where(tokens > 0, size * np.concatenate([last, tokens[..., :-1]], -1) + tokens, -1)
    return (kinds[..., None] == np.arange(size**2)).sum(-2).astype(float)


def proxy_reward(task: TextEnum, law: np.ndarray, pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(prompts, C) what is learned from answers that look at pairs of letters alone; the reference's mean is 0."""
    prompts, listed = len(law), task.completions()
    ids, tokens = np.repeat(np.arange(prompts), len(listed)), np.tile(listed, (prompts, 1))
    liked = task.factors(ids, tokens)["bigrams"].reshape(law.shape)
    teacher = Teacher(beta=1.0, scale="raw", eps_mistake=0.1)
    proxy = fit_reward_table(*draw_answered_pairs(law, liked, PAIRS, teacher, rng), pairs, ridge=RIDGE)
    return proxy - (law * proxy).sum() / prompts


def check(tables: Tables) -> Verdict:
    """Gold at the end and its fall from the peak, paired by seed."""
    gold, drop = ({arm: at_end(tables, arm, column) for arm in tables} for column in ("gold", "drop"))
    gains = np.sort([gold[ours] - gold[theirs] for ours, theirs in CENTRED], axis=0)  # by seed
    return decide(
        *(
            over_seeds(f"gold, par - {arm}", gold["par"] - gold[arm], MARGIN["lead"])
            for arm in ("vanilla", "min-max", "clip")
        ),
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
