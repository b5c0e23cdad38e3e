"""Models of the reward that a teacher has in mind."""

from prefenvs.agents.reward_models.ensemble import RewardEnsemble
from prefenvs.agents.reward_models.feature_regret import FeatureRegret, FeatureReward, SuccessorFeatures
from prefenvs.agents.reward_models.features import Features, quadratic_features
from prefenvs.agents.reward_models.linear import LinearModel, fit_linear, random_weights
from prefenvs.agents.reward_models.linear_regret import LINEAR_MODELS, LinearRegret, LinearReward, linear_model
from prefenvs.agents.reward_models.losses import bradley_terry_loss, centring_penalty
from prefenvs.agents.reward_models.step_model import StepRewardModel
from prefenvs.agents.reward_models.training import AnsweredQueries, FitReport, PreferenceData, fit

__all__ = [
    "LINEAR_MODELS",
    "AnsweredQueries",
    "FeatureRegret",
    "FeatureReward",
    "Features",
    "FitReport",
    "LinearModel",
    "LinearRegret",
    "LinearReward",
    "PreferenceData",
    "RewardEnsemble",
    "StepRewardModel",
    "SuccessorFeatures",
    "bradley_terry_loss",
    "centring_penalty",
    "fit",
    "fit_linear",
    "linear_model",
    "quadratic_features",
    "random_weights",
]
