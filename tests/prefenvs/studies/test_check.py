import numpy as np
import pytest
from scipy import stats

from prefenvs.studies._check import (
    Estimate,
    _student_quantile,
    bootstrap,
    decide,
    exact,
    interquartile_mean,
    over_seeds,
    tail,
    within,
)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.5, 0.9, "holds"), (0.4, 0.9, "undecided"), (0.1, 0.4, "fails"), (np.nan, np.nan, "undecided")],
)
def test_the_whole_interval_has_to_reach_the_margin(low, high, outcome):
    assert Estimate("gain", 0.4, low, high, margin=0.5).outcome == outcome
    assert Estimate("error", 0.4, -high, -low, margin=-0.5, at_most=True).outcome == outcome


def test_one_estimate_that_fails_is_enough_and_one_undecided_keeps_the_claim_from_holding():
    good, unclear, bad = exact("a", 1.0), Estimate("b", 0.0, -1.0, 1.0), exact("c", -1.0)
    assert decide(good, good).outcome == "holds"
    assert decide(good, unclear).outcome == "undecided"
    assert decide(good, unclear, bad).outcome == "fails"
    with pytest.raises(ValueError, match="at least one estimate"):
        decide()


def test_an_error_within_its_tolerance_holds():
    assert within("error", 1e-9, 1e-8).outcome == "holds"
    assert within("error", 2e-8, 1e-8).outcome == "fails"
    assert within("error", float("nan"), 1e-8).outcome == "undecided"


def test_pairing_by_seed_removes_what_the_seeds_share():
    difficulty = np.array([0.0, 50.0, -20.0, 7.0, 100.0])
    estimate = over_seeds("gain", (difficulty + 1.0) - difficulty, 0.9)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 40, 400])
def test_students_quantile_is_scipys(degrees):
    assert _student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-6)


def test_the_tails_become_the_normal_ones_for_many_seeds():
    assert tail(1, 5) == pytest.approx(stats.norm.cdf(-stats.t.ppf(0.975, 4) * np.sqrt(5 / 4)), rel=1e-6)
    assert tail(1, 10_000) == pytest.approx(0.025, rel=1e-3)


def test_for_many_numbers_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=(1, 60))
    expected = stats.t.interval(0.95, 59, values.mean(), stats.sem(values[0]))
    np.testing.assert_allclose(bootstrap(values, np.random.default_rng(1)), expected, atol=0.02)


@pytest.mark.parametrize("n", [5, 10])
def test_nine_in_ten_intervals_or_more_cover_the_mean_from_few_seeds(n):
    # Nominal 95%; plain percentiles of five normal numbers cover about 82%.
    samples = np.random.default_rng(7).normal(size=(120, 1, n))
    rng = np.random.default_rng(8)
    ends = np.array([bootstrap(sample, rng) for sample in samples])
    covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    assert 0.90 <= covered <= 0.99


def test_strata_are_resampled_apart_so_that_what_tasks_differ_by_does_not_widen_the_interval():
    values = 1000.0 * np.arange(4)[:, None] + np.random.default_rng(0).normal(size=(4, 5))
    estimate = over_seeds("score", values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low < 3.0


@pytest.mark.parametrize("values", [[2.0], 2.0, [[1.0], [2.0]], np.zeros((2, 2, 2))])
def test_one_seed_has_no_interval(values):
    with pytest.raises(ValueError, match="two seeds or more"):
        over_seeds("score", values)


def test_an_upper_bound_is_met_from_below():
    assert over_seeds("error", [0.1, 0.2, 0.1], 0.5, at_most=True).outcome == "holds"
    assert over_seeds("error", [0.6, 0.7, 0.6], 0.5, at_most=True).outcome == "fails"


def test_a_median_and_the_middle_half_ignore_an_outlier():
    values = [1.0, 1.1, 0.9, 1.0, 1e6, 1.0, 1.0, 0.95]
    assert over_seeds("score", values, statistic=np.median).value == pytest.approx(1.0)
    assert over_seeds("score", values, statistic=interquartile_mean).value == pytest.approx(1.0, abs=0.05)
    # eight numbers: the four in the middle
    assert interquartile_mean(np.array([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0])) == 2.5


def test_the_same_numbers_give_the_same_interval_and_a_nan_gives_none():
    assert over_seeds("score", [1.0, 3.0, 2.0]) == over_seeds("score", [1.0, 3.0, 2.0])
    assert np.isnan(over_seeds("score", [1.0, 3.0, 2.0, float("nan")]).low)
