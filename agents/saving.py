"""One file an agent: a zip of JSON and safetensors."""

from __future__ import annotations

import inspect
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes
from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import (
    DictReplayBuffer,
    DictRolloutBuffer,
    NStepReplayBuffer,
    ReplayBuffer,
    RolloutBuffer,
)
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from prefenvs.agents.checkpoint import learner_state, load_learner, load_module, under
from prefenvs.agents.learned_reward import RewardReplayBuffer
from prefenvs.agents.preference_callback import PreferenceConfig
from prefenvs.agents.replay import TensorReplayBuffer
from prefenvs.error import DamagedFile, RunMismatch

_NOT_KEPT = {"self", "env", "device", "_init_setup_model"}
"""Arguments that belong to a process, or that `load` takes itself."""
_CHOSEN: tuple[type[Any], ...] = (
    *(ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, TensorReplayBuffer, RewardReplayBuffer),
    *(RolloutBuffer, DictRolloutBuffer),
)
"""Buffer classes that constructors choose by themselves."""


def with_ending(path: str | Path) -> Path:
    """The path of an agent's file: ".zip" is added if it has no ending."""
    return Path(path) if Path(path).suffix else Path(path).with_suffix(".zip")


def write_agent(path: str | Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write facts and named arrays, whole or not at all; `facts["class"]` says what agent they are."""
    path = with_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with zipfile.ZipFile(part, "w") as archive:
        archive.writestr("agent.json", json.dumps(facts, indent=1))
        archive.writestr("agent.safetensors", save_bytes({k: np.asarray(a, order="C") for k, a in arrays.items()}))
    os.replace(part, path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong in here says that the file is damaged.

    Raises:
        DamagedFile: naming it.
    """
    try:
        yield
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DamagedFile(f"{path} cannot be read as an agent ({error}). It was left as it is.") from error


def read_agent(cls: type[Any], path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts and arrays that `write_agent` wrote.

    Raises:
        DamagedFile: if the file cannot be read.
        RunMismatch: if it holds another kind of agent.
    """
    path = with_ending(path)
    with reading(path), zipfile.ZipFile(path) as archive:
        facts = json.loads(archive.read("agent.json"))
        arrays = load_bytes(archive.read("agent.safetensors"))
        name = facts["class"]
    if name != cls.__name__:
        raise RunMismatch(f"{path} holds a {name}; load it with {name}.load.")
    return facts, arrays


def save_agent(model: BaseAlgorithm, path: str | Path, own: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write an agent.

    Args:
        model: an SB3 algorithm.
        path: the zip.
        own: those arguments of its constructor that are no attributes of their name.
        arrays: what is kept beside its networks and optimisers, by name.
    """
    settings = {key: _to_json(value) for key, value in _arguments(model, own).items()}
    facts = {
        "class": type(model).__name__,
        "spaces": [str(model.observation_space), str(model.action_space)],
        "num_timesteps": model.num_timesteps,
        "settings": {key: value for key, value in settings.items() if value is not _UNKNOWN},
        "unsaved": [key for key, value in settings.items() if value is _UNKNOWN],
        "own": own,
    }
    write_agent(path, facts, learner_state(model) | arrays)


def read_saved(
    cls: type[BaseAlgorithm], path: str | Path, changes: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts and arrays of an agent that `save_agent` wrote; `settings` as SB3's constructor takes them.

    Raises:
        DamagedFile: if the file cannot be read.
        RunMismatch: if it holds another kind of agent.
        ValueError: if `changes` lack an argument that could not be saved.
    """
    path = with_ending(path)
    facts, arrays = read_agent(cls, path)
    with reading(path):
        facts["settings"] = {key: _from_json(value) for key, value in facts["settings"].items()}
        facts |= {"own": dict(facts["own"]), "num_timesteps": int(facts["num_timesteps"])}
        missing = [key for key in facts["unsaved"] if key not in changes]
        if "policy" not in {*facts["settings"], *facts["unsaved"]}:
            raise KeyError("it names no policy; earlier versions wrote such files")
    if missing:
        raise ValueError(
            f"{path} was trained with functions, classes or objects of your own for {', '.join(missing)}, which JSON "
            f"lacks. Pass them again: {cls.__name__}.load(path, env, {missing[0]}=...)."
        )
    return facts, arrays


def restore_agent(model: BaseAlgorithm, path: str | Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Put the networks, optimisers and step counter of a file into a new model.

    Raises:
        RunMismatch: if it was trained on other spaces.
    """
    spaces = facts["spaces"]
    if [str(model.observation_space), str(model.action_space)] != spaces:
        raise RunMismatch(f"{path} was trained on spaces {spaces}, this environment has others.")
    load_learner(model, arrays)
    model.num_timesteps = facts["num_timesteps"]


def load_agent(
    cls: type[BaseAlgorithm], path: str | Path, env: Any, device: torch.device | str, **changes: Any
) -> BaseAlgorithm:
    """Read an agent that `save_agent` wrote, with `changes` of its constructor's arguments; see the agents' `load`."""
    if env is None:
        raise ValueError(f"{cls.__name__}.load needs env=: a preference environment, as its feedback belongs to that.")
    facts, arrays = read_saved(cls, path, changes)
    own, settings = facts["own"], facts["settings"]
    with reading(with_ending(path)):
        preferences = dict(own["preferences"])
        own["preferences"] = PreferenceConfig(**{**preferences, "hidden": tuple(preferences["hidden"])})
    model: Any = cls(env=env, device=device, **{**own, **settings, **changes})
    restore_agent(model, path, facts, arrays)
    if "preferences" in changes:  # new sessions; of the old ones the reward model remains
        load_module(model.preferences.reward_model, under("reward_model", arrays))
    else:
        model.preferences.load_learned(arrays)
    if isinstance(getattr(model, "replay_buffer", None), RewardReplayBuffer):
        model.replay_buffer.explore &= not model.preferences.reward_model.trained  # exploration was before
    return model


_UNKNOWN = object()


def argument_names(cls: type[Any]) -> list[str]:
    """Arguments of a class's constructor, those that it hands on to its base's as keywords included."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {each.name: None for each in parameters if each.kind is not each.VAR_KEYWORD}
            if not any(each.kind is each.VAR_KEYWORD for each in parameters):
                break
    return [name for name in names if name not in _NOT_KEPT]


def _arguments(model: BaseAlgorithm, own: dict[str, Any]) -> dict[str, Any]:
    """The arguments that make a model like this, `own` left out; _UNKNOWN where the model does not tell."""
    held: dict[str, Any] = {}
    for name in argument_names(type(model)):
        if name not in own:
            held[name] = getattr(model, name, getattr(model, f"_{name}", _UNKNOWN))
    chosen = model.policy_class.func if isinstance(model.policy_class, partial) else model.policy_class
    aliases = {policy: name for name, policy in model.policy_aliases.items()}
    held["policy"] = aliases.get(chosen, _UNKNOWN)
    for name in ("replay_buffer_class", "rollout_buffer_class"):
        if held.get(name) in _CHOSEN:
            del held[name]
    if isinstance(model, A2C):  # its constructor put the optimizer into the policy's arguments, and will again
        arguments = dict(model.policy_kwargs)
        held["use_rms_prop"] = arguments.get("optimizer_class") is torch.optim.RMSprop
        held["rms_prop_eps"] = 1e-5
        if held["use_rms_prop"]:
            held["rms_prop_eps"] = arguments.get("optimizer_kwargs", {}).get("eps", 1e-5)
            arguments = {key: value for key, value in arguments.items() if not key.startswith("optimizer_")}
        held["policy_kwargs"] = arguments
    return held


def _to_json(value: Any) -> Any:
    """A setting as JSON, SB3's own schedules and train_freq included; _UNKNOWN for what JSON cannot hold."""
    value = value.value_schedule if isinstance(value, FloatSchedule) else value
    if isinstance(value, ConstantSchedule):
        value = value.val
    if isinstance(value, LinearSchedule):
        return {"linear": [value.start, value.end, value.end_fraction]}
    if isinstance(value, TrainFreq):
        return {"every": [value.frequency, value.unit.value]}
    try:
        json.dumps(value)
    except TypeError:
        return _UNKNOWN
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"linear"}:
        return LinearSchedule(*value["linear"])
    return tuple(value["every"]) if isinstance(value, dict) and set(value) == {"every"} else value
