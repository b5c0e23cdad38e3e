import pytest

from prefenvs.tasks.grid.ledge import ledge_world
from prefenvs.tasks.grid.solvers import undiscounted_optimum


def test_the_optimum_is_the_hand_computed_one():
    # Each step onto the windy cell fails with probability 1/8. A gust costs -6, and climbing back may fail again, at -1
    # a time: blown back into the cell it stays in, it pays the ground alone. So 1/8 of episodes pay 6 in place of 1 and
    # then a geometric number of climbs, 8/7 in the mean.
    safe = 7 / 8
    ledge = safe * -1 + (1 - safe) * (-6 - 8 / 7)
    short_cut = safe**3 * 7 - (1 - safe) * (5 + safe * 6 + safe**2 * 7)
    assert undiscounted_optimum(ledge_world().mdp, 400) == pytest.approx(ledge - 3 + short_cut, abs=1e-9)
