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
import torch

from prefenvs.agents.text.exact import draw_two, tree_logprobs
from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.metrics.kl_frontier import kl_divergence
from prefenvs.studies import Paper, Table, Tables, Verdict, decide, means, over_seeds, per_seed
from prefenvs.tasks.text.enumerable import TextLength
from prefenvs.tasks.text.language import completion_mask
from prefenvs.teacher import Teacher, choose, draws_needed

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
    gold, listed, steps = task.reward_table(), task.completions(), task.language.max_new_tokens
    tokens = completion_mask(listed, task.language.eos, task.language.pad).sum(1)
    beginnings = sum((task.language.vocab_size - 1) ** t for t in range(steps))
    start = torch.tensor(task.demonstration_logprobs, dtype=torch.float32)[:, None].repeat(
        1, beginnings, 1
    )  # (prompts, N, V)
    reference = tree_logprobs(start, steps)
    law = reference.double().exp().numpy()
    mean = (law * gold).sum(1, keepdims=True)
    gold = (gold - mean) / np.sqrt((law * (gold - mean) ** 2).sum(1).mean())
    prompt, sides = labelled(gold, tokens, law, rng)

    grid = {key: value for key, value in GRIDS[arm].items() if isinstance(value, tuple)}
    settings = len(next(iter(grid.values())))
    policies = len(LABELS) * settings  # one after another: all settings of the first kind of labels, then the next
    each = torch.arange(policies)[:, None]
    pair = [torch.tensor(side.repeat(settings, axis=0)) for side in sides]  # (policies, pairs), chosen and rejected
    options = dict(GRIDS[arm])
    for key, values in grid.items():
        options[key] = torch.tensor(values).tile(len(LABELS)).repeat_interleave(len(prompt))
    held = [reference[prompt, side].flatten() for side in pair]
    lengths = [torch.tensor(tokens)[side].flatten() for side in pair]
    tables = start.repeat(policies, 1, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([tables], lr=RATE, fused=True)
    for _ in range(STEPS[scale]):
        logps = tree_logprobs(tables, steps)
        now = [logps[each, prompt, side].flatten() for side in pair]
        loss = PAIR_LOSSES[arm](PairLogps(*now, *held, *lengths), **options)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()

    logps = tree_logprobs(tables.detach(), steps)
    chosen = (logps[each, prompt, pair[0]].flatten() - held[0]).reshape(policies, -1).mean(1).numpy()
    p = logps.double().exp().numpy()  # (policies, prompts, completions)
    read = {"gold": (p * gold).sum(2), "length": (p * tokens).sum(2), "kl": kl_divergence(p, law)}
    validation, test = np.split(rng.permutation(len(gold)), 2)
    best = read["gold"][:, validation].mean(1).reshape(len(LABELS), settings).argmax(1)
    rows = []
    for number, (kind, setting) in enumerate(zip(LABELS, best, strict=True)):
        policy = number * settings + setting
        found = {key: float(value[policy, test].mean()) for key, value in read.items()}
        rows.append({"labels": kind, "setting": int(setting), **found, "chosen": float(chosen[policy])})
    return rows


def labelled(
    gold: np.ndarray, tokens: np.ndarray, law: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) prompt of each pair, and its chosen and rejected completions (2, kinds of labels, pairs)."""
    prompt = np.repeat(np.arange(len(gold)), PAIRS)
    both = draw_two(law[prompt], rng)  # by the reference
    uniforms, sides = rng.random((len(prompt), draws_needed(2))), []
    for kind in LABELS:
        teacher = Teacher(eps_mistake=FLIPS if kind == "flipped" else 0.0)
        liked = gold + (TOKEN * tokens if kind == "length" else 0.0)
        choice = choose(teacher, liked[prompt[:, None], both], uniforms)
        sides.append(np.take_along_axis(both, np.argsort(-choice, axis=1), 1).T)
    return prompt, np.stack(sides, 1)


def check(tables: Tables) -> Verdict:
    """Every part of the claim, paired by seed."""

    def of(loss: str, column: str, kind: str) -> np.ndarray:
        return per_seed(tables, loss, column, labels=kind)

    estimates = []
    for loss in ("robust_dpo", "cdpo", "ipo"):
        for kind in ("flipped", "clean"):
            lead = of(loss, "gold", kind) - of("dpo", "gold", kind)
            estimates.append(over_seeds(f"gold, {kind}, {loss} - dpo", lead, MARGIN["lead"], at_most=kind == "clean"))
    for loss in ("simpo", "r_dpo", "dpo_norm"):
        shorter = 1 - of(loss, "length", "length") / of("dpo", "length", "length")
        lead = of(loss, "gold", "length") - of("dpo", "gold", "length")
        estimates.append(over_seeds(f"shorter than dpo, {loss} [share]", shorter, MARGIN["shorter"]))
        estimates.append(over_seeds(f"gold, length, {loss} - dpo", lead, MARGIN["equal"]))
    kept = {loss: of(loss, "chosen", "clean") for loss in ("dpop", "rpo")}
    estimates += [
        over_seeds(f"change of chosen, {loss} [nats]", change, MARGIN["kept"]) for loss, change in kept.items()
    ]
    return decide(*estimates)


summary = means("gold", "length", "chosen", across="labels")


def draw(tables: Tables, figure: Any) -> None:
    """Gold and length of each loss, a colour for each kind of labels, in the order of gold with clean ones."""
    rows = sorted(summary(tables), key=lambda row: row["gold clean"])
    axes = figure.subplots(1, 2, sharey=True)
    for axis, column, label in zip(axes, ("gold", "length"), ("gold [sd]", "length [tokens]"), strict=True):
        for kind, marker in zip(LABELS, "os^", strict=True):
            axis.plot([row[f"{column} {kind}"] for row in rows], range(len(rows)), marker, markersize=4, label=kind)
        axis.set(xlabel=label)
    axes[0].set_yticks(range(len(rows)), [row["arm"] for row in rows], fontsize=8)
    axes[0].legend(title="labels")
