import pytest
import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.agents.text.losses.token_statistics import guided_ratio, log_collision, sequential_kl

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


def logits(seed):
    return torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(function):
    return [sum(function(row, t) for t in range(4) if MASK[row, t]) for row in range(2)]


def test_sums_over_tokens_are_those_of_loops():
    policy, reference = logits(0).softmax(-1), logits(1).softmax(-1)
    assert_allclose(
        sequential_kl(logits(1), logits(0), MASK),
        by_loops(lambda row, t: (reference[row, t] * (reference[row, t] / policy[row, t]).log()).sum()),
    )
    assert_allclose(log_collision(logits(0), MASK), by_loops(lambda row, t: (policy[row, t] ** 2).sum().log()))


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_what_stands_at_padding_does_not_matter(spoilt):
    dirty = torch.where(MASK.bool()[..., None], logits(0), spoilt)
    assert_allclose(sequential_kl(dirty, logits(1), MASK), sequential_kl(logits(0), logits(1), MASK))
    assert_allclose(log_collision(dirty, MASK), log_collision(logits(0), MASK))


def test_a_word_that_neither_writes_counts_nothing():
    """Padding, where another token ends a completion: its logit is -inf under both."""
    policy, reference = (torch.where(torch.arange(5) == 4, -torch.inf, logits(seed)) for seed in (0, 1))
    policy.requires_grad_()
    found = sequential_kl(reference, policy, MASK)
    assert_allclose(found.detach(), sequential_kl(logits(1)[..., :4], logits(0)[..., :4], MASK))
    (gradient,) = torch.autograd.grad(found.sum(), policy)
    assert torch.isfinite(gradient).all()
    assert_allclose(log_collision(policy, MASK), log_collision(logits(0)[..., :4], MASK))


def test_the_sequential_divergence_is_zero_at_the_reference_and_has_gradients():
    policy = logits(0).requires_grad_()
    assert_allclose(sequential_kl(logits(0), policy, MASK).detach(), 0.0, atol=1e-15)
    (gradient,) = torch.autograd.grad(sequential_kl(logits(1), policy, MASK).sum(), policy)
    assert_allclose(gradient[~MASK.bool()], 0.0)
    assert gradient.abs().max() > 0
    assert not log_collision(policy, MASK).requires_grad


def ratios(seed):
    return torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_card59_constant_guidance_is_dpo_with_two_betas():
    """sum_t c a_t = c a, so the betas are beta (1 + alpha c) and beta (1 - alpha c): Flex-DPO's."""
    chosen, rejected, zero = ratios(0), ratios(1), torch.zeros(2, 4)
    constant = torch.full((2, 4), 0.3, dtype=torch.float64)
    pairs = PairLogps(
        (chosen * MASK).sum(-1),
        (rejected * MASK).sum(-1),
        zero.double().sum(-1),
        zero.double().sum(-1),
        chosen_guided_ratio=guided_ratio(chosen, zero, constant, MASK),
        rejected_guided_ratio=guided_ratio(rejected, zero, constant, MASK),
    )
    expected = PAIR_LOSSES["flex_dpo"](pairs, beta=0.1 * 1.15, rejected_beta=0.1 * 0.85)
    assert_allclose(PAIR_LOSSES["tgdpo"](pairs, beta=0.1, guidance_weight=0.5), expected)


def test_card59_guidance_is_a_constant():
    guidance = ratios(2).requires_grad_()
    chosen = ratios(0).requires_grad_()
    guided_ratio(chosen, torch.zeros(2, 4), guidance, MASK).sum().backward()
    assert guidance.grad is None
    assert_allclose(chosen.grad, guidance.detach() * MASK)
