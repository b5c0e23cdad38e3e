"""What a policy gives up under a reward, exactly, on tabular problems."""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.grid.solvers import greedy_policy, policy_evaluation, policy_iteration, uniform_policy
from prefenvs.tasks.grid.tabular import TabularMDP


def optimal_policy(mdp: TabularMDP) -> np.ndarray:
    """(S, A) an optimal policy; the best actions share the probability."""
    return greedy_policy(policy_iteration(mdp)[1])


def policy_return(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """(...) expected discounted return J of (..., S, A) policies from the start distribution."""
    return policy_evaluation(mdp, policy) @ mdp.start


def normalised_regret(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """How far policies fall short of the best: (max J - J(pi)) / (max J - min J).

    Skalse et al. 2023, arXiv:2309.15257, sec. 3, bounds this by a STARC distance for the policies that another reward
    would choose.

    Args:
        mdp: The problem with its true reward.
        policy: (..., S, A) action probabilities.

    Returns:
        (...) in [0, 1]; 0 for the best policy, 1 for the worst, 0 where all policies earn the same.
    """
    best = mdp.start @ policy_iteration(mdp)[0]
    worst = -(mdp.start @ policy_iteration(mdp.with_rewards(-mdp.rewards))[0])
    lost, room = best - policy_return(mdp, policy), best - worst
    if room <= 1e-9 * (1 + abs(best)):
        return np.zeros_like(lost)
    return np.clip(lost / room, 0.0, 1.0)


def normalised_return(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """(n,) returns of (n, S, A) policies, 0 for the uniform policy and 1 for the optimal one. arXiv:2206.02231."""
    *got, uniform, best = policy_return(mdp, np.stack([*policy, uniform_policy(mdp), optimal_policy(mdp)]))
    return (np.array(got) - uniform) / (best - uniform)
