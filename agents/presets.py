"""Named settings of whole runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from prefenvs.agents.preference_callback import PreferenceConfig
from prefenvs.agents.text.rewards import TextPreferenceConfig


@dataclass(frozen=True)
class Preset:
    """Task, agent and all hyperparameters of a run."""

    task: str
    agent: str
    total_steps: int
    """Environment steps; completions or pairs of text."""
    num_envs: int
    algorithm: Mapping[str, Any]
    """Arguments of SB3's SAC or PPO, or the config of a learner of text; "lin_1e-3" is a rate that falls to 0."""
    preferences: PreferenceConfig | TextPreferenceConfig
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
            scale_reward=False,
            held_out_every=None,
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
            scale_reward=False,
            held_out_every=None,
            reward_lr=3e-4,
            reward_epochs=100,
            reward_batch=128,
        ),
        eval_every=100_000,
        checkpoint_every=320_000,
        source=_BPREF + _PREFPPO_DEPARTURES,
        published=True,
    )


def text_preset(task: str, agent: str, total: int, algorithm: Mapping[str, Any], decoder: Mapping[str, Any]) -> Preset:
    """Settings of an agent on a text task, as TEXT_AGENTS has them, with what differs of the decoder."""
    return Preset(
        task,
        agent,
        total,
        128,
        algorithm,
        # A copy of the small decoder learns 1000 answers by heart and foresees few others: see its test.
        TextPreferenceConfig(queries=1000, reward_model="word_pairs", learning_rate=3e-3, epochs=20),
        eval_every=max(1, total // 10),
        checkpoint_every=max(1, total // 4),
        source=_OURS,
        extra={"policy_kwargs": decoder},
    )


_CAUTIOUS = {"aggregate": "worst_case"}
"""A reward that foresees most answers can be over-optimised all the same. What these settings come to is measured by
benchmarks/text_presets.py."""
TEXT_AGENTS: dict[str, tuple[int, dict[str, Any]]] = {
    "best_of_n": (128, {"group": 16, **_CAUTIOUS}),
    "dpo": (6400, {"learning_rate": "lin_1e-4", "batch_size": 64, "options": {"beta": 0.3}}),
    "grpo": (7680, {"learning_rate": "lin_3e-4", "beta": 0.3, "group": 8, "kl": "reward", **_CAUTIOUS}),
    "p3o": (7680, {"learning_rate": "lin_3e-4", "beta": 0.3, **_CAUTIOUS}),
    "reward_weighted": (7680, {"learning_rate": "lin_3e-4", "beta": 0.5, "group": 16, **_CAUTIOUS}),
    "rloo": (7680, {"learning_rate": "lin_3e-4", "beta": 0.3, "group": 4, **_CAUTIOUS}),
    "rso": (6400, {"learning_rate": "lin_1e-4", "pairs": 2000, "candidates": 16, "options": {"beta": 0.3}}),
    "token_ppo": (
        7680,
        {"learning_rate": "lin_3e-4", "beta": 0.5, "epochs": 2, "critic_learning_rate": 1e-3, **_CAUTIOUS},
    ),
}
"""Completions or pairs, and settings, that suit the small decoder on any text task."""
_TINY = {"layers": 1, "width": 32, "heads": 2, "steps": 300}
"""A decoder for the task whose completions can be listed; it is pre-trained in seconds."""


def _text_enum(agent: str) -> Preset:
    total, settings = TEXT_AGENTS[agent]
    return text_preset("TextEnum", agent, total, {**settings, "learning_rate": "lin_2e-3"}, _TINY)


PRESETS: dict[str, Preset] = {
    "halfcheetah-small": Preset(
        "HalfCheetah",
        "pebble",
        50_000,
        4,
        {
            "learning_rate": 1e-3,
            "batch_size": 256,
            "learning_starts": 4000,  # after 500, SAC ended near 1,200 in 4 runs of 10
            "gradient_steps": 2,
            "buffer_size": 100_000,
            "ent_coef": "auto_0.1",
            "policy_kwargs": {"net_arch": [128, 128]},
        },
        PreferenceConfig(
            queries=520,
            sessions=13,
            first_session=4500,
            last_session=44_000,
            segment_steps=25,
            hidden=(128, 128),
            reward_lr=1e-3,
        ),
        eval_every=5000,
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
    "text-enum-dpo": _text_enum("dpo"),
    "text-enum-grpo": _text_enum("grpo"),
    "text-enum-ppo": _text_enum("token_ppo"),
}
"""Presets by name. `PRESETS["mine"] = Preset(...)` adds one."""


def schedules(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with "lin_1e-3" turned into SB3's schedule that falls linearly to 0 over the run."""
    return {
        key: LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
        if isinstance(value, str) and value.startswith("lin_")
        else value
        for key, value in arguments.items()
    }
