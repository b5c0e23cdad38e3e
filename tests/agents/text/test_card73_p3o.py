"""P3O on a bandit of six arms, where expectations over pairs of responses are finite sums."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch.autograd import gradcheck

from prefenvs.agents.text.advantages import rloo
from prefenvs.agents.text.policy_losses import p3o_joint, p3o_separate, reinforce

VARIANTS = pytest.mark.parametrize("loss", [p3o_separate, p3o_joint])


def bandit(seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits, reward = (torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(2))
    return logits.requires_grad_(), reward


def every_pair():
    return torch.cartesian_prod(torch.arange(6), torch.arange(6))  # (36, 2)


def pair_gradient(loss, logits, reward):
    """The exact expected gradient over two independent responses."""
    logps = logits.log_softmax(-1)
    pairs = every_pair()
    weight = logps.detach()[pairs].sum(-1).exp()
    (gradient,) = torch.autograd.grad((weight * loss(logps[pairs], logps.detach()[pairs], reward[pairs])).sum(), logits)
    return gradient


@VARIANTS
def test_the_expected_gradient_at_the_sampling_policy_is_the_policy_gradient(loss):
    """E (r_1 - r_2) grad (log pi(y_1) - log pi(y_2)) / 2 = E r grad log pi = pi (r - E r), of a softmax."""
    logits, reward = bandit()
    policy = logits.detach().softmax(-1)
    assert_allclose(-pair_gradient(loss, logits, reward), policy * (reward - policy @ reward), atol=1e-15)


@VARIANTS
def test_it_is_rloo_of_two(loss):
    logits, reward = bandit(1)

    def leave_one_out(logps, old, rewards):
        return reinforce(logps, rloo(rewards)).mean(-1)

    assert_allclose(pair_gradient(loss, logits, reward), pair_gradient(leave_one_out, logits, reward), atol=1e-15)


@VARIANTS
def test_an_offset_of_the_prompt_changes_nothing(loss):
    rng = torch.Generator().manual_seed(2)
    logps, old, rewards = (torch.randn(7, 2, generator=rng, dtype=torch.float64) for _ in range(3))
    rewards = (8 * rewards).round() / 8  # so that adding an offset is exact
    offset = (25 * torch.randn(7, 1, generator=rng, dtype=torch.float64)).round()
    assert torch.equal(loss(logps, old, rewards + offset), loss(logps, old, rewards))


@VARIANTS
def test_exchanging_the_two_responses_changes_nothing(loss):
    rng = torch.Generator().manual_seed(3)
    logps, old, rewards = (torch.randn(7, 2, generator=rng, dtype=torch.float64) for _ in range(3))
    assert_allclose(loss(logps.flip(-1), old.flip(-1), rewards.flip(-1)), loss(logps, old, rewards))


def test_the_separate_variant_clips_each_ratio():
    """Ratios 1.5 and .5, R = 2: min(2 * 1.5, 2 * 1.2) = 2.4 and min(-2 * .5, -2 * .8) = -1.6, so -(2.4 - 1.6) / 2."""
    logps = torch.tensor([[1.5, 0.5]], dtype=torch.float64).log()
    assert_allclose(p3o_separate(logps, torch.zeros(1, 2), torch.tensor([[3.0, 1.0]])), [-0.4])


def test_the_joint_variant_clips_the_difference_of_logs():
    """Ratios 1.5 and .5, R = 2: l = log 3 is held at .2, weighted by .75."""
    logps = torch.tensor([[1.5, 0.5]], dtype=torch.float64).log()
    assert_allclose(p3o_joint(logps, torch.zeros(1, 2), torch.tensor([[3.0, 1.0]])), [-0.5 * 0.75 * 2 * 0.2])
    assert_allclose(
        p3o_joint(logps, torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])), [0.5 * 0.75 * 2 * 1.0986122886681098]
    )


def test_gradients_of_the_separate_variant_are_those_of_finite_differences():
    rng = torch.Generator().manual_seed(4)
    logps, old, rewards = (torch.randn(7, 2, generator=rng, dtype=torch.float64) for _ in range(3))
    assert gradcheck(lambda at: p3o_separate(at, old, rewards), logps.requires_grad_())


def test_the_joint_variant_holds_its_weight_still():
    """At log-ratios within the clip the gradient is -stop(w_1 w_2) R / 2 for the first response."""
    logps = torch.tensor([[0.05, -0.05]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        p3o_joint(logps, torch.full((1, 2), -0.1), torch.tensor([[3.0, 1.0]])).sum(), logps
    )
    assert_allclose(gradient, torch.tensor([[-1.0, 1.0]]) * torch.tensor(0.2).exp(), rtol=1e-6)
