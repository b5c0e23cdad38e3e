"""Metrics: how far a reward is from another, what a policy gives up, correlations. Pure functions over arrays."""

from prefenvs.metrics.correlation import pearson as pearson
from prefenvs.metrics.correlation import spearman as spearman
from prefenvs.metrics.regret import normalised_regret as normalised_regret
from prefenvs.metrics.regret import optimal_policy as optimal_policy
from prefenvs.metrics.regret import policy_return as policy_return
from prefenvs.metrics.reward_distance import CANONICALISATIONS as CANONICALISATIONS
from prefenvs.metrics.reward_distance import NORMS as NORMS
from prefenvs.metrics.reward_distance import REWARD_DISTANCES as REWARD_DISTANCES
from prefenvs.metrics.reward_distance import dard_distance as dard_distance
from prefenvs.metrics.reward_distance import epic_distance as epic_distance
from prefenvs.metrics.reward_distance import reward_distance as reward_distance
from prefenvs.metrics.reward_distance import standardise as standardise
from prefenvs.metrics.reward_distance import starc as starc
from prefenvs.metrics.reward_transforms import s_redistribution as s_redistribution
from prefenvs.metrics.reward_transforms import scale as scale
from prefenvs.metrics.reward_transforms import shaping as shaping
from prefenvs.metrics.sampled_canonical import Transitions as Transitions
from prefenvs.metrics.sampled_canonical import fourier_features as fourier_features
from prefenvs.metrics.sampled_canonical import sampled_dard as sampled_dard
from prefenvs.metrics.sampled_canonical import sampled_epic as sampled_epic
from prefenvs.metrics.sampled_canonical import sampled_val as sampled_val
from prefenvs.metrics.sampled_distance import SampledDistance as SampledDistance
from prefenvs.metrics.sampled_distance import sampled_dard_distance as sampled_dard_distance
from prefenvs.metrics.sampled_distance import sampled_distance as sampled_distance
from prefenvs.metrics.sampled_distance import sampled_epic_distance as sampled_epic_distance
from prefenvs.metrics.sampled_distance import sampled_starc_distance as sampled_starc_distance
