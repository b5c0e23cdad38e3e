"""A cheap trunk for reward models, neighbouring words summed over the text, and the reward model made of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefenvs.agents.reward_models.text.scalar import TrunkEnsemble
from prefenvs.agents.reward_models.text.surface import decoder_shape


class WordPairs(nn.Module):
    """A stream that sums what each word says after the one before it, and reads the sum with a hidden layer.

    h_t = gelu(sum_{s <= t} gelu(a[y_s] + b[y_{s-1}] + c 1[y_s is in the prompt])) W, with a vector a for each word, b
    for the word before it and c for words that the prompt has too: a convolution of width 2 (Kim 2014,
    arXiv:1408.5882) pooled by a sum. It has the `hidden` of a LanguageModel, which reward models read, and writes
    nothing. A text with more of a word than was ever seen is where members of an ensemble begin to disagree.

    Example:
        >>> import torch
        >>> from prefenvs.agents.reward_models.text import TrunkEnsemble
        >>> trunks = [WordPairs(6, width=16, seed=seed) for seed in range(5)]
        >>> model = TrunkEnsemble(trunks, rng=torch.Generator().manual_seed(0))
        >>> model.members(torch.tensor([[1, 2]]), torch.tensor([[3, 4, 0]])).shape
        torch.Size([5, 1])
    """

    def __init__(self, vocab_size: int, *, width: int = 32, eos: int = 0, pad: int = 0, seed: int = 0) -> None:
        """Draw weights.

        Args:
            vocab_size: V.
            width: of the vectors and of the stream.
            eos: token that ends a completion.
            pad: token that pads prompts on the left and completions on the right.
            seed: of the weights.
        """
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.vocab_size, self.width, self.eos, self.pad = vocab_size, width, eos, pad
        self.words, self.before, self.copied = (
            nn.Parameter(0.5 * torch.randn(rows, width, generator=rng)) for rows in (vocab_size, vocab_size, 1)
        )
        self.mix = nn.Parameter(torch.randn(width, width, generator=rng) / width**0.5)

    def hidden(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T + 1, width) stream after t words of the completion, t = 0..T; the end token is no word."""
        real = (completions != self.pad) & (completions != self.eos)
        before = torch.cat([prompts[:, -1:], completions[:, :-1]], 1)
        copied = (completions[:, :, None] == prompts[:, None]).any(2)[..., None] * self.copied
        said = F.gelu(F.embedding(completions, self.words) + F.embedding(before, self.before) + copied)
        summed = F.pad((said * real[..., None]).cumsum(1), (0, 0, 1, 0))
        return F.gelu(summed) @ self.mix


class WordPairsReward(TrunkEnsemble):
    """An ensemble of WordPairs, which takes the words of a language model and none of its weights.

    For few answers and a small language model, whose streams say little of what a teacher looks at: a trunk fine-tuned
    on 1000 answers learns these by heart.

    Example:
        >>> import torch
        >>> from prefenvs.tasks.text.lm import Decoder
        >>> model = WordPairsReward(Decoder(5, 8, layers=1, width=16, heads=2), rng=torch.Generator().manual_seed(0))
        >>> model.members(torch.tensor([[1, 2]]), torch.tensor([[3, 4, 0]])).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        model: Any,
        *,
        rng: torch.Generator,
        members: int = 5,
        width: int = 32,
        margin: float = 0.0,
        centring: float = 0.0,
    ) -> None:
        """Draw trunks and heads.

        Args:
            model: a LanguageModel, whose vocabulary, end, padding and device are used.
            rng: draws all weights.
            members: M.
            width: of each trunk.
            margin: see TextModel.
            centring: see TextRewardModel.
        """
        seeds = torch.randint(2**31, (members,), generator=rng).tolist()
        words, device = {"eos": model.eos, "pad": model.pad}, next(model.parameters()).device
        trunks = [WordPairs(model.vocab_size, width=width, seed=seed, **words).to(device) for seed in seeds]
        super().__init__(trunks, rng=rng, margin=margin, centring=centring)
        self.width = width
        self.trunk_shape = {"kind": type(model).__name__, **decoder_shape(model)}  # a file is read with this model

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "width": self.width}
