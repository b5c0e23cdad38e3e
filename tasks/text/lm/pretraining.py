"""The start of every language model here: supervised training on a task's demonstrations, cached by content."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefenvs.tasks.text.language import Language
from prefenvs.tasks.text.lm.decoder import Decoder
from prefenvs.tasks.text.lm.sampling import LanguageModel, completion_mask

RECIPE = 1
"""Raised when the training below changes, so that what an older one made is not taken from the cache."""


def cache_folder() -> Path:
    """Where pre-trained models are kept: PREFENVS_CACHE, or `prefenvs` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "prefenvs"
    return Path(os.environ.get("PREFENVS_CACHE", default))


def sft_loss(model: LanguageModel, prompts: Tensor, completions: Tensor) -> Tensor:
    """Mean negative log-likelihood of a token of the completions in nats, the end token counted, not the prompt's."""
    mask = completion_mask(completions, model.eos, model.pad)
    return -model.logprobs(prompts, completions).sum() / mask.sum()


def pretrain(
    task: Any,
    *,
    seed: int = 0,
    steps: int = 600,
    batch: int = 64,
    learning_rate: float = 3e-3,
    layers: int = 2,
    width: int = 128,
    heads: int = 4,
    demonstrations: int = 8192,
    cache: bool = True,
) -> Decoder:
    """A Decoder trained on a task's demonstrations; the same arguments give the same model, from the cache if there.

    Args:
        task: a text task, its name or id, an environment of it, or a Language.
        seed: of weights, demonstrations and batches.
        steps: of AdamW, with a linear warm-up and a cosine decay.
        batch: demonstrations a step.
        learning_rate: the greatest.
        layers: of the Decoder.
        width: of the Decoder.
        heads: of the Decoder.
        demonstrations: how many are drawn to train on.
        cache: keep the weights in `cache_folder()`, a safetensors file named by a hash of all of this.
    """
    from prefenvs.tasks.text import language_of

    language: Language = language_of(task)
    ids, tokens = language.demonstrate(demonstrations, np.random.default_rng([seed, 1]))
    prompts = language.prompt_tokens[ids]
    shape = {"layers": layers, "width": width, "heads": heads, "eos": language.eos, "pad": language.pad, "seed": seed}
    context = prompts.shape[1] + language.max_new_tokens
    model = Decoder(language.vocab_size, context, **shape)
    settings = {**shape, "steps": steps, "batch": batch, "learning_rate": learning_rate, "recipe": RECIPE}
    path = cache_folder() / f"decoder-{_digest(settings, language.words, prompts, tokens)}.safetensors"
    if cache and path.exists():
        model.load_state_dict(load_file(path))
        return model
    _fit(model, torch.from_numpy(prompts), torch.from_numpy(tokens), seed, steps, batch, learning_rate)
    if cache:
        _write(path, model)
    return model


def _fit(
    model: Decoder, prompts: Tensor, completions: Tensor, seed: int, steps: int, batch: int, learning_rate: float
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, steps // 20)

    def rate(step: int) -> float:
        return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(prompts), (batch,), generator=rng)
        loss = sft_loss(model, prompts[rows], completions[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _digest(settings: dict[str, Any], words: tuple[str, ...], *arrays: np.ndarray) -> str:
    content = hashlib.sha256(json.dumps([settings, words], sort_keys=True).encode())
    for array in arrays:
        content.update(repr((array.shape, str(array.dtype))).encode() + np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


def _write(path: Path, model: Decoder) -> None:
    """Whole or not at all: another process may be writing, or reading, the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file(model.state_dict(), part)
    os.replace(part, path)
