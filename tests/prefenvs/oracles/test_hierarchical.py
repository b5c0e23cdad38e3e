"""Card 55: the first factor that differs by its margin decides."""

import math

import numpy as np

from prefenvs import JudgedSegments
from prefenvs.oracles import Hierarchical


def factors(*rows):
    """Segments of one step whose two factors are given."""
    values = np.array(rows, float)
    n = len(values)
    zeros = np.zeros((n, 2))
    return JudgedSegments(
        zeros, zeros[:, :1], values.sum(1)[:, None], {"z1": values[:, :1], "z2": values[:, 1:]},
        np.ones((n, 1), bool), np.zeros(n, bool),
    )  # fmt: skip


def test_card_55_margins_of_zero_leave_only_the_first_factor():
    a, b = factors((1.0, 0.0), (0.0, 9.0)), factors((0.9, 9.0), (0.1, 0.0))
    margin = Hierarchical(margins=0.0).compare(a, b)
    np.testing.assert_allclose(margin, [0.1, -0.1])


def test_card_55_infinite_margins_decide_nothing():
    a, b = factors((5.0, 1.0)), factors((0.0, 0.0))
    assert np.isnan(Hierarchical(margins=math.inf).compare(a, b)).all()
    assert Hierarchical(margins=math.inf, undecided="tie").compare(a, b).tolist() == [0.0]


def test_card_55_margins_make_preferences_go_in_a_circle():
    a, b, c = factors((0.0, 2.0)), factors((0.6, 1.0)), factors((1.2, 0.0))
    oracle = Hierarchical(margins=(1.0, 0.5))
    assert oracle.compare(a, b) > 0
    assert oracle.compare(b, c) > 0
    assert oracle.compare(c, a) > 0


def test_card_55_labels_do_not_change_when_a_factor_is_rescaled():
    rng = np.random.default_rng(0)
    values, other = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    plain = Hierarchical(units={"z1": 1.0, "z2": 2.0}).compare(factors(*values), factors(*other))
    scale = np.array([5.0, 1.0])
    scaled = Hierarchical(units={"z1": 5.0, "z2": 2.0}).compare(factors(*values * scale), factors(*other * scale))
    np.testing.assert_allclose(plain, scaled)
