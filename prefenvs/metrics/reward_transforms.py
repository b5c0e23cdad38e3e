"""Changes of a tabular reward that leave the order of all policies as it is.

Together they reach every reward that orders all policies alike (Skalse et al. 2023, arXiv:2309.15257): potential
shaping and S'-redistribution move a policy's return by a constant, a scale multiplies it.
"""

from __future__ import annotations

import numpy as np

from prefenvs.tasks.grid.tabular import TabularMDP


def shaping(rewards: np.ndarray, potential: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """Potential shaping, R(s, a, s') + gamma phi(s') - phi(s). Ng et al. 1999.

    It is added to all triples, those that cannot happen included: EPIC and DARD read them.

    Args:
        rewards: (..., S, A, S) reward of each transition.
        potential: (..., S) phi in units of return; 0 in terminal states, whatever stands there.
        mdp: Gives the discount and the terminal states; its own rewards are not read.

    Returns:
        (..., S, A, S).
    """
    phi = np.where(mdp.terminal, 0.0, potential)
    return rewards + mdp.gamma * phi[..., None, None, :] - phi[..., :, None, None]


def s_redistribution(rewards: np.ndarray, noise: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """S'-redistribution: another reward of each next state with the same mean over next states.

    R(s, a, s') + z(s, a, s') - E_{S' ~ T(s, a)}[z(s, a, S')]. Skalse et al. 2023, arXiv:2309.15257.

    Args:
        rewards: (..., S, A, S) reward of each transition.
        noise: (..., S, A, S) z.
        mdp: Gives the transitions; its own rewards are not read.

    Returns:
        (..., S, A, S).
    """
    return rewards + noise - (mdp.transitions * noise).sum(axis=-1, keepdims=True)


def disguised(rewards: np.ndarray, mdp: TabularMDP, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, S, A, S) rewards that order all policies as those given do, and look different: a draw of all three.

    Potentials and redistributions, of transitions that can happen, are normal with deviations up to 2; scales are
    10^-1 to 10.

    Args:
        rewards: (S, A, S) or (count, S, A, S) reward of each transition.
        mdp: Gives the transitions and the discount; its own rewards are not read.
        count: How many.
        rng: Draws everything.
    """
    possible = mdp.transitions > 0
    spreads = rng.uniform(0, 2, (2, count, 1, 1, 1))
    potential = spreads[0, :, 0, 0] * rng.standard_normal((count, mdp.num_states))
    noise = spreads[1] * possible * rng.standard_normal((count, *possible.shape))
    changed = s_redistribution(shaping(rewards, potential, mdp), noise, mdp)
    return scale(changed, 10 ** rng.uniform(-1, 1, count))


def scale(rewards: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """The reward in another unit, factor * R.

    Args:
        rewards: (..., S, A, S) reward of each transition.
        factor: (...) positive.

    Raises:
        ValueError: A factor is not positive; it would turn the order of policies around.
    """
    factor = np.asarray(factor, float)
    if not (factor > 0).all():
        raise ValueError(f"factor={factor.min():g} must be positive: others change which policies are better.")
    return factor[..., None, None, None] * rewards
