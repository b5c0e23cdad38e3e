"""From pairs of completions to the numbers that pair losses read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefenvs.agents.text.losses import PairLogps
from prefenvs.agents.text.losses.token_statistics import guided_ratio, log_collision, sequential_kl
from prefenvs.agents.text.preference_pairs import PreferencePairs
from prefenvs.tasks.text.lm import completion_mask, token_logprobs

READS: dict[str, str] = {
    "infonca": "scores",
    "odpo": "scores",
    "selm": "sampled",
    "tdpo1": "sequential_kl",
    "tdpo2": "sequential_kl",
    "tgdpo": "guide",
    "vpo": "sampled",
    "wpo": "log_collision",
    "xpo": "sampled",
}
"""What a pair loss reads beside log-probabilities and numbers of tokens; `READS["mine"] = "scores"` for yours."""


def pair_logps(
    policy: Any, reference: Any, pairs: PreferencePairs, reads: str | None = None, guide: Any = None
) -> PairLogps:
    """What a pair loss reads, with gradients to the policy.

    Args:
        policy: a LanguageModel.
        reference: the policy at the beginning; read here only for what `pairs.reference` does not hold.
        pairs: n pairs with their reference log-probabilities.
        reads: an entry of READS, or None.
        guide: a policy whose log-ratio to the reference guides the tokens (TGDPO).
    """
    assert pairs.reference is not None, "fill pairs.reference with with_reference()"
    tokens, prompts = _stacked(pairs)
    mask = completion_mask(tokens, policy.eos, policy.pad)
    logits = policy.logits(prompts, tokens)
    logps = torch.where(mask, token_logprobs(logits, tokens), 0.0)
    sums, n = logps.sum(-1), len(pairs)
    facts: dict[str, Tensor] = {
        "policy_chosen": sums[:n],
        "policy_rejected": sums[n : 2 * n],
        "reference_chosen": pairs.reference[:, 0],
        "reference_rejected": pairs.reference[:, 1],
    }
    facts |= _sides("tokens", mask.sum(-1).to(sums.dtype), n)
    if pairs.scores is not None:
        facts |= {"chosen_score": pairs.scores[:, 0], "rejected_score": pairs.scores[:, 1]}
    if pairs.sampled is not None:
        facts |= {"policy_sampled": sums[2 * n :], "reference_sampled": pairs.reference[:, 2]}
    if reads == "log_collision":
        facts |= _sides("log_collision", log_collision(logits, mask), n)
    if reads in ("sequential_kl", "guide"):
        with torch.no_grad():
            reference_logits = reference.logits(prompts, tokens)
    if reads == "sequential_kl":
        facts |= _sides("sequential_kl", sequential_kl(reference_logits, logits, mask), n)
    if reads == "guide":
        with torch.no_grad():
            before = torch.where(mask, token_logprobs(reference_logits, tokens), 0.0)
            guidance = guide.logprobs(prompts, tokens) - before
        facts |= _sides("guided_ratio", guided_ratio(logps, before, guidance, mask), n)
    return PairLogps(**facts)


@torch.no_grad()
def with_reference(reference: Any, pairs: PreferencePairs, batch: int = 512) -> PreferencePairs:
    """The pairs with log-probabilities under the reference, computed once, `batch` pairs at a time."""
    parts = []
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        tokens, prompts = _stacked(part)
        parts.append(reference.logprobs(prompts, tokens).sum(-1).reshape(-1, len(part)).T)
    columns = 2 if pairs.sampled is None else 3
    empty = pairs.weight.new_zeros(0, columns)
    return PreferencePairs(**{**vars(pairs), "reference": torch.cat([empty, *parts])})


@torch.no_grad()
def mismatched_ratios(policy: Any, reference: Any, pairs: PreferencePairs) -> Tensor:
    """(2n,) log pi(y' | x) - log ref(y' | x) in nats, y' the completions of the next pair: KTO's estimate of the KL."""
    prompts = pairs.prompts.roll(1, 0).repeat(2, 1)
    tokens = torch.cat([pairs.chosen, pairs.rejected])
    return (policy.logprobs(prompts, tokens) - reference.logprobs(prompts, tokens)).sum(-1)


def _stacked(pairs: PreferencePairs) -> tuple[Tensor, Tensor]:
    """Completions (2n or 3n, T), first all chosen, then all rejected, then all sampled ones, and their prompts."""
    parts = [pairs.chosen, pairs.rejected, *([] if pairs.sampled is None else [pairs.sampled])]
    return torch.cat(parts), pairs.prompts.repeat(len(parts), 1)


def _sides(name: str, values: Tensor, n: int) -> dict[str, Tensor]:
    return {f"chosen_{name}": values[:n], f"rejected_{name}": values[n : 2 * n]}
