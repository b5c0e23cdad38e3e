"""Agents that learn from preferences, and the parts they are made of. Each loads when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefenvs.agents.checkpoint import Barrier as Barrier
    from prefenvs.agents.distributional import QuantileDQN as QuantileDQN
    from prefenvs.agents.distributional import StockWrapper as StockWrapper
    from prefenvs.agents.learned_reward import LearnedReward as LearnedReward
    from prefenvs.agents.learned_reward import RewardReplayBuffer as RewardReplayBuffer
    from prefenvs.agents.pebble import PEBBLE as PEBBLE
    from prefenvs.agents.ppo import PPO as PPO
    from prefenvs.agents.preference_callback import PreferenceCallback as PreferenceCallback
    from prefenvs.agents.preference_callback import PreferenceConfig as PreferenceConfig
    from prefenvs.agents.prefppo import PrefPPO as PrefPPO
    from prefenvs.agents.replay import TensorReplayBuffer as TensorReplayBuffer
    from prefenvs.agents.reward_metrics import RewardMetricsCallback as RewardMetricsCallback
    from prefenvs.agents.reward_models import FeatureRegret as FeatureRegret
    from prefenvs.agents.reward_models import FeatureReward as FeatureReward
    from prefenvs.agents.reward_models import LinearRegret as LinearRegret
    from prefenvs.agents.reward_models import LinearReward as LinearReward
    from prefenvs.agents.reward_models import RewardEnsemble as RewardEnsemble
    from prefenvs.agents.reward_models import fit_linear as fit_linear
    from prefenvs.agents.reward_models import linear_model as linear_model
    from prefenvs.agents.sac import SAC as SAC
    from prefenvs.agents.text.direct import DirectAlignment as DirectAlignment
    from prefenvs.agents.text.fine_tuning import BestOfN as BestOfN
    from prefenvs.agents.text.fine_tuning import RewardWeighted as RewardWeighted
    from prefenvs.agents.text.grpo import GRPO as GRPO
    from prefenvs.agents.text.p3o import P3O as P3O
    from prefenvs.agents.text.ppo import TokenPPO as TokenPPO
    from prefenvs.agents.text.rewards import TextPreferenceConfig as TextPreferenceConfig
    from prefenvs.agents.text.rloo import RLOO as RLOO
    from prefenvs.agents.text.rso import RSO as RSO

_MODULES = {
    "prefenvs.agents.checkpoint": ("Barrier",),
    "prefenvs.agents.distributional": ("QuantileDQN", "StockWrapper"),
    "prefenvs.agents.learned_reward": ("LearnedReward", "RewardReplayBuffer"),
    "prefenvs.agents.pebble": ("PEBBLE",),
    "prefenvs.agents.ppo": ("PPO",),
    "prefenvs.agents.preference_callback": ("PreferenceCallback", "PreferenceConfig"),
    "prefenvs.agents.prefppo": ("PrefPPO",),
    "prefenvs.agents.replay": ("TensorReplayBuffer",),
    "prefenvs.agents.reward_metrics": ("RewardMetricsCallback",),
    "prefenvs.agents.reward_models": (
        "FeatureRegret",
        "FeatureReward",
        "LinearRegret",
        "LinearReward",
        "RewardEnsemble",
        "fit_linear",
        "linear_model",
    ),
    "prefenvs.agents.sac": ("SAC",),
    "prefenvs.agents.text.direct": ("DirectAlignment",),
    "prefenvs.agents.text.fine_tuning": ("BestOfN", "RewardWeighted"),
    "prefenvs.agents.text.grpo": ("GRPO",),
    "prefenvs.agents.text.p3o": ("P3O",),
    "prefenvs.agents.text.ppo": ("TokenPPO",),
    "prefenvs.agents.text.rewards": ("TextPreferenceConfig",),
    "prefenvs.agents.text.rloo": ("RLOO",),
    "prefenvs.agents.text.rso": ("RSO",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

AGENTS = {
    "best_of_n": "prefenvs.agents.text.fine_tuning:BestOfN",
    "dpo": "prefenvs.agents.text.direct:DirectAlignment",
    "grpo": "prefenvs.agents.text.grpo:GRPO",
    "p3o": "prefenvs.agents.text.p3o:P3O",
    "pebble": "prefenvs.agents.pebble:PEBBLE",
    "prefppo": "prefenvs.agents.prefppo:PrefPPO",
    "reward_weighted": "prefenvs.agents.text.fine_tuning:RewardWeighted",
    "rloo": "prefenvs.agents.text.rloo:RLOO",
    "rso": "prefenvs.agents.text.rso:RSO",
    "token_ppo": "prefenvs.agents.text.ppo:TokenPPO",
}
"""Agents by name, as `module:class`. `AGENTS["mine"] = "package.module:Mine"` adds one."""

__all__ = ["AGENTS", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'prefenvs.agents' has no attribute {name!r}")
