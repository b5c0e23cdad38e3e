"""Metrics: how far a reward is from another, what a policy gives up, correlations. Pure functions over arrays.

On a tabular problem all is exact:

    >>> import numpy as np
    >>> from prefenvs.metrics import REWARD_DISTANCES, normalised_regret, optimal_policy, s_redistribution
    >>> from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
    >>> rng = np.random.default_rng(0)
    >>> mdp = random_sparse_mdp(rng, states=10, actions=3)
    >>> learned = s_redistribution(mdp.rewards, rng.standard_normal(mdp.rewards.shape), mdp)
    >>> {name: round(float(distance(mdp.rewards, learned, mdp)), 2) for name, distance in REWARD_DISTANCES.items()}
    {'starc': 0.0, 'epic': 0.56, 'dard': 0.22, 'minimal': 0.0, 'none': 0.55}
    >>> float(normalised_regret(mdp, optimal_policy(mdp.with_rewards(learned))))
    0.0

Elsewhere `sampled_starc_distance` and its like compare reward functions on a batch of `Transitions`, and REWARD_METRICS
a learned reward with recorded true ones. Of policies trained on a proxy reward, `best_of_n_curve`, `fit_frontier` and
`matched_kl_difference` say how far the gold reward follows, and `ranking_accuracy` whether they rank pairs.
"""

from prefenvs.metrics.correlation import pearson as pearson
from prefenvs.metrics.correlation import spearman as spearman
from prefenvs.metrics.group_mass import group_mass as group_mass
from prefenvs.metrics.group_mass import with_group_mass as with_group_mass
from prefenvs.metrics.learned_reward import NEED_FUNCTIONS as NEED_FUNCTIONS
from prefenvs.metrics.learned_reward import REWARD_METRICS as REWARD_METRICS
from prefenvs.metrics.learned_reward import RewardComparison as RewardComparison
from prefenvs.metrics.over_optimisation import FRONTIERS as FRONTIERS
from prefenvs.metrics.over_optimisation import FrontierFit as FrontierFit
from prefenvs.metrics.over_optimisation import OptimisationCurve as OptimisationCurve
from prefenvs.metrics.over_optimisation import best_of_n_curve as best_of_n_curve
from prefenvs.metrics.over_optimisation import best_of_n_kl as best_of_n_kl
from prefenvs.metrics.over_optimisation import best_of_n_table as best_of_n_table
from prefenvs.metrics.over_optimisation import fit_frontier as fit_frontier
from prefenvs.metrics.over_optimisation import gold_at_kl as gold_at_kl
from prefenvs.metrics.over_optimisation import matched_kl_difference as matched_kl_difference
from prefenvs.metrics.over_optimisation import peak_to_final_drop as peak_to_final_drop
from prefenvs.metrics.over_optimisation import sampled_kl as sampled_kl
from prefenvs.metrics.over_optimisation_plot import plot_over_optimisation as plot_over_optimisation
from prefenvs.metrics.ranking import alignment_gap as alignment_gap
from prefenvs.metrics.ranking import dpo_flip_loss as dpo_flip_loss
from prefenvs.metrics.ranking import flip_curve as flip_curve
from prefenvs.metrics.ranking import flip_difficulty as flip_difficulty
from prefenvs.metrics.ranking import idealised_accuracy as idealised_accuracy
from prefenvs.metrics.ranking import ranking_accuracy as ranking_accuracy
from prefenvs.metrics.regret import normalised_regret as normalised_regret
from prefenvs.metrics.regret import normalised_return as normalised_return
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
from prefenvs.metrics.reward_transforms import disguised as disguised
from prefenvs.metrics.reward_transforms import s_redistribution as s_redistribution
from prefenvs.metrics.reward_transforms import scale as scale
from prefenvs.metrics.reward_transforms import shaping as shaping
from prefenvs.metrics.sampled_canonical import RewardFunction as RewardFunction
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
