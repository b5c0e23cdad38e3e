"""The most reward that can be had at a distance from a reference policy, exactly, over finitely many outcomes.

    max_phi E_phi r  subject to  KL(phi || p) <= Delta  is met by  phi(y) ~ p(y) exp(rho r(y))  at  KL(phi || p) = Delta

Yang et al. 2024, "Asymptotics of Language Model Alignment", arXiv:2404.01730. rho = 1/b is the tilt, the inverse of the
weight b of a KL penalty. For every psi (the Pythagorean identity of exponential families):

    KL(psi || phi) = KL(psi || p) - KL(phi || p) + rho (E_phi r - E_psi r)

so a psi within the same KL whose reward is within e of phi's lies within KL(psi || phi) <= rho e.
All in float64 and nats; outcomes are the last axis, and further axes are a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exact_kl_policy(reference: np.ndarray, reward: np.ndarray, tilt: np.ndarray | float) -> np.ndarray:
    """The optimum of E_phi r - KL(phi || p) / rho: phi ~ p exp(rho r).

    Args:
        reference: (..., V) probabilities p of the outcomes.
        reward: (..., V) r.
        tilt: (...) rho >= 0, in units of 1 / reward. 0 gives p, infinity gives p conditioned on the greatest reward.

    Returns:
        (..., V) probabilities.
    """
    tilt = np.asarray(tilt, dtype=float)[..., None]
    best = np.where(reference > 0, reward, -np.inf).max(-1, keepdims=True)
    below = reward - best  # exp cannot overflow where p > 0
    with np.errstate(invalid="ignore"):
        exponent = np.where(below == 0, 0.0, tilt * below)  # infinity * 0 is 0 here
    weights = reference * np.exp(np.where(reference > 0, exponent, 0.0))
    return weights / weights.sum(-1, keepdims=True)


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(...) KL(p || q) = sum_y p log(p / q) in nats; infinite where p has mass and q has none. p, q: (..., V)."""
    p, q = np.broadcast_arrays(p, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(-1)


def greatest_kl(reference: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """(...) KL of p conditioned on the greatest reward, -log p(argmax r): beyond it the constraint is slack."""
    return kl_divergence(exact_kl_policy(reference, reward, np.inf), reference)


def tilt_for_kl(reference: np.ndarray, reward: np.ndarray, kl: np.ndarray | float) -> np.ndarray:
    """The tilt at which the optimum has a given KL from the reference, to the last bits.

    Args:
        reference: (..., V) probabilities p.
        reward: (..., V) r.
        kl: (...) Delta in nats, 0 <= Delta < `greatest_kl`.

    Returns:
        (...) rho with KL(phi || p) = Delta.

    Raises:
        ValueError: if no tilt has that KL.
    """
    most = greatest_kl(reference, reward)
    if np.any(np.less(kl, 0.0)) or np.any(np.greater_equal(kl, most)):
        raise ValueError(
            f"kl={kl} is out of reach: expected at least 0 and less than {most}, the KL of the reference conditioned "
            "on its greatest reward. A looser constraint does not bind: use tilt=np.inf."
        )
    return _crossing(lambda tilt: kl_divergence(exact_kl_policy(reference, reward, tilt), reference), kl, most.shape)


def mixed_to_kl(policies: np.ndarray, reference: np.ndarray, kl: float) -> np.ndarray:
    """Each policy mixed with as little of the reference as brings it within a KL, which grows away from it.

    Args:
        policies: (..., V) probabilities.
        reference: (..., V) probabilities p.
        kl: Delta >= 0 in nats.

    Returns:
        (..., V) a psi + (1 - a) p with the greatest a <= 1 for which KL(. || p) <= Delta.
    """
    low, high = np.zeros((*policies.shape[:-1], 1)), np.ones((*policies.shape[:-1], 1))
    share = high  # of the policy: all of it, if that is within
    for _ in range(60):
        mixed = share * policies + (1 - share) * reference
        inside = kl_divergence(mixed, reference)[..., None] <= kl
        low, high = np.where(inside, share, low), np.where(inside, high, share)
        share = (low + high) / 2
    return low * policies + (1 - low) * reference


def climbed(policies: np.ndarray, reference: np.ndarray, reward: np.ndarray, kl: float, steps: int) -> np.ndarray:
    """Policies after steps that raise their reward along the sphere of a KL, by exponentiated gradients.

    A step is psi exp(r - a g), where g = log(psi / p) is the gradient of the KL and a takes its part out of r; then
    `mixed_to_kl`. A search of a few large steps: it need not end at the optimum.

    Args:
        policies: (..., V) probabilities to begin at.
        reference: (V,) probabilities p.
        reward: (V,) r.
        kl: Delta >= 0 in nats.
        steps: how many.

    Returns:
        (..., V) probabilities.
    """
    for _ in range(steps):
        g = np.log(policies / reference)
        centred = g - (policies * g).sum(-1, keepdims=True)
        part = (policies * centred * reward).sum(-1, keepdims=True) / (policies * centred * g).sum(-1, keepdims=True)
        step = policies * np.exp(reward - part * g)
        policies = mixed_to_kl(step / step.sum(-1, keepdims=True), reference, kl)
    return policies


def from_optimum(
    policies: np.ndarray, reference: np.ndarray, reward: np.ndarray, tilt: np.ndarray, tokens: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What policies have a token, beside the optimum of a tilt.

    Args:
        policies: (..., V) probabilities of outcomes of so many tokens.
        reference: (V,) probabilities p.
        reward: (V,) r.
        tilt: () rho.
        tokens: of an outcome.

    Returns:
        (...) KL(psi || p); KL(psi || phi) less rho e, e the reward below phi's; and the error of the identity above.
    """
    phi = exact_kl_policy(reference, reward, tilt)
    kl, distance = (kl_divergence(policies, other) / tokens for other in (reference, phi))
    gap = (phi - policies) @ reward / tokens
    return kl, distance - tilt * gap, distance - (kl - kl_divergence(phi, reference) / tokens + tilt * gap)


def best_of_n(reference: np.ndarray, reward: np.ndarray, n: float) -> np.ndarray:
    """The exact law of the best of N independent outcomes, ties broken evenly.

    An outcome of reward x has p(y) / P(r = x) * (F(x)^N - F(x-)^N), F the distribution function of the reward. Powers
    go through log1p of the upper tail, so that N may be as large as exp(80).

    Args:
        reference: (V,) probabilities p; the upper tails are as exact as they are.
        reward: (V,) r.
        n: N >= 1, whole or not.

    Returns:
        (V,) probabilities.
    """
    if not n >= 1:
        raise ValueError(f"n={n}, expected 1 draw or more.")
    levels, level = np.unique(reward, return_inverse=True)  # rising
    mass = np.bincount(level, weights=reference, minlength=len(levels))
    beyond = np.append(np.cumsum(mass[::-1])[::-1], 0.0)  # P(r >= x), summed from the small end
    log_at_most = _log_complement(beyond[1:], np.cumsum(mass))
    log_below = np.append(-np.inf, log_at_most[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.exp(n * log_at_most) * -np.expm1(n * (log_below - log_at_most))
        return np.where(reference > 0, reference / mass[level] * share[level], 0.0)


def cumulant(reference: np.ndarray, reward: np.ndarray, tilt: np.ndarray | float) -> np.ndarray:
    """(...) log E_p exp(rho r) in nats. reference, reward: (..., V); tilt: (...)."""
    with np.errstate(divide="ignore"):
        exponents = np.log(reference) + np.asarray(tilt, dtype=float)[..., None] * reward
    return np.logaddexp.reduce(exponents, axis=-1)


def renyi_cross_entropy(p: np.ndarray, q: np.ndarray, order: float) -> np.ndarray:
    """(...) H_a(p || q) = log(sum_y p q^(a - 1)) / (1 - a) in nats; at a = 1 the cross entropy -sum p log q.

    With the reward r = log q the cumulant is -rho H_{1 + rho}(p || q). p, q: (..., V).
    """
    if order == 1:
        return -np.where(p > 0, p * np.log(np.where(p > 0, q, 1.0)), 0.0).sum(-1)
    return cumulant(p, np.log(q), order - 1) / (1 - order)


def rate_function(reference: np.ndarray, reward: np.ndarray, at: np.ndarray | float) -> np.ndarray:
    """The rate of large deviations of the mean reward of m independent outcomes: P(mean >= x) ~ exp(-m I(x)), x > E r.

    I(x) = sup_rho (rho x - log E_p exp(rho r)), the Legendre transform of the cumulant (Cramer). Its maximum is
    at the tilt whose expected reward is x, and there I(x) = KL(phi || p).

    Args:
        reference: (V,) probabilities p of one outcome.
        reward: (V,) r.
        at: (...) x, strictly between the least and the greatest reward that p gives.

    Returns:
        (...) I(x) in nats.

    Raises:
        ValueError: if x is out of that range.
    """
    at = np.asarray(at, dtype=float)
    given = reward[reference > 0]
    least, most = given.min(), given.max()
    if np.any(at <= least) or np.any(at >= most):
        raise ValueError(f"at={at}, expected rewards strictly between {least} and {most}.")
    up = at >= (reference * reward).sum()
    towards = np.where(up, 1.0, -1.0)  # a tilt of either sign, as one of |rho| for +r or -r
    tilt = towards * _crossing(lambda size: towards * _tilted_mean(reference, reward, towards * size), towards * at, ())
    return tilt * at - cumulant(reference, reward, tilt)


def law_of_sum(probabilities: np.ndarray, m: int) -> np.ndarray:
    """The law of the sum of m independent draws from 0, 1, ..., K.

    Sums of positive terms only, by repeated squaring: small probabilities keep their relative precision, where they do
    not underflow.

    Args:
        probabilities: (K + 1,) of one draw.
        m: draws, 0 or more.

    Returns:
        (m K + 1,) probabilities of the sums 0, 1, ..., m K.
    """
    law, square = np.ones(1), np.asarray(probabilities, dtype=float)
    while m:
        if m % 2:
            law = np.convolve(law, square)
        m //= 2
        if m:
            square = np.convolve(square, square)
    return law


def _crossing(rising: Callable[[np.ndarray], np.ndarray], target: np.ndarray | float, shape: tuple) -> np.ndarray:
    """(...) the x >= 0 at which a rising function reaches its target, by doubling and then halving an interval."""
    low = np.zeros(np.broadcast_shapes(shape, np.shape(target)))
    high = low + 1.0
    while np.any(short := rising(high) < target):
        low, high = np.where(short, high, low), np.where(short, 2 * high, high)
    for _ in range(100):  # beyond the last bit, from any interval that doubling leaves
        middle = (low + high) / 2
        short = rising(middle) < target
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return high


def _tilted_mean(reference: np.ndarray, reward: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """(...) expected reward after a tilt of either sign."""
    ahead, back = (exact_kl_policy(reference, sign * reward, np.abs(tilt)) for sign in (1, -1))
    return (np.where(tilt[..., None] >= 0, ahead, back) * reward).sum(-1)


def _log_complement(beyond: np.ndarray, up_to: np.ndarray) -> np.ndarray:
    """Log F from both tails: log1p(-P(r > x)) where the upper one is small, log P(r <= x) where the lower one is."""
    with np.errstate(divide="ignore"):
        return np.where(beyond < 0.5, np.log1p(-np.minimum(beyond, 0.5)), np.log(np.minimum(up_to, 1.0)))
