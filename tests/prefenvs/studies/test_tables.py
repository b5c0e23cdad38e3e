import numpy as np
import pytest

from prefenvs.studies._tables import at_end, curve, seed_mean

TABLES = {
    "ours": {
        0: [
            {"step": 0, "on": "a", "gold": 0.0},
            {"step": 5, "on": "a", "gold": 2.0},
            {"step": 5, "on": "b", "gold": 7},
        ],
        1: [
            {"step": 0, "on": "a", "gold": 1.0},
            {"step": 5, "on": "a", "gold": 4.0},
            {"step": 5, "on": "b", "gold": 9},
        ],
    }
}


def test_the_end_is_the_last_row_of_those_picked():
    assert at_end(TABLES, "ours", "gold") == {0: 7.0, 1: 9.0}
    assert at_end(TABLES, "ours", "gold", on="a") == {0: 2.0, 1: 4.0}
    assert seed_mean(at_end(TABLES, "ours", "gold", on="a")) == 3.0


def test_a_curve_is_the_mean_over_seeds_row_by_row():
    np.testing.assert_array_equal(curve(TABLES, "ours", "step", "gold", on="a"), [[0, 5], [0.5, 3.0]])


def test_rows_that_are_not_there_or_do_not_match_are_refused():
    with pytest.raises(ValueError, match="has no row with"):
        at_end(TABLES, "ours", "gold", on="c")
    with pytest.raises(ValueError, match=r"rows by seed are \{0: 3, 1: 2\}"):
        curve({"ours": {**TABLES["ours"], 1: TABLES["ours"][1][1:]}}, "ours", "gold")
