"""Whether a language model gives the preferred response the higher likelihood, and what it could at best.

Chen et al. 2024, "Preference Learning Algorithms Do Not Learn Preference Rankings", arXiv:2405.19534. These are of the
policy's own log-probabilities. The log-ratio to the reference, which direct alignment trains, ranks nearly every
training pair right and is another metric.
"""

from __future__ import annotations

import numpy as np


def ranking_accuracy(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    chosen_tokens: np.ndarray | None = None,
    rejected_tokens: np.ndarray | None = None,
) -> np.ndarray:
    """Share of pairs whose preferred response is the more likely one; equal likelihoods count as wrong.

    Args:
        chosen: (..., n) log pi(y_w), summed over tokens without padding, in nats.
        rejected: (..., n) log pi(y_l).
        chosen_tokens: (..., n) given both counts, log-probabilities a token are compared.
        rejected_tokens: (..., n).

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: if one count is given without the other.
    """
    if (chosen_tokens is None) != (rejected_tokens is None):
        raise ValueError(
            "Token counts were given for one side, expected chosen_tokens= and rejected_tokens=, or neither."
        )
    if chosen_tokens is not None:
        chosen, rejected = chosen / chosen_tokens, rejected / rejected_tokens
    return (np.asarray(chosen) > np.asarray(rejected)).mean(-1)


def flip_difficulty(reference_chosen: np.ndarray, reference_rejected: np.ndarray) -> np.ndarray:
    """(..., n) c = log ref(y_l) - log ref(y_w) in nats: above 0 where the reference ranks a pair wrongly."""
    return np.asarray(reference_rejected) - np.asarray(reference_chosen)


def idealised_accuracy(difficulty: np.ndarray, preference: np.ndarray, *, beta: float) -> np.ndarray:
    """Ranking accuracy of the exact optimum, pi* ~ ref exp(r / beta), with Bradley-Terry rewards.

    A pair is ranked right iff c < log(alpha / (1 - alpha)) / beta.

    Args:
        difficulty: (..., n) c of `flip_difficulty`.
        preference: (..., n) alpha = P(y_w preferred), a probability and not a hard label: at alpha = 1 any pair flips.
        beta: Weight of the KL penalty.

    Returns:
        (...) in [0, 1].
    """
    preference = np.asarray(preference, float)
    with np.errstate(divide="ignore"):
        reach = (np.log(preference) - np.log1p(-preference)) / beta
    return (difficulty < reach).mean(-1)


def alignment_gap(observed: np.ndarray, idealised: np.ndarray) -> np.ndarray:
    """(...) idealised less observed ranking accuracy."""
    return np.asarray(idealised) - np.asarray(observed)


def dpo_flip_loss(difficulty: np.ndarray, *, beta: float) -> np.ndarray:
    """(..., n) DPO's loss under which, and only under which, a pair is ranked right: log(1 + exp(-beta c)), in nats."""
    return np.logaddexp(0.0, -beta * np.asarray(difficulty, float))


def flip_curve(difficulty: np.ndarray, right: np.ndarray, *, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Share of pairs ranked right against difficulty, in bins of as equal counts as can be.

    Args:
        difficulty: (n,) c of `flip_difficulty`.
        right: (n,) bool, whether the policy ranks the pair right.
        bins: At most n.

    Returns:
        (bins,) mean difficulty and (bins,) share, from the easiest.
    """
    order = np.argsort(difficulty, kind="stable")
    parts = np.array_split(order, bins)
    return (
        np.array([np.mean(np.asarray(difficulty)[part]) for part in parts]),
        np.array([np.mean(np.asarray(right)[part]) for part in parts]),
    )
