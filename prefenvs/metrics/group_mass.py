"""How much probability a policy gives to groups of responses: those that pairs showed, and those that none did."""

from __future__ import annotations

import numpy as np


def group_mass(probabilities: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Probability of each group of responses. Where the likelihoods of pairs fall, it says where the mass has gone.

    With groups chosen, rejected and unseen these are the curves of 3D-Properties, Yan et al. 2024, arXiv:2406.07327.

    Args:
        probabilities: (..., C) of the responses to a prompt; leading axes are prompts, checkpoints or runs.
        group: (..., C) number of each response's group, 0..groups - 1; broadcast against `probabilities`.
        groups: G, how many there are.

    Returns:
        (..., G) in [0, 1]; sums to 1 where the probabilities do.

    Raises:
        ValueError: if a group's number is out of range, since its probability would be lost.
    """
    group = np.asarray(group)
    if group.size and (group.min() < 0 or group.max() >= groups):
        raise ValueError(
            f"group has numbers from {group.min()} to {group.max()}, expected 0 to groups - 1 = {groups - 1}."
        )
    member = group[..., None] == np.arange(groups)  # (..., C, G)
    return (np.asarray(probabilities)[..., None] * member).sum(-2)


def with_group_mass(probabilities: np.ndarray, group: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """(..., C) probabilities whose groups have other masses (groups,), and within a group the same proportions."""
    return probabilities * mass[group] / np.take_along_axis(group_mass(probabilities, group, len(mass)), group, -1)
