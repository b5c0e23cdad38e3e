import torch
from numpy.testing import assert_allclose
from scipy.stats import norm

from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext
from prefenvs.metrics.kl_frontier import exact_kl_policy

lsc = REWARD_TRANSFORMS["lsc"]


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def against(*references):
    return RewardContext(references=torch.tensor([references], dtype=torch.float64))


def test_golden_values():
    assert_allclose(lsc(numbers(0.4), against(0.4)), [-0.69315], atol=6e-6)
    assert_allclose(lsc(numbers(1.4), against(0.4)), [-0.31326], atol=6e-6)


def test_its_limits_are_the_raw_reward_and_zero():
    assert_allclose(lsc(numbers(-50.0), against(3.0)), [-53.0])
    assert_allclose(lsc(numbers(60.0), against(3.0)), [0.0], atol=1e-20)


def test_its_slope_falls_as_the_reward_rises():
    rewards = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    context = RewardContext(references=torch.full((7, 1), 0.5, dtype=torch.float64))
    (slope,) = torch.autograd.grad(lsc(rewards, context).sum(), rewards)
    assert_allclose(slope, (0.5 - rewards.detach()).sigmoid())


def test_the_reference_is_a_quantile_of_the_fitted_normal():
    references = (0.3, -1.0, 2.0, 0.9)
    fitted = numbers(*references)
    quantile = norm.ppf(0.85, loc=fitted.mean(), scale=fitted.std())
    assert_allclose(lsc(numbers(1.0), against(*references)), torch.nn.functional.logsigmoid(numbers(1.0) - quantile))


def test_a_sum_of_transformed_rewards_targets_all_being_good():
    """The exact optimum of E sum_k u_k - gamma KL is ref prod_k s(r_k - ref_k)^(1 / gamma)."""
    rng = torch.Generator().manual_seed(0)
    reference = torch.rand(6, generator=rng).double()
    reference = reference / reference.sum()
    rewards = torch.randn(2, 6, generator=rng).double()
    bars = numbers(0.2, -0.4)
    utility = sum(
        lsc(reward, RewardContext(references=bar.expand(6, 1))) for reward, bar in zip(rewards, bars, strict=True)
    )
    target = reference * (rewards - bars[:, None]).sigmoid().prod(0) ** (1 / 0.3)
    assert_allclose(exact_kl_policy(reference.numpy(), utility.numpy(), 1 / 0.3), target / target.sum())
