import numpy as np
import pytest
from numpy.testing import assert_allclose

from prefenvs.metrics import FrontierFit, fit_frontier

DISTANCE = np.linspace(0.2, 6, 12)


def test_the_fit_recovers_noiseless_coefficients_and_the_peak_is_at_e():
    gold = DISTANCE * (1 - 0.5 * np.log(DISTANCE))
    fit = fit_frontier(DISTANCE**2, gold, form="log")
    assert_allclose((fit.alpha, fit.beta, fit.peak), (1.0, 0.5, np.e), rtol=1e-9)
    assert_allclose((fit.rmse, fit.r_squared), (0.0, 1.0), atol=1e-12)
    assert_allclose(fit.gold(DISTANCE), gold)


def test_the_quadratic_form_too():
    fit = fit_frontier(DISTANCE**2, DISTANCE * (2 - 0.25 * DISTANCE), form="quadratic")
    assert_allclose((fit.alpha, fit.beta, fit.peak), (2.0, 0.25, 4.0), rtol=1e-9)


@pytest.mark.parametrize(("form", "other"), [("log", "quadratic"), ("quadratic", "log")])
def test_the_right_form_has_the_smaller_error(form, other):
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(DISTANCE))
    gold = FrontierFit(form, 1.0, 0.2, 0.0, 1.0).gold(DISTANCE) + noise
    right, wrong = fit_frontier(DISTANCE**2, gold, form=form), fit_frontier(DISTANCE**2, gold, form=other)
    assert right.rmse < wrong.rmse
    assert right.r_squared > wrong.r_squared


@pytest.mark.parametrize("form", ["log", "quadratic"])
def test_the_peak_is_where_the_curve_is_greatest(form):
    fit = FrontierFit(form, 1.3, 0.4, 0.0, 1.0)
    along = np.linspace(0, 30, 300_001)
    assert_allclose(along[fit.gold(along).argmax()], fit.peak, atol=1e-4)
    assert fit.gold(np.zeros(1)) == 0
    assert FrontierFit(form, 1.0, -0.1, 0.0, 1.0).peak == np.inf


def test_the_reference_itself_says_nothing():
    gold = DISTANCE * (1 - 0.5 * np.log(DISTANCE))
    with_it = fit_frontier(np.append(0.0, DISTANCE**2), np.append(0.3, gold))
    assert with_it == fit_frontier(DISTANCE**2, gold)


def test_too_few_distances_and_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="two coefficients"):
        fit_frontier(np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.1]))
    with pytest.raises(ValueError, match="Did you mean 'log'"):
        fit_frontier(DISTANCE**2, DISTANCE, form="logg")
