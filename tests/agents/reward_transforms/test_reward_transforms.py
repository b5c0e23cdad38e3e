import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext, RunningRewards

T = REWARD_TRANSFORMS
ENSEMBLE = {"mean", "median", "worst_case", "uncertainty_weighted", "mean_minus_std"}
STEPS = {"clip_steps", "delta_steps"}
SHAPINGS = sorted(set(T) - ENSEMBLE - STEPS)
NEEDED = {"saturate": {"ceiling": 0.3}, "uncertainty_weighted": {"unbiased": False}, "clip_steps": {"threshold": 0.5}}


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def context(rewards):
    references = torch.linspace(-1, 1, 4, dtype=rewards.dtype).repeat(len(rewards), 1)
    return RewardContext(references=references, running=RunningRewards.of(rewards))


@pytest.mark.parametrize("name", T)
def test_every_transform_has_one_signature(name):
    first, second, *rest = inspect.signature(T[name]).parameters.values()
    assert (first.name, second.name) == ("rewards", "context")
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in rest)


@pytest.mark.parametrize("name", SHAPINGS)
def test_shapings_never_turn_the_order_around(name):
    rewards = torch.linspace(-8, 8, 200, dtype=torch.float64)
    shaped = T[name](rewards, context(rewards), **NEEDED.get(name, {}))
    assert shaped.shape == rewards.shape
    assert (shaped.diff() >= (-0.02 if "polynomial" in name else 0)).all()  # the fit is 1.011 at 5, and 1 from there


@pytest.mark.parametrize("name", SHAPINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_far_rewards_stay_finite(name, dtype):
    rewards = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4], dtype=dtype, requires_grad=True)
    shaped = T[name](rewards, context(rewards.detach()), **NEEDED.get(name, {}))
    assert shaped.dtype == dtype
    assert torch.isfinite(shaped).all()
    assert torch.isfinite(torch.autograd.grad(shaped.sum(), rewards)[0]).all()


@pytest.mark.parametrize("name", T)
def test_transforms_stay_on_their_device_and_read_no_value(name):
    rewards = torch.zeros((4,) if name in SHAPINGS else (3, 4), device="meta")
    held = RewardContext(torch.zeros(4, 2, device="meta"), RunningRewards.of(torch.zeros(4, device="meta")))
    shaped = T[name](rewards, held, **NEEDED.get(name, {}))
    assert (shaped.device.type, shaped.shape) == ("meta", (3, 4) if name in STEPS else (4,))


@pytest.mark.parametrize("name", SHAPINGS)
def test_gradients_are_those_of_finite_differences(name):
    rewards = numbers(-0.7, 0.1, 0.8)
    held = context(numbers(-2, 2, 0.5))
    assert torch.autograd.gradcheck(
        lambda at: T[name](at, held, **NEEDED.get(name, {})), rewards.clone().requires_grad_()
    )


@pytest.mark.parametrize("name", ["centre", "lsc", "par", "slow_then_fast", "centred_tanh", "centred_polynomial"])
def test_missing_references_are_named(name):
    with pytest.raises(ValueError, match=r"RewardContext\(references="):
        T[name](numbers(1.0), RewardContext())


@pytest.mark.parametrize("name", ["clip", "min_max", "mean_std"])
def test_missing_statistics_are_named(name):
    with pytest.raises(ValueError, match=r"RewardContext\(running="):
        T[name](numbers(1.0), RewardContext())


def test_running_statistics_are_those_of_all_rewards_at_once():
    batches = [torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (3, 1, 7)]
    seen = RunningRewards.of(batches[0])
    for batch in batches[1:]:
        seen = seen.updated(batch)
    together = torch.cat(batches)
    assert_allclose(seen.mean, together.mean())
    assert_allclose(seen.std, together.std(correction=0))
    assert (seen.low, seen.high, seen.count) == (together.min(), together.max(), 11)


def test_running_transforms():
    seen = RewardContext(running=RunningRewards.of(numbers(0.0, 4.0)))  # mean 2, std 2
    rewards = numbers(-1.0, 1.0, 5.0)
    assert_allclose(T["mean_std"](rewards, seen, eps=0.0), (-1.5, -0.5, 1.5))
    assert_allclose(T["min_max"](rewards, seen), (-0.25, 0.25, 1.25))
    assert_allclose(T["clip"](rewards, seen), (0.0, 1.0, 4.0))


def test_equal_rewards_do_not_divide_by_zero():
    same = RewardContext(running=RunningRewards.of(numbers(3.0, 3.0)))
    for name in ("mean_std", "min_max", "clip"):
        assert torch.isfinite(T[name](numbers(3.0), same)).all()


def test_the_polynomial_is_the_least_squares_fit_of_the_sigmoid():
    points = np.linspace(-5, 5, 100)
    fit = np.polyfit(points, 1 / (1 + np.exp(-points)), 5)
    at = np.linspace(-4.9, 4.9, 50)
    assert_allclose(T["polynomial"](torch.from_numpy(at)), np.polyval(fit, at), atol=1e-9)
    assert_allclose(T["polynomial"](numbers(-5.0, 5.0, -70.0, 70.0)), (0, 1, 0, 1))


def test_saturate_has_a_ceiling():
    assert_allclose(T["saturate"](numbers(-1.0, 0.5, 2.0), ceiling=0.5), (-1.0, 0.5, 0.5))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-9, 9))
@settings(max_examples=40, deadline=None)
def test_aggregates_lie_under_the_mean_and_follow_a_shift(members, shift):
    scores = torch.tensor(members, dtype=torch.float64).unsqueeze(-1)
    for name in ENSEMBLE:
        found = T[name](scores, **NEEDED.get(name, {}))
        assert_allclose(T[name](scores + shift, **NEEDED.get(name, {})), found + shift, atol=1e-9)
        if name != "median":
            assert found <= scores.mean() + 1e-9


def test_logarithms_of_steps_sum_to_the_log_of_their_product_and_stay_finite():
    quality = torch.tensor([[0.5, 0.25, 1.0], [0.9, 0.0, 0.3]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    found = REWARD_TRANSFORMS["log_steps"](quality, mask=mask)
    assert_allclose(found[0], [-0.693147, -1.386294, 0.0], atol=6e-7)
    assert found.isfinite().all() and (found[1, 1] < -700) and found[1, 2] == 0
