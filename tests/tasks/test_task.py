from dataclasses import replace

import pytest

from prefenvs.tasks import TASKS


def test_random_play_has_zero_and_the_reference_one():
    spec = TASKS["Pendulum"]
    low, high = spec.random_score.mean, spec.reference_score.mean
    assert [spec.normalised(score) for score in (low, high, (low + high) / 2)] == pytest.approx([0.0, 1.0, 0.5])
    with pytest.raises(ValueError, match="Pendulum has no random or no reference score"):
        replace(spec, reference_score=None).normalised(0.0)
