import pytest
import torch
from numpy.testing import assert_allclose
from torch.autograd import gradcheck

from prefenvs.agents.text.policy_losses import AGGREGATIONS, ppo_token_loss, reinforce, value_loss

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_ppo_clips_the_ratio_where_it_would_gain_only():
    """Ratios 1.5 and .5 with clip .2: a gain is held at 1.2 or .8, a loss is not."""
    logps = torch.tensor([[1.5, 1.5, 0.5, 0.5]], dtype=torch.float64).log()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    assert_allclose(ppo_token_loss(logps, torch.zeros(1, 4), advantages), [[-1.2, 1.5, -0.5, 0.8]])
    assert_allclose(ppo_token_loss(logps, torch.zeros(1, 4), advantages, clip_high=0.28)[0, 0], -1.28)


def test_at_the_sampling_policy_ppo_has_reinforce_s_gradient():
    logps, advantages = random(2, 4).requires_grad_(), random(2, 4, seed=1)
    (clipped,) = torch.autograd.grad(ppo_token_loss(logps, logps.detach(), advantages).sum(), logps)
    (plain,) = torch.autograd.grad(reinforce(logps, advantages).sum(), logps)
    assert_allclose(clipped, plain)
    assert_allclose(plain, -advantages)


def test_gradients_of_the_token_losses_are_those_of_finite_differences():
    old, advantages = random(2, 4), random(2, 4, seed=1)
    point = (old + 0.3 * random(2, 4, seed=2)).requires_grad_()
    assert gradcheck(lambda logps: ppo_token_loss(logps, old, advantages), point)
    assert gradcheck(lambda values: value_loss(values, old, advantages), point)
    assert gradcheck(lambda values: value_loss(values, old, advantages, clip=None), point)


def test_the_critic_s_clipped_loss_is_the_worse_of_two():
    values, old, returns = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
    assert_allclose(value_loss(values, old, returns, clip=0.2), [[0.32]])  # (0.2 - 1)^2 / 2, though V - R is 0
    assert_allclose(value_loss(values, old, returns, clip=None), [[0.0]])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("grpo", {}, (2.0 + 9.0) / 2),  # rows 1 2 3 and 9: mean of row means
        ("bnpo", {}, 15.0 / 4),
        ("dapo", {"tokens": 10.0}, 1.5),
        ("dr_grpo", {"max_tokens": 4}, 15.0 / 8),
    ],
)
def test_tokens_are_aggregated_as_each_method_does(name, options, expected):
    losses = torch.tensor([[1.0, 2.0, 3.0, float("nan")], [9.0, float("nan"), float("inf"), 0.0]])
    assert_allclose(AGGREGATIONS[name](losses, MASK, **options), expected)
    assert_allclose(AGGREGATIONS[name](losses, MASK.bool(), **options), expected)


def test_equal_lengths_make_all_aggregations_one():
    losses = random(3, 4)
    full = torch.ones(3, 4)
    found = [
        AGGREGATIONS[name](losses, full, **options)
        for name, options in (("grpo", {}), ("bnpo", {}), ("dapo", {"tokens": 12}), ("dr_grpo", {"max_tokens": 4}))
    ]
    assert_allclose(found, [losses.mean()] * 4)


def test_minibatches_with_the_global_count_add_up_to_the_whole():
    losses = random(2, 4)
    parts = [AGGREGATIONS["dapo"](losses[i : i + 1], MASK[i : i + 1], tokens=MASK.sum()) for i in range(2)]
    assert_allclose(sum(parts), AGGREGATIONS["bnpo"](losses, MASK))
    assert not torch.isclose(
        sum(AGGREGATIONS["bnpo"](losses[i : i + 1], MASK[i : i + 1]) for i in range(2)) / 2, sum(parts)
    )
