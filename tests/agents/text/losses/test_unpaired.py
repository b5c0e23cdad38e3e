import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps, unpaired

RATIOS = torch.tensor([2.0, -3.0, 0.4, -0.1], dtype=torch.float64)
DESIRABLE = torch.tensor([True, False, True, False])


def pairs():
    zero = torch.zeros(2, dtype=torch.float64)
    return PairLogps(RATIOS[DESIRABLE], RATIOS[~DESIRABLE], zero, zero)


def test_pairs_are_a_good_and_a_bad_response():
    single = unpaired.kto(RATIOS, DESIRABLE, reference_kl=0.5)
    assert_allclose(PAIR_LOSSES["kto_pair"](pairs(), reference_kl=0.5), single[DESIRABLE] + single[~DESIRABLE])
    single = unpaired.bco_unpaired(RATIOS, DESIRABLE, shift=0.2)
    assert_allclose(PAIR_LOSSES["bco"](pairs(), shift=0.2), single[DESIRABLE] + single[~DESIRABLE])


def test_weights_scale_each_kind_of_response_in_the_losses_own_precision():
    plain = unpaired.kto(RATIOS, DESIRABLE)
    weighed = unpaired.kto(RATIOS, DESIRABLE, desirable_weight=0.7, undesirable_weight=1.3)
    assert_allclose(weighed, torch.where(DESIRABLE, 0.7 * plain, 1.3 * plain), rtol=1e-14)


def test_kto_s_reference_point_is_a_mean_held_at_zero_or_more():
    leaf = RATIOS.clone().requires_grad_()
    assert unpaired.kto_reference_kl(leaf) == 0  # the mean is -.175
    assert_allclose(unpaired.kto_reference_kl(leaf + 1), 0.825)
    assert not unpaired.kto_reference_kl(leaf).requires_grad


def test_bco_s_shift_goes_to_the_mean_implied_reward():
    shift = 0.0
    for _ in range(300):
        shift = unpaired.updated_shift(shift, RATIOS[:1], RATIOS[1:2], beta=0.1)
    assert_allclose(shift, 0.1 * (2 - 3) / 2)


def test_dro_vanishes_at_the_optimum():
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    reward = torch.tensor([1.0, -1.0, 0.3], dtype=torch.float64)
    partition = (reference * (reward / 0.4).exp()).sum()
    ratios = reward / 0.4 - partition.log()
    values = (0.4 * partition.log()).expand(3)
    assert_allclose(unpaired.dro(ratios, reward, values, beta=0.4), 0.0, atol=1e-15)


def test_nash_md_moves_to_what_wins_less_what_strays():
    logps = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.0, -3.0], dtype=torch.float64)
    loss = unpaired.nash_md(logps, reference, torch.tensor([0.8, 0.5]), beta=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), logps)
    assert_allclose(gradient, (-0.3, 0.1), atol=1e-7)  # an even match leaves only the KL


def test_nash_md_s_advantages_of_two_players_are_opposite_at_the_reference():
    logps, win = torch.tensor([-1.0, -2.0]), torch.tensor([0.7, 0.3])
    weights = unpaired.nash_md(logps, logps, win) / -logps
    assert_allclose(weights.sum(), 0.0, atol=1e-7)


def test_gradients_are_those_of_finite_differences():
    leaf = RATIOS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda ratios: unpaired.kto(ratios, DESIRABLE, reference_kl=0.2), leaf)
    assert torch.autograd.gradcheck(lambda ratios: unpaired.bco_unpaired(ratios, DESIRABLE, shift=0.2), leaf)
    assert torch.autograd.gradcheck(lambda ratios: unpaired.dro(ratios, RATIOS, RATIOS), leaf)
