import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from prefenvs.metrics import pearson, spearman
from prefenvs.metrics.correlation import ranks


@given(arrays(np.int64, (3, 12), elements=st.integers(-4, 4)))
def test_ranks_are_scipys_ties_included(values):
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values, axis=-1))


def test_correlations_are_scipys_batched():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 30)), rng.integers(0, 5, size=(4, 30))
    for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = [theirs(a, b).statistic for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(ours(x, y), expected, atol=1e-12)
        np.testing.assert_allclose(ours(x[0], x[0] * 3 - 1), 1)
        np.testing.assert_allclose(ours(x[0], -x[0]), -1)


def test_a_constant_correlates_with_nothing():
    x = np.arange(5.0)
    for correlation in (pearson, spearman):
        assert np.isnan(correlation(x, np.full(5, 0.1)))
        np.testing.assert_array_equal(np.isnan(correlation(x, np.stack([x, np.zeros(5)]))), [False, True])
