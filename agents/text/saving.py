"""Learners of language models as files, and their whole state as named arrays."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prefenvs.agents.checkpoint import Arrays, load_module, load_optimizer, module_state, optimizer_state, under
from prefenvs.agents.reward_models.text.surface import decoder_shape
from prefenvs.agents.saving import read_agent, reading, with_ending, write_agent
from prefenvs.tasks.text.lm import Decoder

if TYPE_CHECKING:
    from prefenvs.agents.text.learner import TextLearner

GENERATORS = ("rng", "predict_rng")
"""Of a learner, part of its state."""


def save_learner(learner: TextLearner, path: str | Path) -> None:
    """Write a learner's settings and state; see `TextLearner.save`."""
    facts = {
        "class": type(learner).__name__,
        "config": asdict(learner.config),
        "decoder": decoder_shape(learner.policy) or None,
        "seed": learner.seed,
        "policy_kwargs": learner.policy_kwargs,
        "own": learner._own_settings(),
        "given": list(learner._given()),
    }
    write_agent(path, facts, learner.state())


def read_learner(
    cls: type[TextLearner], path: str | Path, policy: Any = None, changes: Collection[str] = ()
) -> tuple[Any, dict[str, Any], Arrays]:
    """What makes a learner that `save_learner` wrote: see `TextLearner.load`.

    Args:
        cls: of the learner.
        path: the zip.
        policy: a LanguageModel of the same architecture; not needed for a Decoder.
        changes: names of further arguments of the constructor that are given again.

    Returns:
        A policy, whose weights are yet to be loaded, further arguments of the constructor, and the state.
    """
    path = with_ending(path)
    facts, arrays = read_agent(cls, path)
    with reading(path):
        shape, given = facts["decoder"], facts.get("given", ())
        arguments = {
            "config": cls.config_class(**_tuples(cls.config_class, facts["config"])),
            "seed": int(facts["seed"]),
            "policy_kwargs": facts["policy_kwargs"],
            **cls._own_arguments(dict(facts["own"])),
        }
    if policy is None and shape is None:
        raise ValueError(f"{path} was trained with a language model of your own. Pass it: load(path, env, policy=...).")
    if missing := [name for name in given if name not in changes]:
        names, again = " and ".join(f"{name}=" for name in missing), ", ".join(f"{name}=..." for name in missing)
        raise ValueError(
            f"{path} was trained with {names} of your own, which a file does not hold. "
            f"Pass it again: load(path, env, {again}). Nothing was loaded or asked."
        )
    return policy or Decoder(**shape), arguments, arrays


def learner_state(learner: TextLearner) -> Arrays:
    """Everything that a resumed run needs, as named arrays."""
    modules = {**learner.trained(), "reference": learner.reference}
    state = {f"{name}/{key}": array for name, module in modules.items() for key, array in module_state(module).items()}
    state |= {f"optimizer/{key}": array for key, array in optimizer_state(learner.optimizer).items()}
    state |= {f"own/{key}": np.asarray(array) for key, array in learner._own_state().items()}
    state |= {name: getattr(learner, name).get_state().numpy() for name in GENERATORS}
    return state | {"num_timesteps": np.array(learner.num_timesteps)}


def load_learner_state(learner: TextLearner, state: Arrays) -> None:
    """Put back what `learner_state` gave.

    Raises:
        RunMismatch: if it belongs to other networks.
    """
    for name, module in {**learner.trained(), "reference": learner.reference}.items():
        load_module(module, under(name, state))
    load_optimizer(learner.optimizer, under("optimizer", state))
    learner._load_own_state(under("own", state))
    for name in set(GENERATORS) & set(state):  # earlier files lack predict_rng, which then begins anew
        getattr(learner, name).set_state(torch.as_tensor(np.array(state[name])))
    learner.num_timesteps = int(state["num_timesteps"])


def _tuples(cls: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Settings from JSON, whose lists were tuples; unknown names are refused by the dataclass."""
    known = {field.name for field in fields(cls)}
    return {name: tuple(v) if isinstance(v, list) and name in known else v for name, v in values.items()}
