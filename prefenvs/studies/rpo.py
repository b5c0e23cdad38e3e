"""DPO and RPO on pairs that show 8 of 30 responses to each prompt, and on pairs that show all.

TextBandit: 40 prompts, 30 responses, 2000 pairs drawn by the reference from the covered responses and answered by a
Boltzmann teacher. The policy is log-bilinear of rank 5 around the reference, so what a response gains or loses spills
over to responses that were never shown. All gradients are exact and full-batch; a budget is a number of steps. Gold is
the expected true reward, 0 for the reference and 1 for the best response to each prompt. `chosen` is the mean change of
log pi(y_w | x) from the reference in nats, and `covered` the probability of the responses that pairs may show.
"""

from __future__ import annotations

import numpy as np
import torch

from prefenvs.agents.text import PAIR_LOSSES, exact
from prefenvs.studies import Paper, Table, Tables, Verdict, at_end, curves, decide, means, over_seeds
from prefenvs.tasks.text.enumerable import TextBandit
from prefenvs.teacher import Teacher

PAPER = Paper(
    card="08",
    name="rpo",
    title="Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer",
    authors="Liu et al.",
    year=2024,
    arxiv="2405.16436",
)
CLAIM = (
    "Where pairs cover 8 of 30 responses, the log-probability of chosen responses falls by a nat or more under DPO and "
    "by at most 0.1 nat under RPO, and after the largest budget RPO's gold is higher by 0.1 or more of the way from "
    "the reference to the best. Where pairs cover all responses RPO's advantage is below 0.02."
)
MARGIN = {"falls": 1.0, "stays": -0.1, "lead": 0.1, "full": -0.02}
PARTS = ("TextBandit", "pair losses dpo and rpo", "Boltzmann teacher")
TESTS = ("tests/agents/text/losses/test_card08_rpo.py",)
SEEDS = {"smoke": (0, 1, 2), "full": tuple(range(100, 120))}
BUDGETS = {"smoke": (0, 30, 300), "full": (0, 30, 100, 300, 1000, 3000)}
BETA, ETA = 0.1, 0.5
PAIRS, RANK, RATE = 2000, 5, 0.05
COLUMNS = ("gold", "chosen", "rejected", "covered")
COVERED = {"narrow": 8, "full": 30}


def arms(scale: str) -> tuple[str, ...]:
    """A loss and how many responses its pairs cover."""
    return tuple(f"{loss} {coverage}" for coverage in COVERED for loss in ("dpo", "rpo"))


def run(arm: str, seed: int, scale: str) -> Table:
    """A row a budget."""
    loss, coverage = arm.split()
    task, rng = TextBandit(), torch.Generator().manual_seed(seed)
    gold, reference = map(torch.tensor, (task.reward_table(), task.demonstration_logprobs))  # (prompts, responses)
    law = reference.exp()
    covered, *pairs = shown_pairs(gold.numpy(), law.numpy(), COVERED[coverage], seed)
    start = [0.3 * torch.randn(side, RANK, generator=rng, dtype=torch.float64) for side in gold.shape]
    weights = [side.clone().requires_grad_() for side in (*start, torch.zeros(gold.shape[1], dtype=torch.float64))]
    shown = exact.TablePairs(reference, *pairs)
    options = {"beta": BETA} | ({"eta": ETA} if loss == "rpo" else {})
    steps = exact.descent(
        torch.optim.Adam(weights, lr=RATE),
        lambda: (reference + weights[0] @ weights[1].T - start[0] @ start[1].T + weights[2]).log_softmax(-1),
        shown.mean_loss(PAIR_LOSSES[loss], **options),
        max(BUDGETS[scale]),
    )
    rows = []
    for step, logps in enumerate(steps):
        if step in BUDGETS[scale]:
            p, now = logps.exp(), shown.read(logps)
            rows.append(
                {
                    "budget": step,
                    "gold": exact.share_of_best(p, gold, law),
                    "chosen": float(now.chosen_ratio.mean()),
                    "rejected": float(now.rejected_ratio.mean()),
                    "covered": float(p.gather(1, covered).sum(1).mean()),
                }
            )
    return rows


def shown_pairs(gold: np.ndarray, law: np.ndarray, covered: int, seed: int) -> tuple[torch.Tensor, ...]:
    """The (prompts, covered) responses that may be shown; prompt, chosen and rejected of each pair, (PAIRS,)."""
    rng = np.random.default_rng(seed)
    shown = exact.some_responses(gold.shape, covered, rng)
    their_law, scores = (np.take_along_axis(table, shown, 1) for table in (law, gold))
    teacher = Teacher(beta=1.0, scale="raw")
    prompt, *sides = exact.draw_answered_pairs(their_law, scores, PAIRS, teacher, rng)
    return tuple(map(torch.tensor, (shown, prompt, *(shown[prompt, side] for side in sides))))


def check(tables: Tables) -> Verdict:
    """Every part of the claim at the largest budget, paired by seed."""
    gold, chosen = ({arm: at_end(tables, arm, column) for arm in tables} for column in ("gold", "chosen"))
    return decide(
        over_seeds("fall of chosen, DPO", -chosen["dpo narrow"], MARGIN["falls"]),
        over_seeds("change of chosen, RPO", chosen["rpo narrow"], MARGIN["stays"]),
        over_seeds("gold, RPO - DPO, narrow", gold["rpo narrow"] - gold["dpo narrow"], MARGIN["lead"]),
        over_seeds("gold, DPO - RPO, full coverage", gold["dpo full"] - gold["rpo full"], MARGIN["full"]),
    )


summary = means(*COLUMNS, last=True)
draw = curves(
    ("budget", "gold"),
    ("budget", "chosen"),
    dashed="full",
    xscale="symlog",
    names={"budget": "gradient steps", "chosen": "change of log pi(chosen) [nats]"},
)
