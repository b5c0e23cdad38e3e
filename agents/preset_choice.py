"""Which preset a task and an agent get."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from typing import Any

import gymnasium as gym

from prefenvs.agents import AGENTS
from prefenvs.agents.presets import PRESETS, TEXT_AGENTS, Preset, text_preset
from prefenvs.agents.text.direct import GIVEN, DirectAlignment
from prefenvs.agents.text.learner import TextLearner
from prefenvs.agents.text.losses import PAIR_LOSSES
from prefenvs.agents.text.pair_logps import READS
from prefenvs.error import unknown_name
from prefenvs.tasks import TASKS
from prefenvs.tasks.text import TEXT_TASKS

TEXT = frozenset(spec.name for spec in TEXT_TASKS)
"""Names of the text tasks."""
BASELINES = {"sac": "stable_baselines3:SAC", "ppo": "stable_baselines3:PPO"}
"""SB3's own algorithms, which learn from the true reward, as `module:class`."""
_OFF_POLICY = ("pebble", "sac")
_ON_POLICY = ("prefppo", "ppo")


def choose_preset(
    task: str | None = None,
    agent: str | None = None,
    preset: str | None = None,
    steps: int | None = None,
    budget: int | None = None,
    loss: str | None = None,
) -> Preset:
    """The preset that is named, or that of the task, with the changes asked for.

    Args:
        task: name of a task; by default the preset's.
        agent: name in AGENTS or BASELINES; "ppo" on a text task is token_ppo. By default the preset's, or what suits
            the task.
        preset: name in PRESETS; by default that of the task.
        steps: by default the preset's.
        budget: questions that may be asked; one greater than the preset's number is asked in full.
        loss: name in PAIR_LOSSES, for agents that learn from pairs by a loss of choice; by default the agent's. Another
            one has its own options, since the preset's suit the agent's.

    Raises:
        ValueError: for an unknown name, or parts that do not go together.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    named = PRESETS[preset] if preset is not None else None
    task = task or (named.task if named else None)
    if task is None:
        raise ValueError("give --env or --preset; `prefenvs list tasks` and `prefenvs list presets` name them.")
    if agent == "ppo" and task in TEXT:
        agent = "token_ppo"
    if agent is not None and agent not in (*AGENTS, *BASELINES):
        raise unknown_name("agent", agent, (*AGENTS, *BASELINES))
    if named is not None and agent is not None and _kind(agent) != _kind(named.agent):
        raise ValueError(
            f"preset {preset!r} has the settings of {named.agent} ({_kind(named.agent)}), --agent {agent} needs "
            f"others. Leave --preset out: prefenvs train --env {named.task} --agent {agent}."
        )
    chosen = named or default_preset(task, agent or default_agent(task))
    chosen = replace(chosen, task=task, agent=agent or chosen.agent, total_steps=steps or chosen.total_steps)
    asked = chosen.preferences
    if budget is not None and asked.queries is not None and asked.queries < budget:
        chosen = replace(chosen, preferences=replace(asked, queries=budget))
    if chosen.agent in _OFF_POLICY and task not in TEXT and has_discrete_actions(task):
        other = {"pebble": "prefppo", "sac": "ppo"}[chosen.agent]
        raise ValueError(f"{chosen.agent} acts in continuous spaces only, {task} is not. Use --agent {other}.")
    return chosen if loss is None else _with_loss(chosen, loss)


def _with_loss(preset: Preset, loss: str) -> Preset:
    cls = agent_class(preset.agent)
    if not issubclass(cls, DirectAlignment):
        fitting = [name for name in TEXT_AGENTS if issubclass(agent_class(name), DirectAlignment)]
        raise ValueError(
            f"--loss {loss} is for agents that learn from pairs by a loss of choice, and {preset.agent} has its own. "
            f"Use --agent with one of: {', '.join(fitting)}; or leave --loss out."
        )
    if loss not in PAIR_LOSSES:
        raise unknown_name("loss", loss, PAIR_LOSSES)
    if READS.get(loss) in GIVEN:
        raise ValueError(
            f"loss {loss} reads {READS[loss]}, which cannot be given here. Make the learner in Python: "
            f"{cls.__name__}(..., loss={loss!r}, {GIVEN[READS[loss]]}=...)."
        )
    if loss == cls.default_loss:
        return preset
    return replace(preset, algorithm={**preset.algorithm, "options": {}}, extra={**preset.extra, "loss": loss})


def agent_class(agent: str) -> Any:
    """The class of an agent in AGENTS or BASELINES."""
    module, _, name = {**BASELINES, **AGENTS}[agent].partition(":")
    return getattr(importlib.import_module(module), name)


def default_preset(task: str, agent: str) -> Preset:
    """The small-machine preset of a task if there is one, else settings of the nearest kind with that task's name.

    A learner of text of one's own has those of the agent that it derives from, or else GRPO's, as far as its config
    knows them.
    """
    cls = agent_class(agent)
    if issubclass(cls, TextLearner) and agent not in TEXT_AGENTS:
        kinds = {agent_class(name): name for name in TEXT_AGENTS}
        like = default_preset(task, next((kinds[base] for base in cls.__mro__ if base in kinds), "grpo"))
        known = {field.name for field in fields(cls.config_class)}
        settings = {name: value for name, value in like.algorithm.items() if name in known}
        return replace(like, agent=agent, algorithm=settings)
    text = agent in TEXT_AGENTS
    base = agent if text else "pebble" if agent in _OFF_POLICY else "prefppo"
    for preset in PRESETS.values():
        if (preset.task, preset.agent, preset.published) == (task, base, False):
            return preset
    if text:
        return text_preset(task, agent, *TEXT_AGENTS[agent], {})
    return replace(PRESETS["halfcheetah-small" if base == "pebble" else "cartpole-small"], task=task, agent=base)


def default_agent(task: str) -> str:
    """GRPO for text, else the agent of a task's small preset; without one PEBBLE, or PrefPPO for discrete actions."""
    if task in TEXT:
        return "grpo"
    named = (preset.agent for preset in PRESETS.values() if preset.task == task and not preset.published)
    return next(named, "prefppo" if has_discrete_actions(task) else "pebble")


def has_discrete_actions(task: str) -> bool:
    """Whether a task's actions are Discrete, which SAC, and so PEBBLE, cannot choose."""
    env = gym.make(TASKS[task].id, evaluation=True)
    env.close()
    return isinstance(env.action_space, gym.spaces.Discrete)


def _kind(agent: str) -> str:
    """What an agent shares its settings with."""
    return "off-policy" if agent in _OFF_POLICY else "on-policy" if agent in _ON_POLICY else agent
