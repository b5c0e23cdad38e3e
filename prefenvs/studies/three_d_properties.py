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

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.agents.text.policy_losses import ppo_token_loss
from prefenvs.metrics import group_mass
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
TESTS = (
    "tests/agents/text/losses/test_card68_3d_properties.py",
    "tests/prefenvs/metrics/test_card68_group_mass.py",
)
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
    group, prompt, *both = pairs(gold, np.random.default_rng(seed))
    start = torch.tensor(law(np.exp(task.demonstration_logprobs), group, [side == "on" for side in sides]))
    weights = fitted(lambda table: -(start * table.log_softmax(-1)).sum(1), gold.shape, rng, *FIT["start"])
    reference = logits(weights).log_softmax(-1).detach()
    before = [reference[prompt, side] for side in both]
    if loss == "ppo":

        def bradley_terry(table: torch.Tensor) -> torch.Tensor:
            return -logsigmoid(table[prompt, both[0]] - table[prompt, both[1]])

        reward = logits(fitted(bradley_terry, gold.shape, rng, *FIT["reward"])).detach()
    floor, best = float((reference.exp().numpy() * gold).sum(1).mean()), gold.max(1).mean()
    optimizer, tokens = torch.optim.Adam(weights, lr=RATE), 2 * [torch.ones(len(prompt), dtype=torch.float64)]
    rows, changes = [], np.zeros((max(BUDGETS[scale]) + 1, 2))
    for step in range(len(changes)):
        logps = logits(weights).log_softmax(-1)
        now = [logps[prompt, side] for side in both]
        changes[step] = [float((a.detach() - b).mean()) for a, b in zip(now, before, strict=True)]
        if step in BUDGETS[scale]:
            p = logps.detach().exp().numpy()
            value = ((p * gold).sum(1).mean() - floor) / (best - floor)
            found = (value, *changes[step], *group_mass(p, group, len(GROUPS)).mean(0))
            risen = np.append(np.flatnonzero(changes[: step + 1, 0] > 0), step)[0]
            rows.append({"budget": step, "fall": -float(changes[risen, 1])})
            rows[-1] |= dict(zip(COLUMNS, map(float, found), strict=True))
        if loss != "ppo":
            losses = PAIR_LOSSES[loss](PairLogps(*now, *before, *tokens), beta=BETA, **OPTIONS[loss])
        else:
            if step % PPO["steps a sample"] == 0:
                old = logps.detach()
                value_less_kl = reward - PPO["beta"] * (old - reference)
                advantage = value_less_kl - (old.exp() * value_less_kl).sum(1, keepdim=True)
            losses = (old.exp() * ppo_token_loss(logps, old, advantage)).sum(1)
        descend(optimizer, losses)
    return rows


def pairs(gold: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(prompts, responses) number of each response's group; prompt, chosen and rejected response of each pair."""
    shown = rng.permuted(np.tile(np.arange(gold.shape[1]), (len(gold), 1)), axis=1)[:, :SHOWN]
    best_first = np.take_along_axis(shown, np.argsort(-np.take_along_axis(gold, shown, 1), axis=1), 1)
    halves, group = np.split(best_first, 2, axis=1), np.full(gold.shape, 2)
    for number, half in enumerate(halves):
        np.put_along_axis(group, half, number, 1)
    prompt = np.repeat(np.arange(len(gold)), PAIRS)
    return group, prompt, *(half[prompt, rng.integers(half.shape[1], size=len(prompt))] for half in halves)


def law(demonstrations: np.ndarray, group: np.ndarray, on: list[bool]) -> np.ndarray:
    """(prompts, responses) the demonstrations' law, with the mass of each group made likely or not."""
    likely = np.array([*on, not any(on)])
    mass = np.where(likely, (1 - UNLIKELY * (~likely).sum()) / likely.sum(), UNLIKELY)
    return demonstrations * mass[group] / np.take_along_axis(group_mass(demonstrations, group, 3), group, 1)


def fitted(loss: Any, shape: tuple[int, ...], rng: torch.Generator, steps: int, rate: float) -> list[torch.Tensor]:
    """Weights of a network of that many prompts and responses whose table of logits has a low loss."""
    sizes = [(shape[0], WIDTH), (WIDTH, WIDTH), (WIDTH, shape[1])]
    scales = [1.0, WIDTH**-0.5, WIDTH**-0.5]
    weights = [s * torch.randn(size, generator=rng, dtype=torch.float64) for s, size in zip(scales, sizes, strict=True)]
    weights.append(torch.zeros(shape[1], dtype=torch.float64))
    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in weights], lr=rate)
    for _ in range(steps):
        descend(optimizer, loss(logits(weights)))
    return weights


def logits(weights: list[torch.Tensor]) -> torch.Tensor:
    """(prompts, responses)."""
    return (weights[0].tanh() @ weights[1]).tanh() @ weights[2] + weights[3]


def descend(optimizer: torch.optim.Optimizer, losses: torch.Tensor) -> None:
    """One step on the mean of losses."""
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()


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
    ("budget", "chosen"),
    ("budget", "rejected"),
    ("budget", "mass unseen"),
    arms=tuple(arm for arm in arms("full") if arm.endswith("off off")),
    xscale="symlog",
    names={"budget": "gradient steps"},
)
