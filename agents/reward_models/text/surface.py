"""What reward models of text share: they score completions of prompts, and read queries of either view of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prefenvs.agents.reward_models.losses import bradley_terry_loss, centring_penalty
from prefenvs.agents.reward_models.text.preferences import TextPreferences
from prefenvs.agents.reward_models.training import AnsweredQueries
from prefenvs.segments import Label, Query, Segments, TorchSegments, map_arrays
from prefenvs.tasks.text.language import prompts_and_completions
from prefenvs.tasks.text.lm.decoder import Decoder
from prefenvs.tasks.text.lm.sampling import completion_mask


def decoder_shape(model: Any) -> dict[str, int]:
    """Arguments that make a Decoder like `model`; none where it is another language model."""
    if not isinstance(model, Decoder):
        return {}
    names = ("vocab_size", "context", "width", "heads", "eos", "pad")
    return {"layers": len(model.blocks), **{name: getattr(model, name) for name in names}}


class TextModel(nn.Module):
    """A model of what a teacher prefers among completions; a subclass fills `losses` and `prefer`.

    Prompts are (n, P) int64, left-padded; completions (n, T), right-padded: what follows their end never counts. In
    the view of one token a step a segment that ends within a completion is judged by what is written up to there.
    """

    supports: frozenset[str] = frozenset({"prefer", "loss"})
    """Which of a reward model's functions there are."""
    orders = 1
    """In how many orders training goes through the data."""
    free_level = False
    """Whether training leaves the level of the reward free, so that a fit has to settle it."""
    data_class: Callable[[], AnsweredQueries] = TextPreferences
    """What makes, without arguments, what keeps the answers that a learner fits it to."""

    def __init__(self, model: Any, *, margin: float = 0.0) -> None:
        """Take end and padding from a language model.

        Args:
            model: a LanguageModel.
            margin: by how much the preferred completion has to lead, in logits for each unit of `label.strength`.
        """
        super().__init__()
        self.eos, self.pad, self.margin = model.eos, model.pad, margin
        self.trunk_shape = {"kind": type(model).__name__, **decoder_shape(model)}
        """What the language model is; a Decoder's says how to make another like it."""
        device = next(model.parameters()).device
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool, device=device))
        self.trained: Tensor

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the constructor, beside the language model, that make another like it; JSON."""
        return {"margin": self.margin}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.trained.device

    def prefer(self, query: Query) -> Tensor:
        """(n, k, k) logit that completion i is preferred to j."""
        raise NotImplementedError

    def losses(self, prompts: Tensor, completions: Tensor, choice: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of a batch of queries.

        Args:
            prompts: (g, b, k, P), a batch for all members (g = 1) or for each of `orders` = g trunks.
            completions: (g, b, k, T).
            choice: (g, b, k) answers.
            strength: (g, b) of the answers; nan counts 0.

        Returns:
            (M, b) in nats, and (M, b, k) by which a query's completions are ranked.
        """
        raise NotImplementedError

    def loss(self, query: Query, label: Label) -> Tensor:
        """(n,) loss a query, the mean over members, in nats; 0 where it was skipped.

        Raises:
            ValueError: if a margin was asked for and the label has no strength.
        """
        prompts, completions = (tokens.unflatten(0, (query.n, query.k)) for tokens in self.texts(query.segments))
        choice, strength = self.choice(label), self.strength(label)
        return self.losses(prompts[None], completions[None], choice[None], strength[None])[0].mean(0)

    def texts(self, segments: Segments | TorchSegments) -> tuple[Tensor, Tensor]:
        """(n, P) prompts, as wide as the longest, and (n, T) completions of segments, on the model's device."""
        if torch.is_tensor(segments.mask):
            parts: tuple[Any, ...] = (segments.observations, segments.actions, segments.mask)
            segments = TorchSegments(*(map_arrays(lambda tensor: tensor.cpu().numpy(), part) for part in parts))
        language: Any = self  # which has its `eos` and `pad`
        prompts, completions = prompts_and_completions(segments, language)
        prompts = prompts[:, (prompts != self.pad).any(0).argmax() :]
        return torch.as_tensor(prompts, device=self.device), torch.as_tensor(completions, device=self.device)

    def choice(self, label: Label) -> Tensor:
        """(n, k) answers on the model's device."""
        return torch.tensor(label.choice.copy(), dtype=torch.float32, device=self.device)

    def strength(self, label: Label) -> Tensor:
        """(n,) strength of the answers; nan where no margin is asked for.

        Raises:
            ValueError: if a margin was asked for and the label has no strength.
        """
        if not self.margin:
            return torch.full((len(label),), torch.nan, device=self.device)
        if label.strength is None:
            raise ValueError(
                f"margin={self.margin} is for each unit of label.strength, and this label has none. "
                "Make the reward model with margin=0, or give labels with strength=(n,)."
            )
        return torch.as_tensor(label.strength, dtype=torch.float32, device=self.device)

    def mask(self, completions: Tensor) -> Tensor:
        """(..., T) bool, True up to and including the end."""
        return completion_mask(completions.flatten(0, -2), self.eos, self.pad).view_as(completions)


class TextRewardModel(TextModel):
    """A reward of completions: the mean of M members of one module. A subclass fills `raw_scores`."""

    supports = frozenset({"score", "members", "segment", "prefer", "loss"})

    def __init__(self, model: Any, members: int, *, margin: float = 0.0, centring: float = 0.0) -> None:
        """Take end and padding from a language model.

        Args:
            model: a LanguageModel.
            members: M.
            margin: see TextModel.
            centring: weight of `centring_penalty` in the loss.
        """
        super().__init__(model, margin=margin)
        self.centring = centring
        self.register_buffer("level", torch.zeros(members, device=self.device))
        self.register_buffer("unit", torch.ones(members, device=self.device))
        self.level: Tensor
        self.unit: Tensor

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "centring": self.centring}

    def raw_scores(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(M, n) scores as they are trained, in logits. (M, n, P) and (M, n, T) are a batch for each of M trunks."""
        raise NotImplementedError

    def members(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(M, n) reward by each member, less its level and in its unit; see `centre` and `standardize`."""
        return (self.raw_scores(prompts, completions) - self.level[:, None]) / self.unit[:, None]

    def score(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) mean reward of the members."""
        return self.members(prompts, completions).mean(0)

    @torch.no_grad()
    def centre(self, prompts: Tensor, completions: Tensor, batch: int = 1024) -> None:
        """Set each member's level to its mean score of these completions, so that members share their zero."""
        self.level.copy_(self._scores_of(prompts, completions, batch).mean(1))

    @torch.no_grad()
    def standardize(self, prompts: Tensor, completions: Tensor, batch: int = 1024) -> None:
        """Set each member's level and unit to mean and standard deviation of its scores of these n >= 2 completions.

        Rewards are then no longer log-odds of Bradley-Terry.
        """
        unit, level = torch.std_mean(self._scores_of(prompts, completions, batch), 1)
        self.level.copy_(level)
        self.unit.copy_(unit.clamp_min(1e-6))

    def segment(self, segments: Segments | TorchSegments, context: dict[str, Tensor] | None = None) -> Tensor:
        """(n,) reward of what was written by the end of each segment."""
        return self.score(*self.texts(segments))

    def prefer(self, query: Query) -> Tensor:
        """(n, k, k) logit that completion i is preferred to j: the difference of the members' mean scores."""
        sums = self.raw_scores(*self.texts(query.segments)).mean(0).reshape(query.n, query.k)
        return sums[:, :, None] - sums[:, None, :]

    def losses(self, prompts: Tensor, completions: Tensor, choice: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """(M, b) losses in nats and (M, b, k) scores; see TextModel."""
        shape = completions.shape[1:3]
        prompts, completions = prompts.flatten(1, 2), completions.flatten(1, 2)
        if len(prompts) == 1:
            prompts, completions = prompts[0], completions[0]
        scores = self.raw_scores(prompts, completions).unflatten(1, shape)
        losses = bradley_terry_loss(scores, choice, self.margin * strength.nan_to_num(0.0) if self.margin else None)
        if self.centring:
            losses = losses + self.centring * centring_penalty(scores, choice)
        return losses, scores

    def _scores_of(self, prompts: Tensor, completions: Tensor, batch: int) -> Tensor:
        parts = zip(prompts.split(batch), completions.split(batch), strict=True)
        return torch.cat([self.raw_scores(*part) for part in parts], 1)
