"""The reward that a policy aligned without one has implicitly."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from prefenvs.agents.reward_models.text.scalar import trainable_copy
from prefenvs.agents.reward_models.text.surface import TextRewardModel


class ImplicitReward(TextRewardModel):
    """r(x, y) = beta (log pi(y | x) - log ref(y | x)), a token and a sequence.

    Rafailov et al. 2023, arXiv:2305.18290, eq. 5 without the part of the prompt alone; a token: Rafailov et al. 2024,
    arXiv:2404.12358. Its loss is DPO's, so that fitting it is DPO. The sum over the tokens is the sequence's reward as
    long as the model is not centred.
    """

    supports = TextRewardModel.supports | {"token_rewards"}

    def __init__(
        self,
        model: Any,
        *,
        rng: torch.Generator,
        beta: float = 0.1,
        reference: Any = None,
        margin: float = 0.0,
        centring: float = 0.0,
    ) -> None:
        """Start from copies of language models.

        Args:
            model: the policy, a LanguageModel.
            rng: not drawn from; all reward models of text are made alike.
            beta: weight of the KL penalty.
            reference: the LanguageModel that the policy was aligned from, kept as it is; None for `model` itself, whose
                reward is 0 until it is trained.
            margin: see TextModel.
            centring: see TextRewardModel.
        """
        super().__init__(model, 1, margin=margin, centring=centring)
        self.policy, self.beta = trainable_copy(model), beta
        self.reference = copy.deepcopy(model if reference is None else reference).requires_grad_(False)

    @property
    def options(self) -> dict[str, Any]:
        """See TextModel."""
        return {**super().options, "beta": self.beta}

    def token_rewards(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T) beta (log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)), the end token's too; 0 on what follows it."""
        with torch.no_grad():
            reference = self.reference.logprobs(prompts, completions)
        return self.beta * (self.policy.logprobs(prompts, completions) - reference)

    def raw_scores(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(1, n) rewards of whole completions."""
        return self.token_rewards(prompts, completions).sum(-1)[None]
