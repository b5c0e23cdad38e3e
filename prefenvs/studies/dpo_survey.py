"""Twenty pair losses on the same pairs: with clean labels, with a fifth of them flipped, with length-biased ones.

TextLength: 8 prompts, 364 completions, whose true reward hardly depends on their length. For each prompt 50 pairs are
drawn from the demonstrations' law, which is the reference. Labels come from a teacher without noise on gold in
standard deviations under the reference; from the teacher that names the other one with probability 0.2; and from the
first one with 0.5 added for each token. Policies are tables of next-token logits that begin at the reference, trained
for 150 full-batch steps of Adam; those of a grid of six settings and the three kinds of labels run as one batch. The
setting is chosen for each kind of labels by gold on four prompts drawn by the seed, and everything but `chosen` is
read on the other four. Gold is the expected true reward less the reference's in those standard deviations, `length`
the expected number of tokens, `chosen` the change of log pi(y_w) on the labels trained on in nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prefenvs.agents.text import PAIR_LOSSES, exact
from prefenvs.metrics.kl_frontier import kl_divergence
from prefenvs.studies import Paper, Table, Tables, Verdict, decide, dots, lead, means, over_seeds, per_seed
from prefenvs.tasks.text.enumerable import TextLength
from prefenvs.tasks.text.language import completion_mask
from prefenvs.teacher import Teacher, draws_needed

PAPER = Paper(
    card="70",
    name="dpo-survey",
    title="A Survey of Direct Preference Optimization",
    authors="Liu et al.",
    year=2025,
    arxiv="2503.11701",
)
CLAIM = (
    "With 20% of labels flipped robust DPO, cDPO and IPO beat DPO by 0.05 sd of gold or more, and with clean labels "
    "they do not. With length-biased labels SimPO, R-DPO and length-normalised DPO write 15% less than DPO or shorter "
    "still, at a gold that is no more than 0.05 sd lower. DPOP and RPO leave chosen responses at least as likely as "
    "they were."
)
MARGIN = {"lead": 0.05, "shorter": 0.15, "equal": -0.05, "kept": 0.0}
PARTS = ("TextLength", "pair losses", "teachers oracle and mistake", "tree_logprobs")
TESTS = ("tests/agents/text/losses/test_card70_dpo_survey.py", "tests/agents/text/test_exact.py")
SEEDS = {"smoke": (0, 1), "full": (100, 101, 102, 103, 104)}
STEPS = {"smoke": 25, "full": 150}
PAIRS, FLIPS, TOKEN, RATE = 50, 0.2, 0.5, 0.05
LABELS = ("clean", "flipped", "length")
BETAS = {"beta": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)}
BETAS_A_TOKEN = {"beta": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)}
TWO_BETAS = (0.1, 0.1, 0.1, 0.5, 0.5, 0.5)
IMITATION = {"beta": TWO_BETAS, "nll_weight": (0.01, 0.03, 0.1, 0.01, 0.03, 0.1)}
GRIDS: dict[str, dict[str, Any]] = {
    "dpo": BETAS,
    "apo_zero": BETAS,
    "bco": BETAS,
    "cdpo": {**BETAS, "flip": 0.2},
    "cpo": IMITATION,
    "discopop": BETAS,
    "dpo_norm": BETAS_A_TOKEN,
    "dpop": BETAS,
    "exo": BETAS,
    "hinge": BETAS,
    "ipo": BETAS,
    "iterative_rpo": IMITATION,
    "js_dpo": BETAS,
    "nca": BETAS,
    "orpo": {"odds_weight": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)},
    "r_dpo": {"beta": TWO_BETAS, "length_weight": (0.1, 0.3, 1.0, 0.1, 0.3, 1.0)},
    "robust_dpo": {**BETAS, "flip": 0.2},
    "rpo": {**BETAS, "eta": 0.5},
    "simpo": BETAS_A_TOKEN,
    "sppo": BETAS,
}
"""Options of each loss: six settings, or one number for all."""


def arms(scale: str) -> tuple[str, ...]:
    """The losses."""
    return tuple(GRIDS)


def run(arm: str, seed: int, scale: str) -> Table:
    """A row for each kind of labels, with the setting that the validation prompts chose."""
    task, rng = TextLength(), np.random.default_rng(seed)
    gold, length = task.reward_table(), task.language.max_new_tokens
    tokens = completion_mask(task.completions(), task.language.eos, task.language.pad).sum(1)
    start = exact.memoryless_tree(task.demonstration_logprobs, length)
    law = exact.tree_logprobs(start, length).double().exp().numpy()
    gold = gold - (law * gold).sum(1, keepdims=True)
    gold = gold / np.sqrt((law * gold**2).sum(1).mean())
    pairs = labelled(gold, tokens, law, rng)
    logps, changes = exact.train_grid(
        PAIR_LOSSES[arm], GRIDS[arm], start, length, pairs, tokens, steps=STEPS[scale], rate=RATE
    )
    p = logps.double().exp().numpy()  # (kinds of labels, settings, prompts, completions)
    read = {"gold": (p * gold).sum(-1), "length": (p * tokens).sum(-1), "kl": kl_divergence(p, law)}
    validation, test = np.split(rng.permutation(len(gold)), 2)
    best = read["gold"][..., validation].mean(-1).argmax(1)
    rows = []
    for kind, setting in enumerate(best.tolist()):
        found = {key: float(value[kind, setting, test].mean()) for key, value in read.items()}
        rows.append({"labels": LABELS[kind], "setting": setting, **found, "chosen": float(changes[kind, setting])})
    return rows


def labelled(gold: np.ndarray, tokens: np.ndarray, law: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """(pairs,) prompt of each pair, and the chosen and the rejected completions (kinds of labels, pairs)."""
    prompt = np.repeat(np.arange(len(gold)), PAIRS)
    both, uniforms = exact.draw_two(law[prompt], rng), rng.random((len(prompt), draws_needed(2)))
    sides = []
    for kind in LABELS:
        liked = gold + (TOKEN * tokens if kind == "length" else 0.0)
        teacher = Teacher(eps_mistake=FLIPS if kind == "flipped" else 0.0)
        sides.append(exact.answered(both, liked[prompt[:, None], both], teacher, uniforms))
    return [prompt, *np.stack(sides, 1)]


def check(tables: Tables) -> Verdict:
    """Every part of the claim, paired by seed."""
    gold = {kind: {loss: per_seed(tables, loss, "gold", labels=kind) for loss in tables} for kind in LABELS}
    length = {loss: per_seed(tables, loss, "length", labels="length") for loss in tables}
    estimates = [
        lead(f"gold, {kind}", gold[kind], loss, "dpo", MARGIN["lead"], at_most=kind == "clean")
        for loss in ("robust_dpo", "cdpo", "ipo")
        for kind in ("flipped", "clean")
    ]
    for loss in ("simpo", "r_dpo", "dpo_norm"):
        shorter = 1 - length[loss] / length["dpo"]
        estimates.append(over_seeds(f"shorter than dpo, {loss} [share]", shorter, MARGIN["shorter"]))
        estimates.append(lead("gold, length", gold["length"], loss, "dpo", MARGIN["equal"]))
    for loss in ("dpop", "rpo"):
        change = per_seed(tables, loss, "chosen", labels="clean")
        estimates.append(over_seeds(f"change of chosen, {loss} [nats]", change, MARGIN["kept"]))
    return decide(*estimates)


summary = means("gold", "length", "chosen", across="labels")
draw = dots(summary, {"gold": "gold [sd]", "length": "length [tokens]"}, "labels", LABELS)
