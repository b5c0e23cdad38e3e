"""Bradley-Terry reward models: a number read from the stream of a language model after the last token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from prefenvs.agents.reward_models.text.surface import TextRewardModel
from prefenvs.tasks.text.lm.sampling import completion_mask


class LastStream(nn.Module):
    """A language model as a function to its stream after the last token of a completion."""

    def __init__(self, trunk: Any) -> None:
        """Read `trunk`, a LanguageModel."""
        super().__init__()
        self.trunk = trunk

    def forward(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, width) float32; (n, P) prompts alone where a completion is empty."""
        lengths = completion_mask(completions, self.trunk.eos, self.trunk.pad).sum(1)
        streams = self.trunk.hidden(prompts, completions)
        return streams.gather(1, lengths[:, None, None].expand(-1, -1, streams.shape[-1]))[:, 0].float()


class BradleyTerryReward(TextRewardModel):
    """Linear heads on one language model: the usual reward model with one, an ensemble over a shared trunk with more.

    Stiennon et al. 2020, arXiv:2009.01325, whose initial law of the head, N(0, 1 / (width + 1)), is used. The heads of
    an ensemble see the same batches and differ by their initial weights alone.

    Example:
        >>> import torch
        >>> from prefenvs.tasks.text.lm import Decoder
        >>> model = BradleyTerryReward(Decoder(5, 8, layers=1, width=16, heads=2), rng=torch.Generator().manual_seed(0))
        >>> model.score(torch.tensor([[1, 2]]), torch.tensor([[3, 4, 0]])).shape
        torch.Size([1])
    """

    free_level = True

    def __init__(
        self, model: Any, *, rng: torch.Generator, members: int = 1, margin: float = 0.0, centring: float = 0.0
    ) -> None:
        """Start from a copy of `model`, a LanguageModel, which itself stays as it is.

        Args:
            model: the trunk; best one that was trained on demonstrations.
            rng: draws the heads.
            members: M heads.
            margin: see TextRewardModel.
            centring: see TextRewardModel.
        """
        super().__init__(model, members, margin=margin, centring=centring)
        self.stream = LastStream(trainable_copy(model))
        self.head, self.bias = draw_heads(model, members, rng)

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "members": len(self.head)}

    def raw_scores(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(M, n) scores, in logits."""
        return (self.stream(prompts, completions) @ self.head.T + self.bias).T


class TrunkEnsemble(TextRewardModel):
    """M whole reward models as one module, evaluated in one batch; each sees its own order of the data.

    Members that start from one language model are a fine-tuning ensemble, from M of them a pre-training ensemble, which
    agrees less where all are wrong: Eisenstein et al. 2023, arXiv:2312.09244; Coste et al. 2023, arXiv:2310.02743.
    Weights are stacked and the language model is mapped over them by `torch.func.vmap`: its `hidden` must not branch on
    values, as that of a Decoder does not. Models of transformers attend by "eager" here: their other ways branch.
    """

    free_level = True

    def __init__(
        self, model: Any, *, rng: torch.Generator, members: int = 5, margin: float = 0.0, centring: float = 0.0
    ) -> None:
        """Start from copies of language models.

        Args:
            model: one LanguageModel for all members, or a sequence of M of the same architecture.
            rng: draws the heads.
            members: M where one model is given; a sequence has its own number.
            margin: see TextRewardModel.
            centring: see TextRewardModel.

        Raises:
            ValueError: if there is no model.
        """
        models = list(model) if isinstance(model, Sequence) else [model] * members
        if not models:
            raise ValueError("an ensemble of 0 members, expected at least one.")
        super().__init__(models[0], len(models), margin=margin, centring=centring)
        weights, buffers = stack_module_state([LastStream(each) for each in models])
        learns = {name: p.requires_grad for name, p in LastStream(trainable_copy(models[0])).named_parameters()}
        self.trunks = nn.ParameterDict(
            {_key(name): nn.Parameter(w.detach().clone(), learns[name]) for name, w in weights.items()}
        )
        self.constants = list(buffers)
        for name, buffer in buffers.items():
            self.register_buffer(_key(name), buffer.clone())
        self.head, self.bias = draw_heads(models[0], len(models), rng)
        # On no device: it only says how the stacked weights are used, and is no part of the module.
        self._shape = (LastStream(_eager(copy.deepcopy(models[0]))).to("meta"),)
        self._names = list(weights)

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "members": len(self.head)}

    @property
    def orders(self) -> int:  # type: ignore[override]
        """M, in how many orders training goes through the data: one a member."""
        return len(self.head)

    def raw_scores(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(M, n) scores, in logits, of (n, P) and (n, T) by all members or of (M, n, P) and (M, n, T) by each."""

        def stream(weights: Any, constants: Any, prompts: Tensor, completions: Tensor) -> Tensor:
            return functional_call(self._shape[0], (weights, constants), (prompts, completions))

        weights = {name: self.trunks[_key(name)] for name in self._names}
        constants = {name: getattr(self, _key(name)) for name in self.constants}
        each = None if prompts.dim() == 2 else 0
        # PyTorch's fused attention knows no batch of weights on CPU and would loop.
        with sdpa_kernel(SDPBackend.MATH):
            streams = vmap(stream, in_dims=(0, 0, each, each))(weights, constants, prompts, completions)
        return (streams * self.head[:, None]).sum(-1) + self.bias[:, None]


def lean_copy(model: Any) -> Any:
    """A copy that shares what is frozen of a language model, as most is with LoRA; a whole one where all is frozen."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    whole = len(frozen) == len(list(model.parameters()))
    return copy.deepcopy(model, {} if whole else {id(parameter): parameter for parameter in frozen})


def trainable_copy(model: Any) -> Any:
    """A copy of a language model to train: all of it where all was frozen, as a reference is, else what learned.

    What does not learn is shared; see `lean_copy`.
    """
    own = lean_copy(model)
    frozen = not any(parameter.requires_grad for parameter in own.parameters())
    return own.requires_grad_(True) if frozen else own


def draw_heads(model: Any, members: int, rng: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """(M, width) weights and (M,) biases 0 of linear heads on a LanguageModel, on its device."""
    device = next(model.parameters()).device
    weights = torch.randn(members, model.width, generator=rng) / (model.width + 1) ** 0.5
    return nn.Parameter(weights.to(device)), nn.Parameter(torch.zeros(members, device=device))


def _eager(model: Any) -> Any:
    """Let those parts of a model that are of transformers attend without a look at the values of the mask."""
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "_attn_implementation"):
            module.config._attn_implementation = "eager"
    return model


def _key(name: str) -> str:
    return name.replace(".", "/")  # a dot is not allowed in a parameter's name
