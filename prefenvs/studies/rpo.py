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

from prefenvs.agents.text.exact import draw_two
from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.studies import Paper, Table, Tables, Verdict, at_end, curves, decide, means, over_seeds
from prefenvs.tasks.text.enumerable import TextBandit
from prefenvs.teacher import Teacher, choose, draws_needed

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
    task = TextBandit()
    gold = torch.tensor(task.reward_table())  # (prompts, responses)
    reference = torch.tensor(task.demonstration_logprobs)
    covered, prompt, chosen, rejected = pairs(gold.numpy(), reference.exp().numpy(), COVERED[coverage], seed)
    rng = torch.Generator().manual_seed(seed)
    start = [0.3 * torch.randn(len(side), RANK, generator=rng, dtype=torch.float64) for side in (gold, gold.T)]
    weights = [side.clone().requires_grad_() for side in (*start, torch.zeros(gold.shape[1], dtype=torch.float64))]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    options = {"beta": BETA} | ({"eta": ETA} if loss == "rpo" else {})
    floor, best = (reference.exp() * gold).sum(1).mean(), gold.max(1).values.mean()
    rows = []
    for step in range(max(BUDGETS[scale]) + 1):
        logits = reference + weights[0] @ weights[1].T - start[0] @ start[1].T + weights[2]
        policy = logits.log_softmax(-1)
        read = [table[prompt, side] for table in (policy, reference) for side in (chosen, rejected)]
        if step in BUDGETS[scale]:
            p = policy.detach().exp()
            rows.append(
                {
                    "budget": step,
                    "gold": float(((p * gold).sum(1).mean() - floor) / (best - floor)),
                    "chosen": float((read[0] - read[2]).mean()),
                    "rejected": float((read[1] - read[3]).mean()),
                    "covered": float(p.gather(1, covered).sum(1).mean()),
                }
            )
        optimizer.zero_grad()
        PAIR_LOSSES[loss](PairLogps(*read), **options).mean().backward()
        optimizer.step()
    return rows


def pairs(gold: np.ndarray, law: np.ndarray, covered: int, seed: int) -> tuple[torch.Tensor, ...]:
    """The (prompts, covered) responses shown, and prompt, chosen and rejected response of each pair, (PAIRS,)."""
    rng = np.random.default_rng(seed)
    shown = rng.permuted(np.tile(np.arange(gold.shape[1]), (len(gold), 1)), axis=1)[:, :covered]
    prompt = rng.integers(len(gold), size=PAIRS)
    both = np.take_along_axis(shown[prompt], draw_two(np.take_along_axis(law, shown, 1)[prompt], rng), 1)
    scores, uniforms = gold[prompt[:, None], both], rng.random((PAIRS, draws_needed(2)))
    first = choose(Teacher(beta=1.0, scale="raw"), scores, uniforms)[:, 0] == 1
    return tuple(map(torch.tensor, (shown, prompt, np.where(first, *both.T), np.where(first, *both.T[::-1]))))


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
