"""A reward a step of the reasoning, where tokens say that a step ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefenvs.agents.reward_models.text.scalar import draw_heads, trainable_copy
from prefenvs.agents.reward_models.text.surface import TextRewardModel
from prefenvs.tasks.text.lm.sampling import completion_mask


def step_ends(completions: Tensor, separators: Sequence[int], eos: int, pad: int) -> Tensor:
    """Where the steps of completions end.

    A step ends with a separator, and the last one with the completion; an end token right after a separator is no step.

    Args:
        completions: (n, T).
        separators: tokens that end a step.
        eos: token that ends a completion.
        pad: token that fills what is left.

    Returns:
        (n, K) int64 place of the last token of each step, -1 where a row has fewer than K.
    """
    mask = completion_mask(completions, eos, pad)
    separates = torch.isin(completions, torch.tensor(list(separators), device=completions.device)) & mask
    lengths = mask.sum(1, keepdim=True)
    places = torch.arange(completions.shape[1], device=completions.device)
    after_separator = separates.roll(1, 1) & (places > 0)
    last = (places == lengths - 1) & ~((completions == eos) & after_separator)
    ends = separates | last
    count = ends.sum(1, keepdim=True)
    first = (~ends).int().argsort(dim=1, stable=True)[:, : int(count.max()) if len(count) else 0]
    return torch.where(places[: first.shape[1]] < count, first, -1)


def at_step_ends(values: Tensor, ends: Tensor, tokens: int) -> Tensor:
    """(n, tokens) with values (n, K) at the last tokens of their steps and 0 elsewhere; see `step_ends`."""
    room = values.new_zeros(len(values), tokens + 1)  # the last column takes what belongs to no step
    return room.scatter(1, torch.where(ends >= 0, ends, tokens), values)[:, :tokens]


class ProcessReward(TextRewardModel):
    """How likely each step is right, read from the stream after it; a completion's reward is log P(all are right).

    Lightman et al. 2023, arXiv:2305.20050: the product over steps. Trained on labels of steps by `step_loss`, or on
    preferences between completions like any reward model.

    Example:
        >>> import torch
        >>> from prefenvs.tasks.text.lm import Decoder
        >>> trunk = Decoder(6, 12, layers=1, width=16, heads=2)
        >>> model = ProcessReward(trunk, rng=torch.Generator().manual_seed(0), separators=(5,))
        >>> quality, ends = model.steps(torch.tensor([[1, 2]]), torch.tensor([[3, 5, 4, 4, 5, 0]]))
        >>> ends.tolist()                                            # two steps, and no third for the end token
        [[1, 4]]
    """

    supports = TextRewardModel.supports | {"steps", "token_rewards"}

    def __init__(
        self,
        model: Any,
        *,
        rng: torch.Generator,
        separators: Sequence[int],
        margin: float = 0.0,
        centring: float = 0.0,
    ) -> None:
        """Start from a copy of `model`, a LanguageModel.

        Args:
            model: the trunk; best one that was trained on demonstrations.
            rng: draws the head.
            separators: tokens that end a step.
            margin: see TextModel.
            centring: see TextRewardModel.
        """
        super().__init__(model, 1, margin=margin, centring=centring)
        self.trunk, self.separators = trainable_copy(model), tuple(separators)
        self.head, self.bias = draw_heads(model, 1, rng)

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "separators": list(self.separators)}

    def logits(self, prompts: Tensor, completions: Tensor) -> tuple[Tensor, Tensor]:
        """(n, K) log-odds that each step is right, inf where a row has fewer steps, and (n, K) places of their ends."""
        ends = step_ends(completions, self.separators, self.eos, self.pad)
        streams = self.trunk.hidden(prompts, completions)
        at = (ends.clamp(min=0) + 1)[..., None].expand(-1, -1, streams.shape[-1])
        logits = streams.gather(1, at).float() @ self.head[0] + self.bias[0]
        return torch.where(ends >= 0, logits, torch.inf), ends

    def steps(self, prompts: Tensor, completions: Tensor) -> tuple[Tensor, Tensor]:
        """(n, K) probability that each step is right, 1 where a row has fewer steps, and (n, K) places of their ends.

        The places are those of `step_ends`. REWARD_TRANSFORMS "clip_steps" and "delta_steps" read such qualities.
        """
        logits, ends = self.logits(prompts, completions)
        return logits.sigmoid(), ends

    def token_rewards(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T) log P(step is right) at the last token of each step, 0 elsewhere; the sum is the reward, uncentred."""
        logits, ends = self.logits(prompts, completions)
        return at_step_ends(logsigmoid(logits), ends, completions.shape[1])

    def raw_scores(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(1, n) log P(all steps are right), in nats."""
        return logsigmoid(self.logits(prompts, completions)[0]).sum(-1)[None]

    def step_loss(self, prompts: Tensor, completions: Tensor, correct: Tensor) -> Tensor:
        """Cross-entropy of labelled steps.

        Args:
            prompts: (n, P).
            completions: (n, T).
            correct: (n, K) probability that each step is right, in the order of `step_ends`; nan where not labelled.

        Returns:
            (n,) sum over the labelled steps, in nats.

        Raises:
            ValueError: if `correct` has another number of steps than the completions.
        """
        logits, ends = self.logits(prompts, completions)
        if correct.shape != logits.shape:
            raise ValueError(
                f"correct has shape {tuple(correct.shape)}, expected (n, K) = {tuple(logits.shape)}: "
                "a label for each place of step_ends(), nan where there is none."
            )
        known = (ends >= 0) & ~correct.isnan()
        safe, target = torch.where(known, logits, 0.0), torch.where(known, correct, 0.0)
        return -((target * logsigmoid(safe) + (1 - target) * logsigmoid(-safe)) * known).sum(-1)
