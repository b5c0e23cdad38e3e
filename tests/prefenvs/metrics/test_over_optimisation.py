from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from prefenvs.metrics import (
    FrontierFit,
    OptimisationCurve,
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_table,
    fit_frontier,
    gold_at_kl,
    matched_kl_difference,
    peak_to_final_drop,
    plot_over_optimisation,
    sampled_kl,
)
from prefenvs.metrics.kl_frontier import best_of_n, kl_divergence


def over_subsets(gold, proxy, n):
    """The mean gold of the proxy's best over all subsets of n, ties sharing."""
    found = []
    for subset in combinations(range(len(gold)), n):
        best = [i for i in subset if proxy[i] == max(proxy[j] for j in subset)]
        found.append(np.mean([gold[i] for i in best]))
    return np.mean(found)


def test_four_samples_sorted_by_proxy_have_the_estimates_worked_out_by_hand():
    found = best_of_n_curve(np.array([0, 1, 3, 2.0]), np.arange(4.0), [1, 2, 3, 4])
    assert_allclose(found, (1.5, 2.166667, 2.25, 2.0), atol=6e-7)


def test_the_estimate_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(0)
    gold, proxy = rng.standard_normal((2, 3, 7))
    expected = [[over_subsets(g, p, n) for n in range(1, 8)] for g, p in zip(gold, proxy, strict=True)]
    assert_allclose(best_of_n_curve(gold, proxy, range(1, 8)), expected)


def test_equal_proxies_share_their_gold_and_the_order_of_samples_does_not_matter():
    gold, proxy = np.array([0.0, 4.0, 1.0, 1.0, 3.0]), np.array([1.0, 2.0, 2.0, 0.0, 2.0])
    shuffled = np.array([3, 1, 4, 0, 2])
    found = best_of_n_curve(gold, proxy, [1, 3, 5])
    assert_allclose(found[[0, 2]], (gold.mean(), 8 / 3))
    assert_allclose(best_of_n_curve(gold[shuffled], proxy[shuffled], [1, 3, 5]), found)


def test_card49_the_estimator_agrees_with_drawing_n_of_very_many():
    """N = 12,600 samples as in the paper; at n = 1 the mean, at n = N the best proxy's, weights summing to 1."""
    rng = np.random.default_rng(1)
    proxy = rng.standard_normal(12_600)
    gold = proxy + rng.standard_normal(12_600)
    found = best_of_n_curve(gold, proxy, [1, 16, 12_600])
    assert_allclose(found[[0, 2]], (gold.mean(), gold[proxy.argmax()]))
    drawn = rng.integers(0, 12_600, (20_000, 16))
    picked = gold[np.take_along_axis(drawn, proxy[drawn].argmax(1)[:, None], 1)[:, 0]]
    assert abs(found[1] - picked.mean()) < 5 * picked.std() / 20_000**0.5
    assert_allclose(best_of_n_curve(np.ones(12_600), proxy, [2, 1000]), 1.0)


@pytest.mark.parametrize("n", [[0], [5], [2, 9]])
def test_more_of_n_than_samples_is_refused(n):
    with pytest.raises(ValueError, match="from 1 to N = 4"):
        best_of_n_curve(np.zeros(4), np.zeros(4), n)


def test_the_divergence_of_the_best_of_n():
    expected = (0.0, 0.193147, 0.636294, 1.204442, 1.835089)
    assert_allclose(best_of_n_kl(np.array([1, 2, 4, 8, 16])), expected, atol=6e-7)


def test_card63_ties_make_the_divergence_smaller():
    law = best_of_n(np.full(4, 0.25), np.arange(4.0), 4)
    assert_allclose(kl_divergence(law, np.full(4, 0.25)), 0.590310, atol=6e-7)
    assert kl_divergence(law, np.full(4, 0.25)) < best_of_n_kl(4)


@given(st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_many_outcomes_approach_the_bound(n):
    outcomes = np.arange(2000.0)
    reference = np.full(2000, 1 / 2000)
    kl = kl_divergence(best_of_n(reference, outcomes, n), reference)
    assert best_of_n_kl(n) - 0.05 < kl <= best_of_n_kl(n) + 1e-9


def test_the_sampled_divergence_covers_the_exact_one():
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(5), 2)
    drawn = rng.choice(5, p=p, size=(400, 200))
    mean, low, high = sampled_kl(np.log(p / q)[drawn])
    covered = ((low <= kl_divergence(p, q)) & (kl_divergence(p, q) <= high)).mean()
    assert 0.9 < covered < 0.99
    assert_allclose(mean.mean(), kl_divergence(p, q), atol=0.02)
    assert_allclose(sampled_kl(np.zeros(10)), 0.0)


def run(kl, gold, **more):
    return OptimisationCurve(np.asarray(kl, float), np.asarray(gold, float), **more)


def test_the_drop_from_the_peak_to_the_end():
    assert_allclose(peak_to_final_drop(np.array([[0.0, 2.0, 1.5], [0.0, 1.0, 3.0]])), (0.5, 0.0))


def test_gold_at_a_kl_is_interpolated_and_never_extrapolated():
    curve = run([4.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 1.0])  # at KL 2 the mean, 2
    assert_allclose(gold_at_kl(curve, np.array([0.0, 1.0, 3.0, 4.1, -0.1])), (0.0, 1.0, 1.5, np.nan, np.nan))


def test_runs_are_compared_at_equal_kl():
    one, other = run([0.0, 2.0, 4.0], [0.0, 2.0, 4.0]), run([1.0, 3.0, 9.0], [0.0, 2.0, 8.0])
    assert_allclose(matched_kl_difference(one, other), 1.0)  # at 1, 2, 3 and 4
    assert matched_kl_difference(one, other).shape == (4,)
    assert_allclose(matched_kl_difference(one, other, at=np.array([2.0, 8.0])), (1.0, np.nan))
    assert_allclose(matched_kl_difference(other, one), -matched_kl_difference(one, other))


def test_the_plot_shows_every_run(tmp_path):
    figure_module = pytest.importorskip("matplotlib.figure", reason="figures need the extra bench")
    kl = np.array([0.0, 1.0, 4.0])
    curves = {
        "one": run(kl, [0.0, 1.0, 0.5], proxy=np.array([0.0, 1.0, 2.0]), error=np.full(3, 0.1)),
        "other": run(kl, [0.0, 0.5, 0.7]),
    }
    axes = plot_over_optimisation(curves, fits={"one": FrontierFit("log", 1.0, 0.5, 0.0, 1.0)})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]
    assert_allclose(axes.lines[0].get_xdata(), (0.0, 1.0, 2.0))  # distances, not divergences
    axes.figure.savefig(tmp_path / "plot.svg")
    own = figure_module.Figure().add_subplot()
    assert plot_over_optimisation(curves, axes=own) is own


@pytest.mark.filterwarnings("error")
def test_an_estimate_of_the_divergence_below_zero_is_drawn_at_zero():
    pytest.importorskip("matplotlib", reason="figures need the extra bench")
    axes = plot_over_optimisation({"one": run(np.array([1.0, -0.01]), [2.0, 1.0])})
    assert_allclose(axes.lines[0].get_xdata(), (0.0, 1.0))


def test_fits_of_noisy_points_follow_the_precise_ones():
    kl = np.linspace(0.5, 20, 30)
    gold = FrontierFit("log", 2.0, 0.7, 0.0, 1.0).gold(np.sqrt(kl))
    spoilt = np.where(np.arange(30) % 2, gold, gold + 5)
    fit = fit_frontier(kl, spoilt, error=np.where(np.arange(30) % 2, 1e-6, 1.0))
    assert_allclose((fit.alpha, fit.beta), (2.0, 0.7), atol=1e-6)


def test_a_table_of_best_of_n_has_the_mean_curves_of_members_that_choose_for_themselves():
    rng = np.random.default_rng(0)
    gold, proxy = rng.normal(size=(3, 16)), rng.normal(size=(2, 3, 16))  # prompts, samples; members
    rows = best_of_n_table(gold, proxy, [1, 4])
    assert [row["n"] for row in rows] == [1, 4]
    assert rows[0] == {"n": 1, "kl": 0.0, "gold": pytest.approx(gold.mean()), "proxy": pytest.approx(proxy.mean())}
    each = [best_of_n_curve(gold, member, [4]).mean() for member in proxy]
    assert rows[1]["gold"] == pytest.approx(np.mean(each))
    assert rows[1]["kl"] == pytest.approx(np.log(4) - 3 / 4)
