"""Golden numbers of card 52: Yang et al. 2024, Asymptotics of Language Model Alignment, arXiv:2404.01730."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from prefenvs.metrics.kl_frontier import (
    best_of_n,
    climbed,
    cumulant,
    exact_kl_policy,
    from_optimum,
    greatest_kl,
    kl_divergence,
    law_of_sum,
    mixed_to_kl,
    rate_function,
    renyi_cross_entropy,
    tilt_for_kl,
)

P = np.array([0.7, 0.3])  # Bernoulli(.3); the reward is the number of ones
ONES = np.array([0.0, 1.0])


def random_case(seed, outcomes=5):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(outcomes)), rng.normal(size=outcomes), rng


@pytest.mark.parametrize(("kl", "share"), [(0.02, 0.393984), (0.05, 0.450278), (0.1, 0.514629)])
def test_the_optimum_at_a_kl_is_the_bernoulli_of_the_card(kl, share):
    policy = exact_kl_policy(P, ONES, tilt_for_kl(P, ONES, kl))
    assert policy[1] == pytest.approx(share, abs=5e-7)
    # an independent answer: the root of the binary KL
    root = optimize.brentq(lambda x: x * np.log(x / 0.3) + (1 - x) * np.log((1 - x) / 0.7) - kl, 0.3, 0.999)
    assert policy[1] == pytest.approx(root, abs=1e-11)


@pytest.mark.parametrize(
    ("tokens", "share"), [(25, 0.3871), (50, 0.4082), (100, 0.4246), (200, 0.4352), (400, 0.4415), (800, 0.4453)]
)
def test_the_best_of_exp_m_kl_sequences_has_the_share_of_ones_of_the_card(tokens, share):
    law = best_of_n(law_of_sum(P, tokens), np.arange(tokens + 1.0), np.exp(0.05 * tokens))
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    assert law @ np.arange(tokens + 1) / tokens == pytest.approx(share, abs=5e-5)


def test_the_cumulant_of_a_log_reward_is_the_renyi_cross_entropy_of_the_card():
    p, q = np.array([0.3, 0.7]), np.array([0.6, 0.4])
    assert cumulant(p, np.log(q), 2.0) == pytest.approx(np.log(0.22), abs=1e-12)  # .3 * .36 + .7 * .16 = .22
    assert cumulant(p, np.log(q), 2.0) == pytest.approx(-1.514128, abs=5e-7)
    assert renyi_cross_entropy(p, q, 3.0) == pytest.approx(0.757064, abs=5e-7)
    assert renyi_cross_entropy(p, q, 1.0) == pytest.approx(renyi_cross_entropy(p, q, 1 + 1e-7), abs=1e-6)


def test_without_tilt_it_is_the_reference_and_with_all_of_it_the_reference_on_its_best_outcomes():
    p, r = np.array([0.1, 0.2, 0.3, 0.4, 0.0]), np.array([1.0, 5.0, 5.0, 0.0, 9.0])
    np.testing.assert_array_equal(exact_kl_policy(p, r, 0.0), p)
    np.testing.assert_allclose(exact_kl_policy(p, r, np.inf), [0.0, 0.4, 0.6, 0.0, 0.0])  # 9 is never given
    np.testing.assert_allclose(exact_kl_policy(p, r, 1e4), [0.0, 0.4, 0.6, 0.0, 0.0], atol=1e-300)
    assert greatest_kl(p, r) == pytest.approx(-np.log(0.5))
    assert tilt_for_kl(p, r, 0.0) == pytest.approx(0.0, abs=1e-7)


def test_the_best_of_one_is_the_reference_and_the_best_of_two_the_squared_distribution():
    p, r, _ = random_case(0)
    np.testing.assert_allclose(best_of_n(p, r, 1), p, atol=1e-15)
    order = np.argsort(r)
    cdf = np.cumsum(p[order])
    np.testing.assert_allclose(best_of_n(p, r, 2)[order], np.diff(cdf**2, prepend=0.0), atol=1e-15)


def test_ties_are_shared_and_an_outcome_never_drawn_is_never_best():
    law = best_of_n(np.array([0.2, 0.3, 0.5, 0.0]), np.array([1.0, 1.0, 0.0, 7.0]), 3)
    np.testing.assert_allclose(law, [0.4 * (1 - 0.125), 0.6 * (1 - 0.125), 0.125, 0.0])


def test_the_best_of_many_is_drawn_as_often_as_it_says():
    p, r, rng = random_case(1)
    drawn = rng.choice(5, size=(40_000, 4), p=p)
    best = drawn[np.arange(40_000), r[drawn].argmax(1)]
    assert stats.chisquare(np.bincount(best, minlength=5), 40_000 * best_of_n(p, r, 4)).pvalue > 1e-4


def test_a_tail_too_small_for_one_minus_it_still_counts():
    tiny = 1e-30
    law = best_of_n(np.array([1 - tiny, tiny]), ONES, 1e30)
    assert law[1] == pytest.approx(1 - np.exp(-1), rel=1e-12)  # (1 - 1/N)^N
    assert best_of_n(np.array([1 - tiny, tiny]), ONES, np.exp(80.0))[1] == 1.0


def test_the_kl_of_the_best_of_n_is_log_n_less_its_share_only_for_rewards_without_ties():
    # Equality holds for continuous rewards; each discrete one has less.
    n = 8.0
    claimed = np.log(n) - (n - 1) / n
    fine = np.full(100_000, 1e-5)
    assert kl_divergence(best_of_n(fine, np.arange(100_000.0), n), fine) == pytest.approx(claimed, abs=1e-3)
    assert kl_divergence(best_of_n(P, ONES, n), P) < claimed - 0.1


@given(st.integers(0, 10_000))
def test_the_distance_of_any_policy_to_the_optimum_is_pythagorean(seed):
    p, r, rng = random_case(seed)
    tilt = tilt_for_kl(p, r, 0.5 * greatest_kl(p, r))
    phi, psi = exact_kl_policy(p, r, tilt), rng.dirichlet(np.ones(5))
    right = kl_divergence(psi, p) - kl_divergence(phi, p) + tilt * ((phi - psi) @ r)
    assert kl_divergence(psi, phi) == pytest.approx(right, rel=1e-10, abs=1e-10)
    kl, beyond, error = from_optimum(psi, p, r, tilt)
    assert kl == kl_divergence(psi, p) and abs(error) < 1e-9
    assert beyond == pytest.approx(kl_divergence(psi, phi) - tilt * ((phi - psi) @ r))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_no_direction_from_the_reference_leads_to_more_reward_within_the_kl(seed, share):
    # Three outcomes: from p, go in each of 3600 directions as far as the simplex and the KL let one.
    p, r, _ = random_case(seed, 3)
    kl = share * float(greatest_kl(p, r))
    phi = exact_kl_policy(p, r, tilt_for_kl(p, r, kl))
    assert kl_divergence(phi, p) == pytest.approx(kl, abs=1e-12)
    angles = np.linspace(0, 2 * np.pi, 3600)
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    ways = np.stack([np.cos(angles), np.sin(angles)], 1) @ plane
    low = np.zeros((3600, 1))
    high = np.min(np.where(ways < 0, p / np.maximum(-ways, 1e-300), np.inf), axis=1, keepdims=True)
    for _ in range(60):
        middle = (low + high) / 2
        inside = kl_divergence(np.maximum(p + middle * ways, 0), p)[:, None] <= kl
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    best = ((p + low * ways) @ r).max()
    assert phi @ r - 0.002 * np.ptp(r) < best <= phi @ r + 1e-12  # directions are 0.0017 apart


def test_a_batch_is_solved_as_its_rows():
    cases = [random_case(seed)[:2] for seed in range(6)]
    p, r = (np.stack(part) for part in zip(*cases, strict=True))
    kl = 0.3 * greatest_kl(p, r)
    alone = [tilt_for_kl(*case, amount) for case, amount in zip(cases, kl, strict=True)]
    np.testing.assert_array_equal(tilt_for_kl(p, r, kl), alone)


def test_a_constraint_that_does_not_bind_is_refused():
    with pytest.raises(ValueError, match=r"out of reach.*use tilt=np.inf"):
        tilt_for_kl(P, ONES, 1.3)  # -log .3 = 1.204
    with pytest.raises(ValueError, match="out of reach"):
        tilt_for_kl(P, ONES, -0.1)


def test_the_rate_of_a_coin_is_its_binary_kl():
    x = np.array([0.05, 0.3, 0.45, 0.9])
    expected = x * np.log(x / 0.3) + (1 - x) * np.log((1 - x) / 0.7)
    np.testing.assert_allclose(rate_function(P, ONES, x), expected, atol=1e-14)
    with pytest.raises(ValueError, match="strictly between"):
        rate_function(P, ONES, 1.0)


def test_the_rate_is_the_kl_of_the_tilt_with_that_reward():
    p, r, _ = random_case(3)
    phi = exact_kl_policy(p, r, 1.7)
    assert rate_function(p, r, phi @ r) == pytest.approx(float(kl_divergence(phi, p)), abs=1e-12)


@pytest.mark.parametrize("m", [0, 1, 2, 7, 100])
def test_sums_of_coins_are_binomial(m):
    np.testing.assert_allclose(law_of_sum(P, m), stats.binom.pmf(np.arange(m + 1), m, 0.3), rtol=1e-10)


def test_a_sum_of_dice_and_its_tilt_agree():
    # The tilt of m independent tokens is m independent tilted tokens: the memoryless law stays memoryless.
    p = np.array([0.2, 0.5, 0.1, 0.2])
    token = exact_kl_policy(p, np.arange(4.0), 0.6)
    sequence = exact_kl_policy(law_of_sum(p, 30), np.arange(91.0), 0.6)
    np.testing.assert_allclose(sequence, law_of_sum(token, 30), rtol=1e-10)
    assert kl_divergence(sequence, law_of_sum(p, 30)) == pytest.approx(30 * float(kl_divergence(token, p)), rel=1e-10)


def test_a_policy_is_mixed_with_the_reference_until_it_is_within_the_kl_and_left_alone_if_it_is():
    p, _, rng = random_case(4)
    policies = rng.dirichlet(np.ones(5), size=(2, 50))
    before = kl_divergence(policies, p)
    mixed = mixed_to_kl(policies, p, 0.2)
    np.testing.assert_allclose(kl_divergence(mixed, p), np.minimum(before, 0.2), rtol=1e-12)
    np.testing.assert_array_equal(mixed[before <= 0.2], policies[before <= 0.2])
    assert 5 < (before <= 0.2).sum() < 95


def test_steps_along_the_sphere_of_a_kl_raise_the_reward_and_none_leads_above_the_tilt():
    p, r, rng = random_case(5)
    kl = 0.3 * float(greatest_kl(p, r))
    begun = mixed_to_kl(rng.dirichlet(np.ones(5), size=200), p, kl)
    best = exact_kl_policy(p, r, tilt_for_kl(p, r, kl)) @ r
    found = climbed(begun, p, r, kl, 4)
    assert (kl_divergence(found, p) <= kl + 1e-12).all()
    assert (begun @ r).mean() < (found @ r).mean()
    assert (begun @ r).max() < (found @ r).max() <= best + 1e-12
    np.testing.assert_array_equal(climbed(begun, p, r, kl, 0), begun)
