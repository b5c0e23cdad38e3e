import pytest
import torch
from numpy.testing import assert_allclose

from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS

SCORES = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
MEMBERS = torch.randn(5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
uwo = REWARD_TRANSFORMS["uncertainty_weighted"]


def test_golden_aggregates_of_three_scores():
    assert_allclose(REWARD_TRANSFORMS["mean"](SCORES), [2.333333], atol=6e-7)
    assert_allclose(REWARD_TRANSFORMS["worst_case"](SCORES), [1.0])
    assert_allclose(uwo(SCORES, weight=0.5, unbiased=False), [1.555556], atol=6e-7)
    assert_allclose(REWARD_TRANSFORMS["median"](SCORES), [2.0])
    assert_allclose(REWARD_TRANSFORMS["mean_minus_std"](SCORES), [2.333333 - 1.247219], atol=2e-6)


def test_one_member_is_every_aggregate():
    one = MEMBERS[:1]
    for name in ("mean", "median", "worst_case", "mean_minus_std"):
        assert_allclose(REWARD_TRANSFORMS[name](one), one[0])
    assert_allclose(uwo(one, unbiased=False), one[0])


def test_identical_members_are_every_aggregate():
    same = MEMBERS[:1].expand(5, -1)
    for name in ("mean", "median", "worst_case", "mean_minus_std"):
        assert_allclose(REWARD_TRANSFORMS[name](same), same[0], atol=1e-12)
    assert_allclose(uwo(same, unbiased=True), same[0], atol=1e-12)


def test_the_two_variances_differ_by_a_quarter_at_five_members():
    assert_allclose(uwo(MEMBERS, weight=0.4, unbiased=True), uwo(MEMBERS, weight=0.5, unbiased=False))
    with pytest.raises(TypeError, match="unbiased"):
        uwo(MEMBERS)


def test_no_weight_is_the_mean():
    assert_allclose(uwo(MEMBERS, weight=0.0, unbiased=True), MEMBERS.mean(0))


def test_card63_the_least_of_five_normals_has_its_known_mean():
    """E min of 5 N(0, 1) = -1.162964; the standard error of the mean here is .0015."""
    draws = torch.randn(5, 200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_allclose(REWARD_TRANSFORMS["worst_case"](draws).mean(), -1.162964, atol=6e-3)


def test_the_worst_case_is_never_above_the_mean_and_both_penalties_only_take_away():
    mean = REWARD_TRANSFORMS["mean"](MEMBERS)
    for name, options in (("worst_case", {}), ("uncertainty_weighted", {"unbiased": False})):
        assert (REWARD_TRANSFORMS[name](MEMBERS, **options) < mean).all()


def test_a_constant_added_to_all_members_is_added_to_every_aggregate():
    for name in ("mean", "median", "worst_case", "mean_minus_std"):
        assert_allclose(REWARD_TRANSFORMS[name](MEMBERS + 3.0), REWARD_TRANSFORMS[name](MEMBERS) + 3.0)
    assert_allclose(uwo(MEMBERS + 3.0, unbiased=True), uwo(MEMBERS, unbiased=True) + 3.0, atol=1e-12)


def test_a_member_with_another_zero_is_always_the_worst_until_members_are_standardised():
    """Bradley-Terry leaves the zero of a reward free, so that a shift of one member must not matter."""
    shifted = MEMBERS.clone()
    shifted[2] -= 100.0
    assert_allclose(REWARD_TRANSFORMS["worst_case"](shifted), shifted[2])
    standard, other = ((m - m.mean(1, keepdim=True)) / m.std(1, keepdim=True) for m in (MEMBERS, shifted))
    assert_allclose(REWARD_TRANSFORMS["worst_case"](other), REWARD_TRANSFORMS["worst_case"](standard), atol=1e-12)
