import torch
from numpy.testing import assert_allclose

from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS

clip_steps, delta_steps = REWARD_TRANSFORMS["clip_steps"], REWARD_TRANSFORMS["delta_steps"]
QUALITY = torch.tensor([[0.9, 0.8, 0.95, 0.6]], dtype=torch.float64)


def to_go(rewards):
    return rewards.flip(-1).cumsum(-1).flip(-1)


def test_golden_values():
    assert_allclose(delta_steps(QUALITY), [[0.1, -0.15, 0.95, 0.0]], atol=1e-12)
    assert_allclose(delta_steps(QUALITY).sum(-1), [0.9])
    assert_allclose(to_go(delta_steps(QUALITY)), [[0.9, 0.8, 0.95, 0.0]], atol=1e-12)
    assert_allclose(clip_steps(QUALITY, threshold=0.7), [[0.0, 0.0, 0.0, -0.1]], atol=1e-12)


def test_repeating_a_step_gains_nothing_but_under_the_raw_quality():
    repeated = torch.cat([QUALITY[:, :2], QUALITY[:, 1:2].expand(1, 5), QUALITY[:, 2:]], dim=1)
    for transform in (lambda q: clip_steps(q, threshold=0.7), delta_steps):
        assert transform(repeated).sum() <= transform(QUALITY).sum() + 1e-12
    assert_allclose(repeated.sum() - QUALITY.sum(), 5 * 0.8)


def test_shorter_rows_are_as_if_alone():
    rows = torch.tensor([[0.9, 0.8, 0.95, 0.6], [0.3, 0.5, 9.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = delta_steps(rows, mask=mask)
    assert_allclose(found[0], delta_steps(QUALITY)[0])
    assert_allclose(found[1], [0.3, 0.0, 0.0, 0.0])
