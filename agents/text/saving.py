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
from prefenvs.error import RunMismatch
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
        "frozen": [name for name, parameter in learner.policy.named_parameters() if not parameter.requires_grad],
        "seed": learner.seed,
        "policy_kwargs": learner.policy_kwargs,
        "own": learner.own_settings(),
        "given": list(learner.unsaved_arguments()),
    }
    write_agent(path, facts, learner.state())


def read_learner(
    cls: type[TextLearner], path: str | Path, policy: Any = None, changes: Collection[str] = ()
) -> tuple[Any, dict[str, Any], Arrays]:
    """What makes a learner that `save_learner` wrote: see `TextLearner.load`.

    Args:
        cls: of the learner.
        path: the zip.
        policy: a LanguageModel of the same architecture; not needed for a Decoder. What of it learns is as it was.
        changes: names of further arguments of the constructor that are given again.

    Returns:
        A policy, whose weights are yet to be loaded, further arguments of the constructor, and the state.
    """
    path = with_ending(path)
    facts, arrays = read_agent(cls, path)
    with reading(path):
        shape, given, frozen = facts["decoder"], facts.get("given", ()), facts.get("frozen")
        arguments = {
            "config": cls.config_class(**_tuples(cls.config_class, facts["config"])),
            "seed": int(facts["seed"]),
            "policy_kwargs": facts["policy_kwargs"],
            **cls.own_arguments(dict(facts["own"])),
        }
    if policy is None and shape is None:
        raise ValueError(f"{path} was trained with a language model of your own. Pass it: load(path, env, policy=...).")
    if missing := [name for name in given if name not in changes]:
        names, again = " and ".join(f"{name}=" for name in missing), ", ".join(f"{name}=..." for name in missing)
        raise ValueError(
            f"{path} was trained with {names} of your own, which a file does not hold. "
            f"Pass it again: load(path, env, {again}). Nothing was loaded or asked."
        )
    made = policy or Decoder(**shape)
    if frozen is not None:  # earlier files do not say it
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return made, arguments, arrays


def learner_state(learner: TextLearner) -> Arrays:
    """Everything that a resumed run needs, as named arrays."""
    modules = {**learner.trained(), "reference": learner.reference}
    state = {f"{name}/{key}": array for name, module in modules.items() for key, array in module_state(module).items()}
    state |= {f"optimizer/{key}": array for key, array in optimizer_state(learner.optimizer).items()}
    state |= {f"own/{key}": np.asarray(array) for key, array in learner.own_state().items()}
    state |= {name: getattr(learner, name).get_state().numpy() for name in GENERATORS}
    return state | {"num_timesteps": np.array(learner.num_timesteps)}


def load_learner_state(learner: TextLearner, state: Arrays) -> None:
    """Put back what `learner_state` gave.

    Raises:
        RunMismatch: if it belongs to other networks, or to others of their weights.
    """
    for name, module in {**learner.trained(), "reference": learner.reference}.items():
        load_module(module, under(name, state))
    _check_moments(learner.optimizer, under("optimizer", state))
    load_optimizer(learner.optimizer, under("optimizer", state))
    learner.load_own_state(under("own", state))
    for name in set(GENERATORS) & set(state):  # earlier files lack predict_rng, which then begins anew
        getattr(learner, name).set_state(torch.as_tensor(np.array(state[name])))
    learner.num_timesteps = int(state["num_timesteps"])


def _check_moments(optimizer: torch.optim.Optimizer, state: Arrays) -> None:
    """Refuse moments that are not of the weights which the optimiser trains."""
    shapes = [tuple(parameter.shape) for group in optimizer.param_groups for parameter in group["params"]]
    for key, array in state.items():
        place = int(key.partition("/")[0])
        if array.ndim and (place >= len(shapes) or array.shape != shapes[place]):
            raise RunMismatch(
                f"the saved optimiser trained other weights than the {len(shapes)} that learn here. Freeze of the "
                "policy what was frozen, and no more."
            )


def _tuples(cls: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Settings from JSON, whose lists were tuples; unknown names are refused by the dataclass."""
    known = {field.name for field in fields(cls)}
    return {name: tuple(v) if isinstance(v, list) and name in known else v for name, v in values.items()}
