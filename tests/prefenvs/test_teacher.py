import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prefenvs.calibration import Calibration, weighted_scores
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
    np.testing.assert_array_equal(weighted_scores(np.where(mask, utility, np.nan), mask, 0.5), [plain, weighted])


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


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_scores_that_differ_by_rounding_tie_and_those_that_differ_do_not(size):
    forth, back = size * ((0.1 + 0.2) + 0.3), size * (0.1 + (0.2 + 0.3))
    assert forth != back
    for answer in ("choice", "soft", "ranking"):
        label = answers(Teacher(), [[forth, back, -1.0], [forth + 1e-6 * (1 + size), back, -1.0]], answer=answer)
        np.testing.assert_array_equal(label.choice, [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(label.ranking, [[0, 0, 2], [0, 1, 2]])


def test_places_below_the_first_are_shared_up_to_rounding_too():
    label = answers(Teacher(), [[3.0, 0.1 + 0.2, 0.3]], answer="ranking")
    assert label.ranking.tolist() == [[0, 1, 1]]


def test_a_noisy_teacher_breaks_them_by_chance():
    label = answers(Teacher(beta=1.0), np.tile([0.1 + 0.2, 0.3], (2000, 1)))
    assert label.choice[:, 0].mean() == pytest.approx(0.5, abs=0.05)


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


def draws_of(teacher, scores, n, rng):
    """(n, k) answers to one question asked n times."""
    scores = np.broadcast_to(scores, (n, len(scores)))
    thresholds = Thresholds.of(teacher, UNIT, 10)
    return answer_scores(teacher, thresholds, scores, scores, rng.random((n, draws_needed(scores.shape[1]))), "choice")


# Questions at which answers tell most of a parameter, a near tie, a skip, and three segments at once.
ASKED = [(0.0, 2.4), (0.05, 0.0), (-2.95, -2.92), (0.0, 1.0, 2.4), (0.3, 0.32, -1.0)]
ALL = {name: make_teacher(name) for name in TEACHERS} | {
    "mixed": Teacher(beta=0.7, eps_mistake=0.2, eps_skip=0.2, eps_equal=0.1)
}
TIMES = {"mistake": 1_100_000, "noisy": 500_000}  # errs seldom, so more questions tell 0.1 from 0.101
CHUNK = 100_000


def joint_p_value(teachers, seed):
    """One chi-square test that the answers of all teachers follow their laws: each segment, a tie or a skip."""
    rng, statistic, freedom = np.random.default_rng(seed), 0.0, 0
    for name, teacher in teachers.items():
        for scores in ASKED:
            law = answers(ALL[name], [scores], answer="soft")
            n = TIMES.get(name, 50_000)
            parts = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
            if law.skipped[0] or certain_tie(ALL[name], scores):
                label = draws_of(teacher, scores, 1000, rng)
                np.testing.assert_array_equal(label.choice, np.broadcast_to(law.choice, label.choice.shape))
                continue
            counts = np.sum([draws_of(teacher, scores, part, rng).choice.sum(0) for part in parts], 0)
            possible = law.choice[0] > 0
            assert not counts[~possible].any(), name
            wanted = n * law.choice[0][possible]
            statistic += ((counts[possible] - wanted) ** 2 / wanted).sum()
            freedom += int(possible.sum()) - 1
    return stats.chi2.sf(statistic, freedom)


def certain_tie(teacher, scores):
    first, second = sorted(scores)[-2:][::-1]
    return first - second < teacher.eps_equal


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_of_all_teachers_follow_their_law(seed):
    assert joint_p_value(ALL, seed) > 1e-4


@pytest.mark.parametrize("wrong", [{"mistake": Teacher(eps_mistake=0.101)}, {"noisy": Teacher(beta=1.01)}])
def test_the_joint_test_catches_a_parameter_that_is_off_by_one_percent(wrong):
    assert joint_p_value(ALL | wrong, 0) < 1e-4


def test_the_law_is_the_one_that_is_stated():
    """The expected law above is the library's own, so here it is against the formulas: k = 3, noise and mistakes."""
    scores, eps = np.array([0.2, 0.9, -0.4]), 0.2
    meant = np.exp(1.5 * scores / 2.0) / np.exp(1.5 * scores / 2.0).sum()
    named = [(1 - eps) * meant[i] + eps * (meant.sum() - meant[i]) / 2 for i in range(3)]
    units = Calibration(sd=2.0)
    law = answers(Teacher(beta=1.5, eps_mistake=eps), [scores], answer="soft", calibration=units).choice[0]
    np.testing.assert_allclose(law, named)


def test_a_ranking_is_a_permutation_that_begins_with_the_choice():
    label = answers(
        Teacher(beta=0.5, eps_mistake=0.3), np.random.default_rng(0).normal(size=(300, 4)), answer="ranking"
    )
    assert (np.sort(label.ranking, 1) == np.arange(4)).all()
    np.testing.assert_array_equal(label.ranking.argmin(1), label.choice.argmax(1))


def test_an_error_free_ranking_shares_places():
    label = answers(Teacher(), [[3.0, 1.0, 3.0, 0.0]], answer="ranking")
    assert label.ranking.tolist() == [[0, 2, 0, 3]]


def test_segments_that_share_the_choice_share_the_first_place():
    scores = np.random.default_rng(0).normal(size=(400, 3))
    label = answers(Teacher(beta=1.0, eps_equal=0.3), scores, answer="ranking")
    assert 50 < label.tied.sum() < 350
    np.testing.assert_array_equal(label.ranking == 0, label.choice > 0)


def test_a_myopic_teacher_ranks_by_what_it_remembers():
    plain, weighted = np.array([[5.0, 4.0, 3.0]]), np.array([[1.0, 2.0, 3.0]])
    draws, exact = uniforms(0, np.arange(1), draws_needed(3)), Thresholds.of(Teacher(), UNIT, 10)
    label = answer_scores(Teacher(myopia=0.9), exact, plain, weighted, draws, "ranking")
    assert label.choice.tolist() == [[0.0, 0.0, 1.0]]
    assert label.ranking.tolist() == [[2, 1, 0]]


def test_ties_and_skips_look_at_the_whole_segment_and_noise_at_what_is_remembered():
    """B-Pref's gamma enters its choice only (steps 1 and 2 of its code read the plain sums)."""
    plain, weighted = np.array([[0.45, 0.1], [3.0, 3.04], [3.0, 2.0]]), np.array([[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    teacher = Teacher(myopia=0.9, eps_skip=0.1, eps_equal=0.1, scale="raw")
    thresholds = Thresholds.of(teacher, UNIT, 10, (50.0, 100.0))
    draws = uniforms(0, np.arange(3), draws_needed(2))
    choice = answer_scores(teacher, thresholds, plain, weighted, draws, "choice").choice
    np.testing.assert_array_equal(choice, [[np.nan, np.nan], [0.5, 0.5], [0.0, 1.0]])


def test_raw_thresholds_of_negative_returns_are_off_as_in_bpref():
    label = answers(Teacher(eps_skip=0.1, eps_equal=0.1, scale="raw"), [[-4.0, -3.99]], recent_returns=(-50.0, 100.0))
    assert label.choice.tolist() == [[0.0, 1.0]]


def test_a_ranking_follows_the_plackett_luce_law():
    scores, n = np.array([1.0, 0.0, -0.5]), 60_000
    label = answers(Teacher(beta=1.0), np.broadcast_to(scores, (n, 3)), answer="ranking")
    weight = np.exp(scores)
    wanted, counts = [], []
    for order in itertools.permutations(range(3)):
        first, second, _ = order
        wanted.append(n * weight[first] / weight.sum() * weight[second] / (weight.sum() - weight[first]))
        counts.append((label.ranking[:, list(order)] == [0, 1, 2]).all(1).sum())
    assert stats.chisquare(counts, wanted).pvalue > 1e-4


def test_ratings_grow_with_scores_and_skips_are_nan():
    draws = uniforms(0, np.arange(2), draws_needed(3))
    scores = np.array([[-3.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    label = rate_scores(Teacher(rating_levels=5), UNIT, scores, draws, np.array([False, True]))
    assert label.ratings[0].tolist() == [0.0, 2.0, 4.0]
    assert np.isnan(label.ratings[1]).all()
    with pytest.raises(ValueError, match='scale="sd"'):
        rate_scores(Teacher(scale="raw"), UNIT, scores, draws, np.array([False, True]))


def test_ratings_follow_the_stated_law():
    """floor(L * Phi(z + logistic / beta)), or with chance eps any level: a level's share is its integral."""
    n, beta, eps, z = 50_000, 2.0, 0.2, 0.4
    teacher = Teacher(beta=beta, eps_mistake=eps, rating_levels=4)
    draws = uniforms(0, np.arange(n), draws_needed(1))
    label = rate_scores(teacher, UNIT, np.full((n, 1), z), draws, np.zeros(n, bool))
    inner = stats.logistic.cdf(beta * (stats.norm.ppf([0.25, 0.5, 0.75]) - z))
    law = (1 - eps) * np.diff([0.0, *inner, 1.0]) + eps / 4
    assert stats.chisquare(np.bincount(label.ratings[:, 0].astype(int), minlength=4), n * law).pvalue > 1e-4


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
    with pytest.raises(ValueError, match=r"cannot answer k=3, answer='rating'"):
        answer_margins(Teacher(), clear, draws[:1], "rating")


def test_margins_follow_the_law_of_a_noisy_teacher():
    n, teacher = 100_000, Teacher(beta=1.3, eps_mistake=0.1)
    margins = np.broadcast_to([[[0.0, 0.8], [-0.8, 0.0]]], (n, 2, 2))
    draws = uniforms(0, np.arange(n), draws_needed(2) + 1)
    chance = 1 / (1 + math.exp(-1.3 * 0.8))
    law = answer_margins(teacher, margins[:1], draws[:1], "soft").choice[0]
    np.testing.assert_allclose(law[0], 0.9 * chance + 0.1 * (1 - chance))
    counts = answer_margins(teacher, margins, draws, "choice").choice.sum(0)
    assert stats.chisquare(counts, n * law).pvalue > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"eps_mistake": 1.2}, "\\[0, 1\\]"), ({"beta": -1.0}, "0 or more"), ({"scale": "raww"}, "Did you mean 'raw'")],
)
def test_parameters_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Teacher(**arguments)


def test_an_entry_that_makes_no_teacher_is_refused(monkeypatch):
    monkeypatch.setitem(TEACHERS, "mine", Teacher(beta=2.0))
    assert make_teacher({"name": "mine", "myopia": 0.5}) == Teacher(beta=2.0, myopia=0.5)
    monkeypatch.setitem(TEACHERS, "mine", dict)
    with pytest.raises(TypeError, match=r"TEACHERS\['mine'\] made \{\}, expected a Teacher"):
        make_teacher("mine")
