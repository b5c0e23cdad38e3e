import numpy as np
import pytest
from numpy.testing import assert_allclose

from prefenvs.metrics import (
    alignment_gap,
    dpo_flip_loss,
    flip_curve,
    flip_difficulty,
    idealised_accuracy,
    ranking_accuracy,
)
from prefenvs.metrics.kl_frontier import exact_kl_policy

RNG = np.random.default_rng(0)


def test_golden_thresholds_of_the_loss():
    assert_allclose(dpo_flip_loss(np.array([1.0, 10.0, 0.0]), beta=0.1), (0.644397, 0.313262, 0.693147), atol=6e-7)


@pytest.mark.parametrize(("beta", "threshold"), [(0.1, 21.9722), (1.0, 2.19722)])
def test_golden_thresholds_of_difficulty_at_nine_to_one(beta, threshold):
    around = np.array([[threshold - 1e-3], [threshold + 1e-3]])
    assert_allclose(idealised_accuracy(around, np.array([0.9]), beta=beta), (1.0, 0.0))


def test_a_pair_is_ranked_right_iff_its_loss_is_under_the_threshold():
    policy, reference = RNG.normal(-20, 8, (2, 2, 500))
    margin = (policy[0] - reference[0]) - (policy[1] - reference[1])
    loss = np.logaddexp(0.0, -0.3 * margin)
    under = loss < dpo_flip_loss(flip_difficulty(*reference), beta=0.3)
    assert (under == (policy[0] > policy[1])).all()


def test_the_reference_has_its_own_accuracy():
    reference = RNG.normal(-20, 8, (2, 500))
    assert ranking_accuracy(*reference) == (flip_difficulty(*reference) < 0).mean()
    assert idealised_accuracy(flip_difficulty(*reference), np.full(500, 0.5), beta=0.1) == ranking_accuracy(*reference)


def test_the_exact_optimum_attains_the_idealised_accuracy():
    reference, reward = RNG.dirichlet(np.ones(12)), RNG.normal(size=12)
    optimum = exact_kl_policy(reference, reward, 1 / 0.5)
    pairs = np.array([(i, j) for i in range(12) for j in range(12) if i != j]).T
    preference = 1 / (1 + np.exp(reward[pairs[1]] - reward[pairs[0]]))
    observed = ranking_accuracy(*np.log(optimum)[pairs])
    idealised = idealised_accuracy(flip_difficulty(*np.log(reference)[pairs]), preference, beta=0.5)
    assert alignment_gap(observed, idealised) == 0
    assert alignment_gap(ranking_accuracy(*np.log(reference)[pairs]), idealised) == idealised - 0.5


def test_equal_likelihoods_are_wrong_and_lengths_can_decide():
    assert ranking_accuracy(np.array([-3.0]), np.array([-3.0])) == 0
    chosen, rejected = np.array([-6.0]), np.array([-4.0])
    assert ranking_accuracy(chosen, rejected) == 0
    assert ranking_accuracy(chosen, rejected, chosen_tokens=np.array([6]), rejected_tokens=np.array([2])) == 1
    with pytest.raises(ValueError, match="one side"):
        ranking_accuracy(chosen, rejected, chosen_tokens=np.array([6]))


def test_the_flip_curve_bins_by_difficulty():
    difficulty = RNG.permutation(100.0 * np.arange(100))
    centres, share = flip_curve(difficulty, difficulty < 4950, bins=10)
    assert_allclose(centres, 100 * (10 * np.arange(10) + 4.5))
    assert_allclose(share, [1.0] * 5 + [0.0] * 5)
