import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prefenvs.calibration import Calibration
from prefenvs.labelling.random_stream import uniforms
from prefenvs.teacher import (
    TEACHERS,
    Teacher,
    Thresholds,
    answer_margins,
    answer_scores,
    bpref_threshold,
    draws_needed,
    make_teacher,
    rate_scores,
    weighted_scores,
)

UNIT = Calibration(mean=0.0, sd=1.0, floor=-3.0)


def answers(teacher, scores, seed=0, answer="choice", calibration=UNIT, **where):
    scores = np.asarray(scores, float)
    thresholds = Thresholds.of(teacher, calibration, **({"segment_steps": 10} | where))
    draws = uniforms(seed, np.arange(len(scores)), draws_needed(scores.shape[1]))
    return answer_scores(teacher, thresholds, scores, scores, draws, answer)


# scale="raw" against B-Pref's formulas as coded, worked out by hand: with eps 0.1, mean return 50 of 100 steps and
# segments of 10 steps both thresholds are 0.1 * 50 * 10 / 100 = 0.5. Columns: scores, answer with skip, with equal.
BPREF = [
    ((0.4, 0.3), None, (0.5, 0.5)),
    ((0.5, 0.1), None, (0.5, 0.5)),  # keeps a query only if the greater sum is above the threshold
    ((0.6, 0.0), (1.0, 0.0), (1.0, 0.0)),
    ((2.0, 2.4), (0.0, 1.0), (0.5, 0.5)),
    ((2.0, 2.6), (0.0, 1.0), (0.0, 1.0)),
    ((-4.0, -2.0), None, (0.0, 1.0)),
]


@pytest.mark.parametrize(("scores", "skip", "equal"), BPREF)
def test_raw_thresholds_are_bprefs(scores, skip, equal):
    returns = {"recent_returns": (50.0, 100.0)}
    assert bpref_threshold(0.1, 50.0, 10, 100.0) == pytest.approx(0.5)
    skipping = answers(Teacher(eps_skip=0.1, scale="raw"), [scores], **returns)
    assert skipping.skipped[0] if skip is None else tuple(skipping.choice[0]) == skip
    assert tuple(answers(Teacher(eps_equal=0.1, scale="raw"), [scores], **returns).choice[0]) == equal


def test_raw_boltzmann_and_mistakes_are_bprefs():
    noisy = answers(Teacher(beta=2.0, scale="raw"), [[1.0, 1.5]], answer="soft").choice[0]
    assert noisy[1] == pytest.approx(1 / (1 + math.exp(-2.0 * 0.5)))
    wrong = answers(Teacher(eps_mistake=0.1, scale="raw"), [[1.0, 1.5]], answer="soft").choice[0]
    np.testing.assert_allclose(wrong, [0.1, 0.9])


def test_myopia_weights_the_last_step_one():
    utility, mask = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 9.0]]), np.array([[True] * 3, [True, True, False]])
    plain, weighted = weighted_scores(utility, mask, 0.5)
    np.testing.assert_allclose(plain, [7.0, 3.0])
    np.testing.assert_allclose(weighted, [1 * 0.25 + 2 * 0.5 + 4, 1 * 0.5 + 2])  # padding is not the last step


def test_thresholds_are_alive_for_negative_returns():
    units = Calibration(mean=-900.0, sd=100.0, floor=-1200.0)
    label = answers(Teacher(eps_skip=1.0), [[-1150.0, -1180.0], [-1050.0, -1180.0]], calibration=units)
    assert label.skipped.tolist() == [True, False]
    label = answers(Teacher(eps_equal=0.1), [[-900.0, -905.0], [-900.0, -915.0]], calibration=units)
    assert label.tied.tolist() == [True, False]


def test_a_threshold_is_applied_once():
    # B-Pref's first agent multiplied by eps twice from its second session on: 0.1 became 0.01.
    thresholds = Thresholds.of(Teacher(eps_equal=0.1), Calibration(sd=4.0), 10)
    assert thresholds.tie_within == pytest.approx(0.4)


def test_an_exact_tie_is_shared_and_does_not_go_to_the_first():
    np.testing.assert_allclose(answers(Teacher(), [[2.0, 2.0, 1.0]]).choice, [[0.5, 0.5, 0.0]])


def test_infinite_beta_is_the_limit_of_large_beta():
    scores = np.random.default_rng(0).normal(size=(200, 3))
    np.testing.assert_array_equal(
        answers(Teacher(beta=1e6), scores).choice, answers(TEACHERS["oracle"](), scores).choice
    )


def test_zero_beta_is_a_fair_coin():
    assert answers(Teacher(beta=0.0), [[0.0, 9.0]], answer="soft").choice[0].tolist() == [0.5, 0.5]


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 3), st.floats(0, 0.5))
def test_swapping_segments_swaps_the_law_and_a_shift_changes_nothing(a, b, beta, eps):
    teacher = Teacher(beta=beta, eps_mistake=eps)
    law = answers(teacher, [[a, b]], answer="soft").choice[0]
    np.testing.assert_allclose(answers(teacher, [[b, a]], answer="soft").choice[0][::-1], law)
    np.testing.assert_allclose(answers(teacher, [[a + 7, b + 7]], answer="soft").choice[0], law, atol=1e-12)
    assert law.sum() == pytest.approx(1.0)


def joint_p_value(teachers, laws, seed, n=200_000, closer=None):
    """One chi-square test that answers of all teachers follow all laws: outcomes are each segment, a tie, a skip."""
    statistic, freedom = 0.0, 0
    scores = np.random.default_rng(seed).choice([-2.9, -0.4, 0.0, 0.05, 1.0], (10, 3))
    for (name, teacher), law in zip(teachers.items(), laws.values(), strict=True):
        n_here = 20 * n if name == closer else n // 10 if closer else n
        expected = answers(law, scores, answer="soft").choice
        given_ = answers(teacher, np.repeat(scores, n_here // len(scores), 0), seed=seed + len(name))
        choice = given_.choice.reshape(len(scores), -1, 3)
        for row, probabilities in zip(choice, expected, strict=True):
            if np.isnan(probabilities).any():
                assert np.isnan(row).all(), name
                continue
            if ((row > 0).sum(1) > 1).all():  # ties are certain where they happen
                np.testing.assert_allclose(row, np.broadcast_to(probabilities, row.shape))
                continue
            counts, wanted = row.sum(0), probabilities * len(row)
            certain = wanted < 1e-9
            assert not counts[certain].any(), name
            if (~certain).sum() > 1:
                statistic += (((counts - wanted) ** 2)[~certain] / wanted[~certain]).sum()
                freedom += int((~certain).sum()) - 1
    return stats.chi2.sf(statistic, freedom)


ALL = {name: make_teacher(name) for name in TEACHERS} | {
    "mixed": Teacher(beta=0.7, eps_mistake=0.2, eps_skip=0.2, eps_equal=0.1)
}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_of_all_teachers_follow_their_law(seed):
    assert joint_p_value(ALL, ALL, seed) > 1e-4


@pytest.mark.parametrize("wrong", [{"mistake": Teacher(eps_mistake=0.11)}, {"noisy": Teacher(beta=1.01)}])
def test_the_joint_test_catches_a_parameter_that_is_off_by_one_percent(wrong):
    (name,) = wrong
    assert joint_p_value(ALL | wrong, ALL, 0, closer=name) < 1e-4


def test_a_ranking_is_a_permutation_that_begins_with_the_choice():
    label = answers(
        Teacher(beta=0.5, eps_mistake=0.3), np.random.default_rng(0).normal(size=(300, 4)), answer="ranking"
    )
    assert (np.sort(label.ranking, 1) == np.arange(4)).all()
    np.testing.assert_array_equal(label.ranking.argmin(1), label.choice.argmax(1))


def test_an_error_free_ranking_shares_places():
    label = answers(Teacher(), [[3.0, 1.0, 3.0, 0.0]], answer="ranking")
    assert label.ranking.tolist() == [[0, 2, 0, 3]]


def test_ratings_grow_with_scores_and_skips_are_nan():
    draws = uniforms(0, np.arange(2), draws_needed(3))
    scores = np.array([[-3.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    label = rate_scores(Teacher(rating_levels=5), UNIT, scores, draws, np.array([False, True]))
    assert label.ratings[0].tolist() == [0.0, 2.0, 4.0]
    assert np.isnan(label.ratings[1]).all()
    with pytest.raises(ValueError, match='scale="sd"'):
        rate_scores(Teacher(scale="raw"), UNIT, scores, draws, np.array([False, True]))


def test_margins_choose_by_copeland_wins_and_skip_where_nothing_is_decided():
    cycle = np.array([[[0, 1.0, -1.0], [-1.0, 0, 1.0], [1.0, -1.0, 0]]])
    clear = np.array([[[0, 1.0, 1.0], [-1.0, 0, 1.0], [-1.0, -1.0, 0]]])
    undecided = np.full((1, 3, 3), np.nan)
    draws = uniforms(0, np.arange(3), draws_needed(3) + 3)
    label = answer_margins(Teacher(), np.concatenate([cycle, clear, undecided]), draws, "choice")
    np.testing.assert_allclose(label.choice[0], 1 / 3)
    assert label.choice[1].tolist() == [1.0, 0.0, 0.0]
    assert label.skipped.tolist() == [False, False, True]
    with pytest.raises(ValueError, match="own margins"):
        answer_margins(Teacher(eps_equal=0.1), clear, draws[:1], "choice")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"eps_mistake": 1.2}, "\\[0, 1\\]"), ({"beta": -1.0}, "0 or more"), ({"scale": "raww"}, "Did you mean 'raw'")],
)
def test_parameters_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Teacher(**arguments)
