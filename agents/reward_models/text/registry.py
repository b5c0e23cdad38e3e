"""Reward models of text by name."""

from __future__ import annotations

from collections.abc import Callable

from prefenvs.agents.reward_models.text.implicit import ImplicitReward
from prefenvs.agents.reward_models.text.pairwise import PairwisePreference
from prefenvs.agents.reward_models.text.process import ProcessReward
from prefenvs.agents.reward_models.text.scalar import BradleyTerryReward, TrunkEnsemble
from prefenvs.agents.reward_models.text.surface import TextModel
from prefenvs.agents.reward_models.text.word_pairs import WordPairsReward

TEXT_REWARD_MODELS: dict[str, Callable[..., TextModel]] = {
    "bradley_terry": BradleyTerryReward,
    "implicit": ImplicitReward,
    "pairwise": PairwisePreference,
    "process": ProcessReward,
    "trunk_ensemble": TrunkEnsemble,
    "word_pairs": WordPairsReward,
}
"""Called as `make(language_model, rng=rng, **options)`. `TEXT_REWARD_MODELS["mine"] = Mine` adds one."""
