from dataclasses import replace

import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps

rpo, iterative_rpo, vpo = (PAIR_LOSSES[name] for name in ("rpo", "iterative_rpo", "vpo"))


def pairs():
    rng = torch.Generator().manual_seed(0)
    four = (-10 + 3 * torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(4))
    tokens = torch.full((6,), 5.0, dtype=torch.float64)
    return PairLogps(*four, tokens, tokens)


def test_the_chosen_gradient_never_vanishes():
    """d loss / d log pi(y_w) = -beta (s(-beta D) + eta), even at a margin where DPO's has died."""
    for offset in (0.0, 5_000.0):
        held = pairs()
        leaf = (held.policy_chosen + offset).requires_grad_()
        moved = replace(held, policy_chosen=leaf)
        (gradient,) = torch.autograd.grad(rpo(moved, beta=0.1, eta=0.005).sum(), leaf)
        assert_allclose(gradient, -0.1 * ((-0.1 * moved.margin.detach()).sigmoid() + 0.005))
        assert (gradient <= -0.1 * 0.005).all()


def test_no_pessimism_is_dpo_bit_for_bit():
    assert torch.equal(rpo(pairs(), beta=0.1, eta=0.0), PAIR_LOSSES["dpo"](pairs(), beta=0.1))


def test_the_two_objectives_of_that_name_differ_by_sum_and_mean():
    """eta beta |y| is the weight of the mean that makes them one; with equal weights they are not."""
    held = pairs()
    assert_allclose(rpo(held, beta=0.1, eta=0.4), iterative_rpo(held, beta=0.1, nll_weight=0.4 * 0.1 * 5))
    assert (rpo(held, beta=0.1, eta=1.0) - iterative_rpo(held, beta=0.1, nll_weight=0.1)).abs().min() > 0.1


def test_card51_offline_vpo_on_the_chosen_responses_is_rpo_up_to_a_constant():
    held = pairs()
    held = replace(held, policy_sampled=held.policy_chosen, reference_sampled=held.reference_chosen)
    apart = vpo(held, beta=0.1, weight=-0.3) - rpo(held, beta=0.1, eta=0.3)
    assert_allclose(apart, 0.3 * 0.1 * held.reference_chosen)  # no policy in it


def test_card51_the_optimal_value_is_read_off_a_calibrated_policy():
    """J* = beta log Z = -beta E_cal log(pi / ref) where the reward has mean 0 under the calibration policy."""
    rng = torch.Generator().manual_seed(1)
    reference, calibration = torch.rand(2, 6, generator=rng, dtype=torch.float64).log_softmax(-1)
    reward = torch.randn(6, generator=rng, dtype=torch.float64)
    reward = reward - (calibration.exp() * reward).sum()
    partition = (reference + reward / 0.3).logsumexp(-1)
    optimum = reference + reward / 0.3 - partition
    assert_allclose(-0.3 * (calibration.exp() * (optimum - reference)).sum(), 0.3 * partition, atol=1e-12)


def test_card09_the_expected_bonus_has_no_gradient_at_the_reference():
    logits = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    logps, zero = logits.log_softmax(-1), torch.zeros(6, dtype=torch.float64)
    sampled = PairLogps(zero, zero, zero, zero, policy_sampled=logps, reference_sampled=logps.detach())
    bonus = PAIR_LOSSES["selm"](sampled, optimism=1.0) - PAIR_LOSSES["dpo"](sampled, beta=0.01)
    (gradient,) = torch.autograd.grad((logps.detach().exp() * bonus).sum(), logits)
    assert_allclose(gradient, 0.0, atol=1e-16)
