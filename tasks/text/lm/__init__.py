"""Language models for the text tasks: a protocol, our small decoder, and an adapter for transformers. Imports torch."""

from __future__ import annotations

from prefenvs.tasks.text.lm.decoder import Decoder
from prefenvs.tasks.text.lm.pretraining import pretrain
from prefenvs.tasks.text.lm.sampling import (
    Completions,
    LanguageModel,
    completion_mask,
    in_parts,
    sample_in_parts,
    token_logprobs,
)
from prefenvs.tasks.text.lm.tabular import Tabular
from prefenvs.tasks.text.lm.transformers_model import TransformersModel, as_gpt2

__all__ = [
    "Completions",
    "Decoder",
    "LanguageModel",
    "Tabular",
    "TransformersModel",
    "as_gpt2",
    "completion_mask",
    "in_parts",
    "pretrain",
    "sample_in_parts",
    "token_logprobs",
]
