"""On a bandit whose pairs are all asked about, losses have the optimum ref exp(r / beta) / Z. Card 24."""

import pytest
import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.advantages import dr_grpo, penalised_rewards, rloo
from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps, unpaired
from prefenvs.agents.text.policy_losses import reinforce
from prefenvs.metrics.kl_frontier import exact_kl_policy

BETA = 0.5
RNG = torch.Generator().manual_seed(0)
REWARD = torch.randn(5, generator=RNG, dtype=torch.float64)
REFERENCE = torch.randn(5, generator=RNG, dtype=torch.float64).log_softmax(-1)
OPTIMUM = exact_kl_policy(REFERENCE.exp().numpy(), REWARD.numpy(), 1 / BETA)
EVERY = torch.tensor([(i, j) for i in range(5) for j in range(5) if i != j])
PREFERENCE = (REWARD[EVERY[:, 0]] - REWARD[EVERY[:, 1]]).sigmoid()


def minimum(objective):
    """The policy at the minimum over logits, by a quasi-Newton method from the reference."""
    logits = REFERENCE.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [logits], max_iter=300, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        value = objective(logits.log_softmax(-1))
        value.backward()
        return value

    solver.step(closure)
    return logits.detach().softmax(-1)


def pairs_of(logps):
    chosen, rejected = EVERY.T
    return PairLogps(
        logps[chosen], logps[rejected], REFERENCE[chosen], REFERENCE[rejected],
        chosen_score=REWARD[chosen], rejected_score=REWARD[rejected],
    )  # fmt: skip


def expected(name, logps, weight, **options):
    return (weight * PAIR_LOSSES[name](pairs_of(logps), beta=BETA, **options)).sum() / weight.sum()


def test_dpo_s_population_optimum():
    assert_allclose(minimum(lambda logps: expected("dpo", logps, PREFERENCE)), OPTIMUM, atol=1e-6)


def test_infonca_s_population_optimum_from_scores():
    assert_allclose(
        minimum(lambda logps: expected("infonca", logps, torch.ones(20), temperature=1.0)), OPTIMUM, atol=1e-6
    )


def test_flipped_labels_move_dpo_s_optimum_and_not_the_robust_loss_s():
    noisy = 0.8 * PREFERENCE + 0.2 * (1 - PREFERENCE)
    assert_allclose(minimum(lambda logps: expected("robust_dpo", logps, noisy, flip=0.2)), OPTIMUM, atol=1e-6)
    assert (minimum(lambda logps: expected("dpo", logps, noisy)) - torch.from_numpy(OPTIMUM)).abs().max() > 0.05


def test_dro_s_optimum():
    def objective(logps):  # with the best value in closed form
        apart = REWARD - BETA * (logps - REFERENCE)
        return unpaired.dro(logps - REFERENCE, REWARD, apart.mean().expand(5), beta=BETA).mean()

    assert_allclose(minimum(objective), OPTIMUM, atol=1e-6)


def gradient_at(policy, advantage, reward=REWARD):
    """The exact expected policy gradient over groups of two, at a policy."""
    logits = policy.clone().requires_grad_()
    logps = logits.log_softmax(-1)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    rewards = penalised_rewards(reward[pairs], logps[pairs], REFERENCE[pairs], beta=BETA)
    weight = logps.detach()[pairs].sum(-1).exp()
    loss = (weight * reinforce(logps[pairs], advantage(rewards)).mean(-1)).sum()
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("advantage", [rloo, dr_grpo])
def test_policy_gradients_with_the_penalty_in_the_reward_rest_at_the_optimum(advantage):
    assert_allclose(gradient_at(torch.from_numpy(OPTIMUM).log(), advantage), 0.0, atol=1e-15)
    assert gradient_at(REFERENCE, advantage).abs().max() > 1e-2


def test_no_reward_leaves_the_policy_at_the_reference():
    assert_allclose(gradient_at(REFERENCE, rloo, torch.zeros(5, dtype=torch.float64)), 0.0, atol=1e-15)
