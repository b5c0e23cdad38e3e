"""Named settings of whole runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from stable_baselines3.common.utils import LinearSchedule

from prefenvs.agents.preference_callback import PreferenceConfig
from prefenvs.tasks import TASKS


@dataclass(frozen=True)
class Preset:
    """Task, agent and all hyperparameters of a run."""

    task: str
    agent: str
    total_steps: int
    num_envs: int
    algorithm: Mapping[str, Any]
    """Arguments of SB3's SAC or PPO; "lin_1e-3" is a rate that falls linearly to 0."""
    preferences: PreferenceConfig
    eval_every: int
    checkpoint_every: int
    source: str
    """Where the settings are from, and what of them could not be kept."""
    published: bool = False
    """Whether they are a publication's, for large machines; taken only when named."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the agent."""


_OURS = "small-machine preset of this project"
_BPREF = "B-Pref's released scripts (Lee et al. 2021, arXiv:2111.03026), github.com/rll-research/BPref, oracle teacher"
_PEBBLE_DEPARTURES = (
    "; SB3 learns the entropy coefficient at the actor's rate (there 1e-4) and bounds log sd by [-20, 2]"
)
_PREFPPO_DEPARTURES = (
    "; without its 32k steps of unsupervised pre-training and its running normalization of observations"
)


def _bpref_pebble(task: str, lr: float, steps: int, budget: int, per_session: int, every: int) -> Preset:
    count = budget // per_session
    return Preset(
        task,
        "pebble",
        steps,
        1,
        {
            "learning_rate": lr,
            "batch_size": 1024,
            "learning_starts": 1000,
            "buffer_size": steps,
            "ent_coef": "auto_0.1",
            "target_update_interval": 2,
            "policy_kwargs": {"net_arch": [1024, 1024]},
        },
        PreferenceConfig(
            queries=budget,
            sessions=count,
            first_session=10_000,
            last_session=10_000 + every * (count - 1),
            segment_steps=50,
            strategy="disagreement",
            standardize=False,
            reward_lr=3e-4,
            reward_epochs=50,
            reward_batch=128,
        ),
        eval_every=10_000,
        checkpoint_every=50_000,
        source=_BPREF + _PEBBLE_DEPARTURES,
        published=True,
    )


def _bpref_prefppo(task: str, num_envs: int, batch: int, gae_lambda: float, budget: int, per_session: int) -> Preset:
    count = budget // per_session
    return Preset(
        task,
        "prefppo",
        4_000_000,
        num_envs,
        {
            "learning_rate": 5e-5,
            "clip_range": "lin_0.4",
            "n_steps": 500,
            "batch_size": batch,
            "n_epochs": 20,
            "gae_lambda": gae_lambda,
            "ent_coef": 0.0,
            "use_sde": True,
            "sde_sample_freq": 4,
            "policy_kwargs": {"net_arch": [256, 256, 256]},
        },
        PreferenceConfig(
            queries=budget,
            sessions=count,
            first_session=32_000,
            last_session=32_000 + 16_000 * (count - 1),
            segment_steps=50,
            strategy="disagreement",
            standardize=False,
            reward_lr=3e-4,
            reward_epochs=100,
            reward_batch=128,
        ),
        eval_every=100_000,
        checkpoint_every=320_000,
        source=_BPREF + _PREFPPO_DEPARTURES,
        published=True,
    )


PRESETS: dict[str, Preset] = {
    "halfcheetah-small": Preset(
        "HalfCheetah",
        "pebble",
        80_000,
        4,
        {
            "learning_rate": 1e-3,
            "batch_size": 256,
            "learning_starts": 500,
            "gradient_steps": 2,
            "buffer_size": 100_000,
            "ent_coef": "auto_0.1",
            "policy_kwargs": {"net_arch": [128, 128]},
        },
        PreferenceConfig(
            queries=400,
            sessions=10,
            first_session=2000,
            last_session=29_000,
            segment_steps=25,
            hidden=(128, 128),
            reward_lr=1e-3,
        ),
        eval_every=8000,
        checkpoint_every=20_000,
        source=_OURS,
    ),
    "pendulum-small": Preset(
        "Pendulum",
        "pebble",
        20_000,
        1,
        {"learning_rate": 1e-3, "learning_starts": 500, "policy_kwargs": {"net_arch": [64, 64]}},
        PreferenceConfig(
            queries=200,
            sessions=8,
            first_session=1000,
            last_session=8000,
            segment_steps=50,
            hidden=(64, 64),
            reward_lr=1e-3,
        ),
        eval_every=2000,
        checkpoint_every=5000,
        source=_OURS,
    ),
    "cartpole-small": Preset(
        "CartPole",
        "prefppo",
        100_000,
        8,
        {
            "learning_rate": "lin_1e-3",
            "clip_range": "lin_0.2",
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
        },
        PreferenceConfig(
            queries=200,
            sessions=10,
            first_session=1000,
            last_session=30_000,
            segment_steps=50,
            hidden=(64, 64),
            reward_lr=1e-3,
        ),
        eval_every=10_000,
        checkpoint_every=25_600,
        source=_OURS + "; PPO as rl-baselines3-zoo tunes it for CartPole-v1",
    ),
    "bpref-walker-walk": _bpref_pebble("WalkerWalk", 5e-4, 500_000, 500, 50, 20_000),
    "bpref-quadruped-walk": _bpref_pebble("QuadrupedWalk", 1e-4, 1_000_000, 1000, 100, 30_000),
    "bpref-walker-walk-prefppo": _bpref_prefppo("WalkerWalk", 32, 64, 0.92, 500, 50),
    "bpref-quadruped-walk-prefppo": _bpref_prefppo("QuadrupedWalk", 16, 128, 0.9, 1000, 100),
}
"""Presets by name. `PRESETS["mine"] = Preset(...)` adds one."""


def default_preset(task: str, agent: str) -> Preset:
    """The small-machine preset of a task if there is one, else settings of the nearest kind with that task's name."""
    base = "pebble" if agent in ("pebble", "sac") else "prefppo"
    for preset in PRESETS.values():
        if (preset.task, preset.agent, preset.published) == (task, base, False):
            return preset
    from dataclasses import replace

    return replace(PRESETS["halfcheetah-small" if base == "pebble" else "cartpole-small"], task=task, agent=base)


def default_agent(task: str) -> str:
    """The agent of a task's small preset; without one PEBBLE, or PrefPPO where actions are discrete."""
    named = (preset.agent for preset in PRESETS.values() if preset.task == task and not preset.published)
    return next(named, "prefppo" if has_discrete_actions(task) else "pebble")


def has_discrete_actions(task: str) -> bool:
    """Whether a task's actions are Discrete, which SAC, and so PEBBLE, cannot choose."""
    env = gym.make(TASKS[task].id, evaluation=True)
    env.close()
    return isinstance(env.action_space, gym.spaces.Discrete)


def schedules(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with "lin_1e-3" turned into SB3's schedule that falls linearly to 0 over the run."""
    return {
        key: LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
        if isinstance(value, str) and value.startswith("lin_")
        else value
        for key, value in arguments.items()
    }
