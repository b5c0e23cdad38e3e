"""A model of preferences between two completions that need not come from a reward of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, logsigmoid

from prefenvs.agents.reward_models.text.scalar import LastStream, trainable_copy
from prefenvs.agents.reward_models.text.surface import TextModel
from prefenvs.segments import Query


class PairwisePreference(TextModel):
    """A comparison f of the streams after two completions, symmetrised: logit P(y > y' | x) = f(y, y') - f(y', y).

    So P(y > y') + P(y' > y) = 1 and P(y > y) = 1/2 by construction, and cycles can be represented. Preference models as
    in Munos et al. 2023 (Nash-MD), arXiv:2312.00886, with the symmetrisation of both orders that judges get. f is a
    network of one hidden layer on both streams, so k completions cost k passes of the trunk.

    Example:
        >>> import torch
        >>> from prefenvs.tasks.text.lm import Decoder
        >>> model = PairwisePreference(Decoder(5, 8, layers=1, width=16, heads=2), rng=torch.Generator().manual_seed(0))
        >>> prompts, first, second = torch.tensor([[1, 2]]), torch.tensor([[3, 0]]), torch.tensor([[4, 0]])
        >>> bool(model.compare(prompts, first, second) == -model.compare(prompts, second, first))
        True
    """

    supports = frozenset({"compare", "prefer", "loss"})

    def __init__(self, model: Any, *, rng: torch.Generator, hidden: int = 64, margin: float = 0.0) -> None:
        """Start from a copy of `model`, a LanguageModel.

        Args:
            model: the trunk; best one that was trained on demonstrations.
            rng: draws the comparison's weights.
            hidden: width of its hidden layer.
            margin: see TextModel.
        """
        super().__init__(model, margin=margin)
        self.stream = LastStream(trainable_copy(model))
        weights = torch.randn(2, model.width, hidden, generator=rng) / (2 * model.width) ** 0.5
        self.inner = nn.Parameter(weights.to(self.device))
        self.bias = nn.Parameter(torch.zeros(hidden, device=self.device))
        self.outer = nn.Parameter((torch.randn(hidden, generator=rng) / hidden**0.5).to(self.device))

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "hidden": len(self.outer)}

    def compare(self, prompts: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(n,) logit that the first completions (n, T) of prompts (n, P) are preferred to the second."""
        return self._logits(prompts[:, None].expand(-1, 2, -1), torch.stack([first, second], 1))[:, 0, 1]

    def prefer(self, query: Query) -> Tensor:
        """(n, k, k) logit that completion i is preferred to j."""
        return self._logits(*(tokens.unflatten(0, (query.n, query.k)) for tokens in self.texts(query.segments)))

    def losses(self, prompts: Tensor, completions: Tensor, choice: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """(1, b) cross-entropy of the preferred completion against each other one, and (1, b, k) mean win rates.

        loss = - sum_i choice_i mean_{j != i} log s(logit_ij - margin). See TextModel.
        """
        logits, k = self._logits(prompts[0], completions[0]), choice.shape[-1]
        lead = self.margin * strength[0].nan_to_num(0.0) if self.margin else torch.zeros_like(logits[:, 0, 0])
        others = ~torch.eye(k, dtype=torch.bool, device=logits.device)
        likelihood = (logsigmoid(logits - lead[:, None, None]) * others).sum(-1) / max(k - 1, 1)
        losses = -(choice[0].nan_to_num(0.0) * likelihood).sum(-1)
        return losses[None], ((logits.sigmoid() * others).sum(-1) / max(k - 1, 1))[None]

    def _logits(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, k, k) of prompts (n, k, P) and completions (n, k, T)."""
        n, k, _ = completions.shape
        streams = self.stream(prompts.flatten(0, 1), completions.flatten(0, 1)).view(n, k, -1)
        first, second = streams @ self.inner[0], streams @ self.inner[1]
        ordered = gelu(first[:, :, None] + second[:, None, :] + self.bias) @ self.outer
        return ordered - ordered.mT
