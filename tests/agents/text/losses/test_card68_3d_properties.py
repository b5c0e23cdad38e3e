import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps


def in_likelihood_ratios(loss, chosen, rejected, **options):
    """Gradients of a loss in x1 = pi(y_w) / ref(y_w) and x2 = pi(y_l) / ref(y_l)."""
    ratios = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (chosen, rejected)]
    zero = torch.zeros(1, dtype=torch.float64)
    pairs = PairLogps(ratios[0].log(), ratios[1].log(), zero, zero)
    return [float(part) for part in torch.autograd.grad(PAIR_LOSSES[loss](pairs, **options).sum(), ratios)]


def test_golden_gradients_in_likelihood_ratios():
    chosen, rejected = in_likelihood_ratios("dpo", 0.5, 0.05, beta=0.1)
    assert_allclose((chosen, rejected), (-0.0885377, 0.8853767), atol=6e-8)
    assert_allclose(abs(rejected) / abs(chosen), 10)


def test_the_rejected_gradient_grows_without_bound_and_the_chosen_one_dies():
    found = [in_likelihood_ratios("dpo", 0.5, 10.0**-power, beta=0.1) for power in (1, 10, 30, 60)]
    chosen, rejected = (torch.tensor(part, dtype=torch.float64).abs() for part in zip(*found, strict=True))
    assert (chosen.diff() < 0).all()
    assert (rejected.diff() > 0).all()
    assert rejected[-1] > 1e50
    assert chosen[-1] < 1e-6


def test_a_smaller_beta_for_the_rejected_response_damps_its_gradient():
    flat = in_likelihood_ratios("dpo", 0.5, 0.05, beta=0.1)
    flexible = in_likelihood_ratios("flex_dpo", 0.5, 0.05, beta=0.1, rejected_beta=0.02)
    assert abs(flexible[1] / flexible[0]) < abs(flat[1] / flat[0]) / 4


def test_in_the_logits_of_a_softmax_other_arms_are_left_alone():
    """The gradient is -beta s(-beta D) (e_w - e_l): the normaliser cancels in the margin."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=rng, dtype=torch.float64).requires_grad_()
    reference = torch.randn(6, generator=rng, dtype=torch.float64).log_softmax(-1)
    logps = logits.log_softmax(-1)
    pairs = PairLogps(logps[2:3], logps[4:5], reference[2:3], reference[4:5])
    (gradient,) = torch.autograd.grad(PAIR_LOSSES["dpo"](pairs, beta=0.5).sum(), logits)
    expected = torch.zeros(6, dtype=torch.float64)
    expected[2], expected[4] = -1, 1
    assert_allclose(gradient, 0.5 * (-0.5 * pairs.margin.detach()).sigmoid() * expected, atol=1e-15)
