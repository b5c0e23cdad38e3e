"""What every pair loss reads: log-probabilities of a chosen and a rejected response to the same prompt."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

_SIDES = (
    ("policy_chosen", "policy_rejected"),
    ("reference_chosen", "reference_rejected"),
    ("chosen_tokens", "rejected_tokens"),
    ("chosen_score", "rejected_score"),
    ("chosen_sequential_kl", "rejected_sequential_kl"),
    ("chosen_log_collision", "rejected_log_collision"),
    ("chosen_guided_ratio", "rejected_guided_ratio"),
)


@dataclass(frozen=True, eq=False)
class PairLogps:
    """n pairs of responses as numbers a loss can be computed from; each field is (n,), in nats where not said.

    Log-probabilities are *sums* over the tokens of the response, its end-of-sequence token included, padding excluded.
    They are `lm.logprobs(prompts, completions).sum(1)` of the suite's language models. Only the policy's own carry
    gradients. What a loss does not read may be left out.

    Raises:
        ValueError: if the fields that are given are not all of one shape (n,).
    """

    policy_chosen: torch.Tensor
    """log pi(y_w | x)."""
    policy_rejected: torch.Tensor
    """log pi(y_l | x)."""
    reference_chosen: torch.Tensor | None = None
    """log ref(y_w | x)."""
    reference_rejected: torch.Tensor | None = None
    """log ref(y_l | x)."""
    chosen_tokens: torch.Tensor | None = None
    """|y_w|, tokens counted in the sums above."""
    rejected_tokens: torch.Tensor | None = None
    """|y_l|."""
    chosen_score: torch.Tensor | None = None
    """Reward or rating of y_w, in its own units."""
    rejected_score: torch.Tensor | None = None
    """Reward or rating of y_l."""
    chosen_sequential_kl: torch.Tensor | None = None
    """sum_t KL(ref(. | x, y_w[:t]) || pi(. | x, y_w[:t])), from `token_statistics.sequential_kl`."""
    rejected_sequential_kl: torch.Tensor | None = None
    """The same along y_l."""
    chosen_log_collision: torch.Tensor | None = None
    """sum_t log sum_v pi(v | x, y_w[:t])^2, from `token_statistics.log_collision`."""
    rejected_log_collision: torch.Tensor | None = None
    """The same along y_l."""
    chosen_guided_ratio: torch.Tensor | None = None
    """sum_t g_t log pi(y_t)/ref(y_t) along y_w, g_t a guiding reward a token, from `token_statistics.guided_ratio`."""
    rejected_guided_ratio: torch.Tensor | None = None
    """The same along y_l."""
    policy_sampled: torch.Tensor | None = None
    """log pi(y | x) of a third response y, drawn from the reference or another calibration policy."""
    reference_sampled: torch.Tensor | None = None
    """log ref(y | x) of that response."""

    def __post_init__(self) -> None:
        """Check that all fields are (n,)."""
        shape = self.policy_chosen.shape
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value.dim() != 1 or value.shape != shape):
                raise ValueError(
                    f"{field.name} has shape {tuple(value.shape)}, expected (n,), the same for all fields; "
                    f"policy_chosen has {tuple(shape)}. Sum log-probabilities over the response's tokens first."
                )

    def need(self, name: str) -> torch.Tensor:
        """The field of that name, (n,).

        Raises:
            ValueError: if it was not given.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(
                f"This loss reads {name}, which was not given. Pass PairLogps(..., {name}=...), shape (n,)."
            )
        return value

    @property
    def chosen_ratio(self) -> torch.Tensor:
        """(n,) a_w = log pi(y_w | x) - log ref(y_w | x)."""
        return self.policy_chosen - self.need("reference_chosen")

    @property
    def rejected_ratio(self) -> torch.Tensor:
        """(n,) a_l = log pi(y_l | x) - log ref(y_l | x)."""
        return self.policy_rejected - self.need("reference_rejected")

    @property
    def margin(self) -> torch.Tensor:
        """(n,) D = a_w - a_l."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def chosen_mean(self) -> torch.Tensor:
        """(n,) log pi(y_w | x) / |y_w|, nats a token."""
        return self.policy_chosen / self.need("chosen_tokens")

    @property
    def rejected_mean(self) -> torch.Tensor:
        """(n,) log pi(y_l | x) / |y_l|, nats a token."""
        return self.policy_rejected / self.need("rejected_tokens")

    def swapped(self) -> PairLogps:
        """The same pairs with chosen and rejected exchanged: what a flipped label gives."""
        changes: dict[str, Any] = {}
        for chosen, rejected in _SIDES:
            changes |= {chosen: getattr(self, rejected), rejected: getattr(self, chosen)}
        return replace(self, **changes)
