import numpy as np
import pytest

from prefenvs.studies._tables import at_end, curve, curves, means, per_seed, runs

TABLES = {
    "ours": {
        1: [
            {"step": 0, "on": "a", "gold": 1.0},
            {"step": 5, "on": "a", "gold": 4.0},
            {"step": 5, "on": "b", "gold": 9},
        ],
        0: [
            {"step": 0, "on": "a", "gold": 0.0},
            {"step": 5, "on": "a", "gold": 2.0},
            {"step": 5, "on": "b", "gold": 7},
        ],
    }
}


def test_a_column_is_read_in_the_order_of_seeds_whatever_that_of_the_tables():
    np.testing.assert_array_equal(runs(TABLES, "ours", "gold"), [[0, 2, 7], [1, 4, 9]])
    np.testing.assert_array_equal(per_seed(TABLES, "ours", "gold", on="a"), [1.0, 2.5])
    np.testing.assert_array_equal(per_seed(TABLES, "ours", "gold"), [3.0, 14 / 3])


def test_the_end_is_the_last_row_of_those_picked():
    np.testing.assert_array_equal(at_end(TABLES, "ours", "gold"), [7.0, 9.0])
    np.testing.assert_array_equal(at_end(TABLES, "ours", "gold", on="a"), [2.0, 4.0])


def test_a_curve_is_the_mean_over_seeds_row_by_row():
    np.testing.assert_array_equal(curve(TABLES, "ours", "gold", on="a"), [0.5, 3.0])


def test_rows_that_are_not_there_or_do_not_match_are_refused():
    for read in (per_seed, at_end, runs, curve):
        with pytest.raises(ValueError, match=r"seed 0 of arm 'ours' has no row with \{'on': 'c'\}"):
            read(TABLES, "ours", "gold", on="c")
    with pytest.raises(ValueError, match=r"the seeds have \[3, 2\] rows"):
        curve({"ours": {**TABLES["ours"], 1: TABLES["ours"][1][1:]}}, "ours", "gold")


def test_a_summary_averages_over_rows_and_seeds_what_is_not_told_apart():
    assert means()(TABLES) == [{"arm": "ours", "step": 10 / 3, "gold": 23 / 6}]
    assert means("gold", by=("on",))(TABLES) == [
        {"arm": "ours", "on": "a", "gold": 1.75},
        {"arm": "ours", "on": "b", "gold": 8.0},
    ]
    assert means("gold", across="on")(TABLES) == [{"arm": "ours", "gold a": 1.75, "gold b": 8.0}]


def test_a_summary_of_the_end_takes_the_last_row_of_each_seed_and_group():
    assert means("gold", last=True)(TABLES) == [{"arm": "ours", "gold": 8.0}]
    assert means("gold", by=("on",), last=True)(TABLES) == [
        {"arm": "ours", "on": "a", "gold": 3.0},
        {"arm": "ours", "on": "b", "gold": 8.0},
    ]


def test_a_figure_has_a_panel_a_pair_of_columns_or_a_value_and_a_line_an_arm():
    figures = pytest.importorskip("matplotlib.figure", reason="figures need the extra bench")
    tables = {"ours": TABLES["ours"], "ours moved": TABLES["ours"], "theirs": TABLES["ours"]}
    figure = figures.Figure()
    curves(("step", "gold"), ("gold", "step"), arms=("ours", "ours moved", "gone"), dashed="moved")(tables, figure)
    lines = [axes.get_lines() for axes in figure.axes]
    assert [len(drawn) for drawn in lines] == [2, 2]
    assert lines[0][0].get_color() == lines[0][1].get_color()
    assert [line.get_linestyle() for line in lines[0]] == ["-", "--"]
    np.testing.assert_array_equal(lines[0][0].get_xydata(), [[0, 0.5], [5, 3], [5, 8]])

    figure = figures.Figure()
    curves(("step", "gold"), panels="on", names={"gold": "gold [sd]"})(tables, figure)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert figure.axes[0].get_ylabel() == "gold [sd]"
    np.testing.assert_array_equal(figure.axes[1].get_lines()[2].get_xydata(), [[5, 8]])
