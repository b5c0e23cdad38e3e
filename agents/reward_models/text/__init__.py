"""Reward models of text: what a completion of a prompt is worth, learned from preferences.

>>> from prefenvs.agents.reward_models import fit
>>> from prefenvs.agents.reward_models.text import TEXT_REWARD_MODELS, TextPreferences
>>> model = TEXT_REWARD_MODELS["bradley_terry"](language_model, rng=rng, members=5)              # doctest: +SKIP
>>> data = TextPreferences()                                                                     # doctest: +SKIP
>>> data.add(model, query, feedback.ask(query))                                                  # doctest: +SKIP
>>> fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), data, rng=rng, epochs=3)           # doctest: +SKIP
>>> model.score(prompts, completions)                                                            # doctest: +SKIP
"""

from __future__ import annotations

from prefenvs.agents.reward_models.text.files import load_reward_model, save_reward_model
from prefenvs.agents.reward_models.text.implicit import ImplicitReward
from prefenvs.agents.reward_models.text.pairwise import PairwisePreference
from prefenvs.agents.reward_models.text.preferences import TextPreferences
from prefenvs.agents.reward_models.text.process import ProcessReward, at_step_ends, step_ends
from prefenvs.agents.reward_models.text.registry import TEXT_REWARD_MODELS
from prefenvs.agents.reward_models.text.scalar import BradleyTerryReward, TrunkEnsemble
from prefenvs.agents.reward_models.text.surface import TextModel, TextRewardModel
from prefenvs.agents.reward_models.text.transformed import References, TransformedReward, TransformedSteps, WinRate
from prefenvs.agents.reward_models.text.word_pairs import WordPairs, WordPairsReward

__all__ = [
    "TEXT_REWARD_MODELS",
    "BradleyTerryReward",
    "ImplicitReward",
    "PairwisePreference",
    "ProcessReward",
    "References",
    "TextModel",
    "TextPreferences",
    "TextRewardModel",
    "TransformedReward",
    "TransformedSteps",
    "TrunkEnsemble",
    "WinRate",
    "WordPairs",
    "WordPairsReward",
    "at_step_ends",
    "load_reward_model",
    "save_reward_model",
    "step_ends",
]
