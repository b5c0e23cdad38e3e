"""Reward models of text on disk: one safetensors file that also says how the model is made."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prefenvs.agents.reward_models.text.registry import TEXT_REWARD_MODELS
from prefenvs.agents.reward_models.text.surface import TextModel
from prefenvs.error import DamagedFile, RunMismatch, unknown_name
from prefenvs.tasks.text.lm.decoder import Decoder


def save_reward_model(model: TextModel, path: str | Path) -> None:
    """Write a reward model, whole or not at all, with its language model. `load_reward_model` reads it.

    Raises:
        ValueError: if its class is not in TEXT_REWARD_MODELS.
    """
    names = [name for name, kind in TEXT_REWARD_MODELS.items() if kind is type(model)]
    if not names:
        kind = type(model).__name__
        raise ValueError(f'{kind} has no name to be saved under. Add it first: TEXT_REWARD_MODELS["mine"] = {kind}.')
    facts = {"model": names[0], "options": model.options, "trunk": model.trunk_shape}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(tensors, part, {"prefenvs": json.dumps(facts)})
    os.replace(part, path)


def load_reward_model(path: str | Path, trunk: Any = None, device: torch.device | str = "cpu") -> TextModel:
    """Read what `save_reward_model` wrote.

    Args:
        path: of the file.
        trunk: a language model of the architecture it was made from, any weights; not needed for a Decoder.
        device: where to put it.

    Raises:
        DamagedFile: if the file cannot be read as a reward model; it was left as it is.
        RunMismatch: if it does not fit `trunk`.
        ValueError: if its name is not in TEXT_REWARD_MODELS, or a trunk is needed.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt", device="cpu") as file:
            facts = json.loads((file.metadata() or {})["prefenvs"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        name, options, shape = facts["model"], dict(facts["options"]), dict(facts["trunk"])
        kind = shape.pop("kind")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedFile(f"{path} cannot be read as a reward model ({error}). It was left as it is.") from error
    if name not in TEXT_REWARD_MODELS:
        raise unknown_name("model", name, TEXT_REWARD_MODELS, f"It is what {path} holds.")
    if trunk is None and not shape:
        raise ValueError(f"{path} was made from a {kind}. Pass one of the same architecture as trunk=.")
    trunk = Decoder(**shape) if trunk is None else copy.deepcopy(trunk)  # its frozen weights are shared and filled
    model = TEXT_REWARD_MODELS[name](trunk, rng=torch.Generator().manual_seed(0), **options)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunMismatch(f"the weights in {path} do not fit this {type(trunk).__name__}: {error}") from error
    return model.to(device)
