"""What every teacher in TEACHERS promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.calibration import Calibration
from prefenvs.teacher import TEACHERS, Thresholds, answer_scores, draws_needed, make_teacher

K = 3


def answer(teacher, scores, uniforms, calibration, kind="choice"):
    return answer_scores(teacher, Thresholds.of(teacher, calibration, 10), scores, scores, uniforms, kind)


def draw(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, K)).round(1), rng.uniform(1e-9, 1 - 1e-9, (n, draws_needed(K)))


@pytest.mark.parametrize("kind", ["choice", "ranking", "soft"])
@pytest.mark.parametrize("name", TEACHERS)
def test_answers_are_shares_or_skips(name, kind):
    scores, uniforms = draw()
    label = answer(make_teacher(name), scores, uniforms, Calibration(floor=-1.0), kind)
    given = label.choice[~label.skipped]
    np.testing.assert_allclose(given.sum(1), 1.0)
    assert ((given >= 0) & (given <= 1)).all()
    assert len(given) > 150


@pytest.mark.parametrize("name", TEACHERS)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_answers_do_not_depend_on_the_unit_or_the_level_of_reward(name, scale, shift):
    # Scores 0.1 apart and thresholds away from them: rounding cannot decide.
    scores, uniforms = draw(60)
    calibration = Calibration(mean=0.0, sd=1.05, floor=-0.55)
    moved = Calibration(mean=shift, sd=1.05 * scale, floor=-0.55 * scale + shift)
    teacher = make_teacher(name)
    ours = answer(teacher, scores, uniforms, calibration).choice
    theirs = answer(teacher, np.round(scores * 10).astype(int) * (scale / 10) + shift, uniforms, moved).choice
    tied = [len(set(row)) < K for row in scores.tolist()]  # an exact tie may be lost to rounding after a shift
    np.testing.assert_array_equal(ours[~np.array(tied)], theirs[~np.array(tied)])


@pytest.mark.parametrize("name", TEACHERS)
def test_an_answer_depends_on_its_own_row_alone(name):
    scores, uniforms = draw()
    teacher, calibration = make_teacher(name), Calibration(floor=-1.0)
    together = answer(teacher, scores, uniforms, calibration).choice
    alone = [answer(teacher, scores[[i]], uniforms[[i]], calibration).choice for i in range(len(scores))]
    np.testing.assert_array_equal(np.concatenate(alone), together)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_better_segment_is_not_chosen_less_often(name):
    scores, uniforms = draw()
    teacher, calibration = make_teacher(name), Calibration(floor=-1.0)
    law = answer(teacher, scores, uniforms, calibration, "soft").choice
    better = scores + np.array([0.5, 0.0, 0.0])
    raised = answer(teacher, better, uniforms, calibration, "soft").choice
    both = ~np.isnan(law[:, 0])
    assert (raised[both, 0] >= law[both, 0] - 1e-12).all()
    assert (raised[both, 0] > law[both, 0] + 1e-3).any()
