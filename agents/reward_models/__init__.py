"""Models of the reward that a teacher has in mind."""

from prefenvs.agents.reward_models.ensemble import RewardEnsemble
from prefenvs.agents.reward_models.losses import bradley_terry_loss
from prefenvs.agents.reward_models.training import FitReport, PreferenceData, fit

__all__ = ["FitReport", "PreferenceData", "RewardEnsemble", "bradley_terry_loss", "fit"]
