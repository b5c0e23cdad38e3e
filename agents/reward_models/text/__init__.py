"""Reward models of text: what a completion of a prompt is worth, learned from preferences."""

from __future__ import annotations

from prefenvs.agents.reward_models.text.preferences import TextPreferences
from prefenvs.agents.reward_models.text.scalar import BradleyTerryReward, TrunkEnsemble
from prefenvs.agents.reward_models.text.surface import TextRewardModel

__all__ = ["BradleyTerryReward", "TextPreferences", "TextRewardModel", "TrunkEnsemble"]
