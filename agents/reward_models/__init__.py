"""Models of the reward that a teacher has in mind."""

from prefenvs.agents.reward_models.ensemble import RewardEnsemble
from prefenvs.agents.reward_models.losses import bradley_terry_loss, centring_penalty
from prefenvs.agents.reward_models.training import AnsweredQueries, FitReport, PreferenceData, fit

__all__ = [
    "AnsweredQueries",
    "FitReport",
    "PreferenceData",
    "RewardEnsemble",
    "bradley_terry_loss",
    "centring_penalty",
    "fit",
]
