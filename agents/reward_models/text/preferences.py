"""Answered queries about completions, to fit a reward model of text to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefenvs.agents.reward_models.training import AnsweredQueries
from prefenvs.segments import Label, Query

if TYPE_CHECKING:
    from prefenvs.agents.reward_models.text.surface import TextModel


class TextPreferences(AnsweredQueries):
    """Answered queries about completions, of either view. `prefenvs.agents.reward_models.fit` trains on them.

    Example:
        >>> import gymnasium as gym, torch
        >>> from prefenvs.agents.reward_models import fit
        >>> from prefenvs.agents.reward_models.text import BradleyTerryReward, TextPreferences
        >>> model = BradleyTerryReward(language_model, rng=torch.Generator().manual_seed(0))        # doctest: +SKIP
        >>> data = TextPreferences()
        >>> data.add(model, query, feedback.ask(query))                                             # doctest: +SKIP
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)                               # doctest: +SKIP
        >>> fit(model, optimizer, data, rng=torch.Generator(), epochs=3).held_out_accuracy          # doctest: +SKIP
    """

    fields = ("prompts", "completions", "lengths", "strength", "choice")
    prompts: Tensor
    """(N, k, P) left-padded."""
    completions: Tensor
    """(N, k, T) right-padded."""
    lengths: Tensor
    """(N, k) tokens of the completions."""
    strength: Tensor
    """(N,) of the answers; nan where the model reads none."""

    def segment_lengths(self) -> Tensor:
        """(N, k) tokens of the completions."""
        return self.lengths

    def add(self, model: TextModel, query: Query, label: Label) -> None:
        """Append the answered questions of a query.

        Raises:
            ValueError: if completions have room for another number of tokens than those held.
        """
        prompts, completions = (tokens.unflatten(0, (query.n, query.k)) for tokens in model.texts(query.segments))
        choice = model.choice(label)
        if len(self):
            room = completions.shape[-1], self.completions.shape[-1]
            if room[0] != room[1]:  # padding would end what was cut, where one token stands for both
                raise ValueError(f"completions have room for {room[0]} tokens, those held for {room[1]}.")
            width = max(prompts.shape[-1], self.prompts.shape[-1])
            self.prompts, prompts = (_widened(tokens, width, model.pad) for tokens in (self.prompts, prompts))
        lengths = model.mask(completions).sum(-1)
        answered = ~choice.isnan().any(-1)
        new = (prompts, completions, lengths, model.strength(label), choice)
        self.append(tuple(value[answered] for value in new))

    def losses(self, model: TextModel, index: Tensor) -> tuple[Tensor, Tensor]:
        """(M, b) losses in nats and (M, b, k) scores of the queries at `index`, (b,) or (orders, b)."""
        index = index if index.dim() == 2 else index[None]
        return model.losses(self.prompts[index], self.completions[index], self.choice[index], self.strength[index])

    @torch.no_grad()
    def sums(self, model: TextModel, index: Tensor) -> Tensor:
        """(M, b, k) scores of the queries at `index` (b,)."""
        return torch.cat([self.losses(model, part)[1] for part in index.split(256)], 1)

    def finish(self, model: Any) -> Tensor:
        """Centre each member on the completions, where training leaves the level free; (M, N, k) scores of all."""
        scores = self.sums(model, torch.arange(len(self), device=self.choice.device))
        if model.free_level:
            model.level.copy_(scores.flatten(1).mean(1))
        return scores


def _widened(prompts: Tensor, width: int, token: int) -> Tensor:
    """Prompts (..., P) padded on the left to `width`."""
    return pad(prompts, (width - prompts.shape[-1], 0), value=token)
