import math
from itertools import permutations

import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.agents.text.losses.listwise import infonca, lambda_loss, plackett_luce

REWARDS = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCORES = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pair(margin=0.7):
    numbers = [torch.tensor([value], dtype=torch.float64) for value in (margin, 0, 0, 0)]
    return PairLogps(*numbers, chosen_score=SCORES[:1, 0], rejected_score=SCORES[:1, 1])


def test_the_probabilities_of_all_rankings_sum_to_one():
    losses = torch.stack([plackett_luce(REWARDS, torch.tensor([order] * 3)) for order in permutations(range(4))])
    assert_allclose((-losses).exp().sum(0), torch.ones(3))
    assert_allclose(plackett_luce(torch.zeros(1, 4), torch.tensor([[2, 0, 1, 3]])), math.log(24), rtol=1e-6)


def test_two_responses_are_a_pair():
    rewards = torch.tensor([[0.07, 0.0]], dtype=torch.float64)  # beta a with a = .7
    assert_allclose(plackett_luce(rewards, torch.tensor([[0, 1]])), PAIR_LOSSES["dpo"](pair()))
    assert_allclose(infonca(rewards, SCORES[:1, :2]), PAIR_LOSSES["infonca"](pair()))


def test_infonca_is_least_where_rewards_are_the_scores():
    at_scores = infonca(SCORES, SCORES)
    assert (at_scores <= infonca(REWARDS, SCORES)).all()
    leaf = SCORES.clone().requires_grad_()
    assert_allclose(torch.autograd.grad(infonca(leaf, SCORES).sum(), leaf)[0], 0.0, atol=1e-12)


def test_the_lambda_loss_of_two_is_a_weighted_pair():
    rewards, scores = torch.tensor([[0.07, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    weight = (2 - 1) * (1 / math.log(2) - 1 / math.log(3))
    assert_allclose(lambda_loss(rewards, scores), weight * PAIR_LOSSES["dpo"](pair()))


def test_losses_do_not_see_the_order_in_which_responses_are_listed():
    order = torch.tensor([2, 0, 3, 1])
    assert_allclose(lambda_loss(REWARDS[:, order], SCORES[:, order]), lambda_loss(REWARDS, SCORES))
    assert_allclose(infonca(REWARDS[:, order], SCORES[:, order]), infonca(REWARDS, SCORES))


def test_gradients_are_those_of_finite_differences():
    leaf = REWARDS.clone().requires_grad_()
    ranking = SCORES.argsort(-1, descending=True)
    assert torch.autograd.gradcheck(lambda rewards: plackett_luce(rewards, ranking), leaf)
    assert torch.autograd.gradcheck(lambda rewards: infonca(rewards, SCORES), leaf)
    assert torch.autograd.gradcheck(lambda rewards: lambda_loss(rewards, SCORES), leaf)  # ranks do not change nearby
