import pytest
import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.kl_control import KL_ESTIMATORS, adaptive_kl, adaptive_kl_per_batch


@pytest.mark.parametrize(("name", "expected"), [("k1", 0.3), ("k2", 0.045), ("k3", 0.040818)])
def test_estimates_at_a_log_ratio_of_three_tenths(name, expected):
    assert_allclose(KL_ESTIMATORS[name](torch.tensor([0.3], dtype=torch.float64)), [expected], atol=6e-7)


def test_k1_and_k3_have_the_divergence_as_their_mean_and_k3_is_never_negative():
    rng = torch.Generator().manual_seed(0)
    p, q = (torch.randn(50, generator=rng, dtype=torch.float64).softmax(-1) for _ in range(2))
    ratios = (p / q).log()
    kl = (p * ratios).sum()
    assert_allclose((p * KL_ESTIMATORS["k1"](ratios)).sum(), kl)
    assert_allclose((p * KL_ESTIMATORS["k3"](ratios)).sum(), kl)
    assert (KL_ESTIMATORS["k3"](torch.linspace(-30, 30, 101, dtype=torch.float64)) >= 0).all()


def test_the_estimators_agree_to_second_order_on_the_policy_itself():
    small = torch.tensor([1e-3], dtype=torch.float64)
    assert_allclose(KL_ESTIMATORS["k2"](small), KL_ESTIMATORS["k3"](small), rtol=1e-3)


def test_ziegler_s_controller_over_three_batches():
    coefficient, seen = 0.2, []
    for kl in (9.0, 6.3, 3.0):
        coefficient = adaptive_kl(coefficient, kl, target=6.0, samples=256, horizon=10_000)
        seen.append(coefficient)
    assert_allclose(seen, (0.20102400, 0.20128131, 0.20025075), atol=6e-9)


def test_rl4lms_controller_over_three_batches():
    coefficient, seen = 0.1, []
    for kl in (-0.2, 0.3, 0.4):
        coefficient = adaptive_kl_per_batch(coefficient, kl, target=0.1)
        seen.append(coefficient)
    assert_allclose(seen, (0.098, 0.09996, 0.1019592), atol=6e-9)


@pytest.mark.parametrize("controller", [lambda b, kl: adaptive_kl(b, kl, target=2.0, samples=64)])
def test_the_target_itself_changes_nothing(controller):
    assert controller(0.3, 2.0) == 0.3
    assert controller(0.3, 2.1) > 0.3 > controller(0.3, 1.9)
