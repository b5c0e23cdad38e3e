"""What direct alignment does to chosen, rejected and unseen responses, on pairs that the policy writes or another did.

TextBandit: 40 prompts, 30 responses. For each prompt 20 responses drawn at random are shown, the better 10 always as
chosen and the others as rejected, and 10 are unseen; 25 pairs a prompt. The policy is a network of two tanh layers of
32 that all prompts share, fitted to a law in which each group that is "on" policy is likely and each other group has
0.05; where both are "off" the likely group is the unseen one. Losses: DPO with beta 0.1; Flex-DPO with 0.05 for the
rejected response; DPO with 0.03 of the chosen response's negative log-likelihood (iterative_rpo); and PPO in exact
expectation with a KL penalty of 0.3, on a reward that the same network learned from the same pairs by Bradley-Terry.
All gradients are full-batch; one budget for all. `chosen` and `rejected` are mean changes of log pi in nats, `fall`
that of rejected responses (down counts positive) when the chosen ones first become likelier than at the start, or at
the end if they never do. Gold is the expected true reward, 0 for the start and 1 for the best response to each prompt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from prefenvs.agents.text import PAIR_LOSSES, exact
from prefenvs.metrics import group_mass, with_group_mass
from prefenvs.studies import Paper, Table, Tables, Verdict, at_end, curves, decide, means, over_seeds
from prefenvs.tasks.text.enumerable import TextBandit

PAPER = Paper(
    card="68",
    name="3d-properties",
    title="3D-Properties: Identifying Challenges in DPO and Charting a Path Forward",
    authors="Yan et al.",
    year=2024,
    arxiv="2406.07327",
)
CLAIM = (
    "Off policy, DPO lowers the log-probability of rejected responses by 10 nats before that of chosen ones rises; "
    "chosen responses end less likely than they began in 80% of seeds or more; responses that no pair showed end with "
    "a mass of 0.2 or more, and of 0.05 at most with an SFT term. On policy chosen responses fall less. Gold is in the "
    "order PPO, Flex-DPO and DPO with SFT, DPO."
)
MARGIN = {"fall": 10.0, "share": 0.8, "unseen": 0.2, "unseen with sft": 0.05, "milder": 0.0, "order": 0.0}
PARTS = ("TextBandit", "pair losses dpo, flex_dpo and iterative_rpo", "ppo_token_loss", "metric group_mass")
TESTS = ("tests/agents/text/losses/test_card68_3d_properties.py", "tests/prefenvs/metrics/test_card68_group_mass.py")
SEEDS = {"smoke": (0, 1), "full": tuple(range(100, 110))}
BUDGETS = {"smoke": (0, 10, 30, 100), "full": (0, 3, 10, 30, 100, 200, 500)}
GROUPS = ("chosen", "rejected", "unseen")
SHOWN, PAIRS, UNLIKELY = 20, 25, 0.05
WIDTH, RATE, FIT = 32, 0.005, {"start": (300, 0.01), "reward": (150, 0.005)}
OPTIONS = {"dpo": {}, "flex_dpo": {"rejected_beta": 0.05}, "iterative_rpo": {"nll_weight": 0.03}}
PPO = {"beta": 0.3, "steps a sample": 4}
BETA = 0.1
COLUMNS = ("gold", *GROUPS[:2], *(f"mass {group}" for group in GROUPS))


def arms(scale: str) -> tuple[str, ...]:
    """A loss, and whether chosen and rejected responses are the policy's own."""
    pairs = ("on on", "on off", "off on", "off off")
    return (*(f"dpo {sides}" for sides in pairs), "flex_dpo off off", "iterative_rpo off off", "ppo off off")


def run(arm: str, seed: int, scale: str) -> Table:
    """A row a budget."""
    loss, *sides = arm.split()
    task, rng = TextBandit(), torch.Generator().manual_seed(seed)
    gold = task.reward_table()  # (prompts, responses)
    group, prompt, chosen, rejected = pairs(gold, np.random.default_rng(seed))
    likely = np.array([side == "on" for side in sides] + [sides == ["off", "off"]])
    mass = np.where(likely, (1 - UNLIKELY * (~likely).sum()) / likely.sum(), UNLIKELY)
    start = torch.tensor(with_group_mass(np.exp(task.demonstration_logprobs), group, mass))
    policy = exact.SharedTable(gold.shape, WIDTH, rng)
    policy.fit(lambda table: -(start * table.log_softmax(-1)).sum(1).mean(), *FIT["start"])
    reference = policy().log_softmax(-1).detach()
    shown = exact.TablePairs(reference, *map(torch.tensor, (prompt, chosen, rejected)))
    if loss == "ppo":
        reward = exact.SharedTable(gold.shape, WIDTH, rng)
        reward.fit(lambda table: -logsigmoid(table[prompt, chosen] - table[prompt, rejected]).mean(), *FIT["reward"])
        objective: Any = exact.ExactPPO(reward().detach(), reference, PPO["beta"], PPO["steps a sample"])
    else:
        objective = shown.mean_loss(PAIR_LOSSES[loss], beta=BETA, **OPTIONS[loss])
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    steps = exact.descent(optimizer, lambda: policy().log_softmax(-1), objective, max(BUDGETS[scale]))
    rows, changes = [], []
    for step, logps in enumerate(steps):
        now, p = shown.read(logps), logps.exp().numpy()
        changes.append((float(now.chosen_ratio.mean()), float(now.rejected_ratio.mean())))
        if step in BUDGETS[scale]:
            value = exact.share_of_best(p, gold, reference.exp().numpy())
            found = (value, *changes[step], *group_mass(p, group, len(GROUPS)).mean(0).tolist())
            risen = next((rejected for chosen, rejected in changes if chosen > 0), changes[step][1])
            rows.append({"budget": step, "fall": -risen, **dict(zip(COLUMNS, found, strict=True))})
    return rows


def pairs(gold: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(prompts, responses) number of each response's group; prompt, chosen and rejected response of each pair."""
    shown = exact.some_responses(gold.shape, SHOWN, rng)
    best_first = np.take_along_axis(shown, np.argsort(-np.take_along_axis(gold, shown, 1), axis=1), 1)
    halves, group = np.split(best_first, 2, axis=1), np.full(gold.shape, 2)
    for number, half in enumerate(halves):
        np.put_along_axis(group, half, number, 1)
    prompt = np.repeat(np.arange(len(gold)), PAIRS)
    return group, prompt, *(half[prompt, rng.integers(half.shape[1], size=len(prompt))] for half in halves)


def check(tables: Tables) -> Verdict:
    """Every part of the claim at the largest budget, paired by seed."""

    def last(loss: str, column: str, sides: str = "off off") -> np.ndarray:
        return at_end(tables, f"{loss} {sides}", column)

    milder, sft = last("dpo", "chosen", "on on") - last("dpo", "chosen"), last("iterative_rpo", "mass unseen")
    order = [("ppo", "flex_dpo"), ("ppo", "iterative_rpo"), ("flex_dpo", "dpo"), ("iterative_rpo", "dpo")]
    return decide(
        over_seeds("fall of rejected before chosen rise, DPO [nats]", last("dpo", "fall"), MARGIN["fall"]),
        over_seeds("share of seeds whose chosen fall, DPO", last("dpo", "chosen") < 0, MARGIN["share"]),
        over_seeds("unseen mass, DPO", last("dpo", "mass unseen"), MARGIN["unseen"]),
        over_seeds("unseen mass, DPO with SFT", sft, MARGIN["unseen with sft"], at_most=True),
        over_seeds("change of chosen, DPO, on - off policy [nats]", milder, MARGIN["milder"]),
        *(over_seeds(f"gold, {a} - {b}", last(a, "gold") - last(b, "gold"), MARGIN["order"]) for a, b in order),
    )


summary = means("fall", *COLUMNS, last=True)
draw = curves(
    *(("budget", column) for column in ("chosen", "rejected", "mass unseen")),
    arms=tuple(arm for arm in arms("full") if arm.endswith("off off")),
    xscale="symlog",
    names={"budget": "gradient steps"},
)
