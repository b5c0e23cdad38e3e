import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps, margins, regularised, unpaired

LOG2 = math.log(2)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def card_pair(**changes):
    """The card's pair: a_w = 2, a_l = -3, |y| = 4 and 5, m = -8 and -15, so that D = 5."""
    pair = PairLogps(numbers(-8), numbers(-15), numbers(-10), numbers(-12), numbers(4), numbers(5))
    return replace(pair, **changes)


def survey_pairs():
    """Two pairs with ratios a_w = (.5, -.5), a_l = (-.8, .5), D = (1.3, -1)."""
    return PairLogps(
        policy_chosen=numbers(-10, -12.5),
        policy_rejected=numbers(-11, -9),
        reference_chosen=numbers(-10.5, -12),
        reference_rejected=numbers(-10.2, -9.5),
        chosen_tokens=numbers(5, 8),
        rejected_tokens=numbers(6, 4),
    )


def full_pairs(n=5, seed=0, spread=1.0):
    """Pairs with every field, away from the kinks of hinges: the chosen response is a little better in each."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return low + (high - low) * torch.rand(n, dtype=torch.float64, generator=rng)

    reference_chosen, reference_rejected = uniform(-20, -10), uniform(-20, -10)
    chosen_tokens, rejected_tokens = uniform(4, 9).round(), uniform(4, 9).round()
    return PairLogps(
        policy_chosen=reference_chosen + spread * uniform(0.2, 1),
        policy_rejected=reference_rejected - spread * uniform(0.2, 1),
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        chosen_score=uniform(1, 2),
        rejected_score=uniform(-1, 0.5),
        chosen_sequential_kl=uniform(0.1, 1),
        rejected_sequential_kl=uniform(0.1, 1),
        chosen_log_collision=uniform(-8, -6),
        rejected_log_collision=uniform(-8, -6),
        chosen_guided_ratio=uniform(-0.2, 0.2),
        rejected_guided_ratio=uniform(-0.2, 0.2),
        policy_sampled=uniform(-20, -10),
        reference_sampled=uniform(-20, -10),
    )


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dpo", {}, 0.474077),
        ("hinge", {}, 0.5),
        ("ipo", {}, 0.0),
        ("ipo_norm", {}, 15.21),
        ("cdpo", {"flip": 0.1}, 0.524077),
        ("robust_dpo", {"flip": 0.1}, 0.411577),
        ("exo", {}, 1.945734),
        ("nca", {}, 1.274386),
        ("sppo", {}, 13.0),
        ("bco", {"shift": 0.0}, 1.152494),
        ("apo_zero", {}, 0.875723),
        ("apo_down", {}, 0.927375),
        ("simpo", {"beta": 2.0, "margin": 1.0}, 0.313262),
        ("orpo", {}, 2.028875),
        ("r_dpo", {"length_weight": 0.01}, 0.477864),
        ("discopop", {}, 0.606525),
        ("kto_pair", {"reference_kl": 0.5}, 0.462570 + 0.413382),
    ],
)
def test_the_cards_pair_has_the_cards_losses(name, options, expected):
    assert_allclose(PAIR_LOSSES[name](card_pair(), **options), [expected], atol=6e-7)


def test_dpop_adds_its_penalty_where_the_chosen_response_has_become_less_likely():
    fallen = card_pair(policy_chosen=numbers(-12))  # a_w = -2, D = 1, z = .1 (1 - 5 * 2) = -.9
    assert_allclose(PAIR_LOSSES["dpop"](fallen, penalty=5.0), [1.241154], atol=6e-7)
    assert_allclose(PAIR_LOSSES["dpop"](card_pair(), penalty=5.0), PAIR_LOSSES["dpo"](card_pair()))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dpo", {}, (0.630258, 0.744397)),
        ("cdpo", {"flip": 0.1}, (0.643258, 0.734397)),
        ("robust_dpo", {"flip": 0.1}, (0.614008, 0.756897)),
        ("hinge", {}, (0.870, 1.100)),
        ("ipo_norm", {}, (22.721111, 26.910156)),
        ("ipo", {}, (13.69, 36.0)),
        ("exo", {"smoothing": 1e-3}, (2.539185, 2.935004)),
        ("nca", {}, (1.354663, 1.411919)),
        ("bco", {}, (1.322407, 1.436919)),
        ("sppo", {}, (37.89, 60.5)),
        ("aot_unpaired", {}, (0.678260, 0.693147)),
        ("apo_zero", {}, (0.967513, 1.024995)),
        ("apo_down", {}, (0.980043, 1.012482)),
        ("discopop", {}, (0.860960, 0.787402)),
        ("dpo_norm", {}, (0.681549, 0.702566)),
        ("simpo", {"beta": 2.0, "margin": 1.0}, (1.567296, 0.523123)),
    ],
)
def test_two_pairs_have_the_losses_worked_out_by_hand(name, options, expected):
    found = PAIR_LOSSES[name](survey_pairs(), **options)
    if name == "aot_unpaired":  # rows are quantiles: compare as a set
        found = found.sort().values
    assert_allclose(found, expected, atol=6e-7)


def test_orpo_s_odds_term_is_the_one_worked_out_by_hand():
    pairs = survey_pairs()
    odds_term = PAIR_LOSSES["orpo"](pairs, odds_weight=1.0) - PAIR_LOSSES["sft_norm"](pairs)
    assert_allclose(odds_term, (0.795647, 0.367595), atol=6e-7)


def test_kto_of_single_responses_has_the_values_worked_out_by_hand():
    pairs = survey_pairs()
    ratios = torch.cat([pairs.chosen_ratio, pairs.rejected_ratio])
    loss = unpaired.kto(ratios, torch.tensor([True, True, False, False]), reference_kl=0.2)
    assert_allclose(loss, (0.492501, 0.517493, 0.475021, 0.507499), atol=6e-7)


def test_aot_compares_sorted_margins():
    pairs = PairLogps(numbers(1, -3.5, 0.2), numbers(0, 0, 0), numbers(-0.3, -2.5, 0.9), numbers(0, 0, 0))
    assert_allclose(PAIR_LOSSES["aot"](pairs).mean(), 0.700339, atol=6e-7)
    assert_allclose(PAIR_LOSSES["dpo"](pairs).mean(), 0.701138, atol=6e-7)


def at_reference():
    """One pair on which the policy is the reference, m = (-8, -12), |y| = (4, 6): means are -2 for both."""
    pair = {name: value[:1] for name, value in vars(full_pairs(n=1)).items()} | {
        "policy_chosen": numbers(-8), "policy_rejected": numbers(-12),
        "reference_chosen": numbers(-8), "reference_rejected": numbers(-12),
        "chosen_tokens": numbers(4), "rejected_tokens": numbers(6),
        "chosen_score": numbers(1), "rejected_score": numbers(0),
        "chosen_sequential_kl": numbers(0), "rejected_sequential_kl": numbers(0),
        "chosen_log_collision": numbers(-8), "rejected_log_collision": numbers(-12),
        "chosen_guided_ratio": numbers(0), "rejected_guided_ratio": numbers(0),
        "policy_sampled": numbers(-9), "reference_sampled": numbers(-9),
    }  # fmt: skip
    return PairLogps(**pair)


VALUE_AT_REFERENCE = {
    **dict.fromkeys(("dpo", "cdpo", "robust_dpo", "dpo_norm", "aot", "aot_unpaired", "beta_dpo", "odpo"), LOG2),
    **dict.fromkeys(("forward_kl_dpo", "js_dpo", "alpha_dpo", "chi_po", "dpop", "flex_dpo"), LOG2),
    **dict.fromkeys(("tdpo1", "tdpo2", "tgdpo", "wpo", "selm", "vpo", "infonca"), LOG2),
    **dict.fromkeys(("nca", "bco"), 2 * LOG2),
    **dict.fromkeys(("apo_zero", "apo_down", "kto_pair", "hinge"), 1.0),
    "ipo": 25.0,  # 1 / (4 beta^2)
    "ipo_norm": 25.0,
    "sppo": 50.0,
    "cal_dpo": LOG2 + 50.0,
    "discopop": 0.5 * (LOG2 + 1),
    "exo": -LOG2 - 0.5 * (math.log(0.999) + math.log(0.001)),
    "r_dpo": math.log1p(math.exp(0.02)),  # .01 * (4 - 6) is taken from 0
    "rpo": LOG2 + 0.005 * 0.1 * 8,
    "iterative_rpo": LOG2 + 2,
    "xpo": LOG2 - 1e-5 * 9,
    "simpo": 1.3132616875182228,  # log(1 + e)
    "alpha_po": 1.3132616875182228,
    "orpo": 2 + 0.1 * LOG2,
    "rrhf": 8.0,
    "sft": 8.0,
    "sft_norm": 2.0,
    "cpo": 0.5130152523999526 + 8,  # log(1 + e^-.4)
    "cpo_norm": 0.5130152523999526 + 2,
    "slic_hf": 0.8,  # max(0, 1 + 8 - 12) + .1 * 8
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_the_value_where_the_policy_is_the_reference(name):
    options = {"beta": 0.1} if name in ("rpo", "selm", "cal_dpo") else {}
    assert_allclose(PAIR_LOSSES[name](at_reference(), **options), [VALUE_AT_REFERENCE[name]], rtol=1e-12)


def frozen(name, pairs):
    """The loss with its detached factors held at these pairs' values, as autograd holds them."""
    if name == "beta_dpo":
        beta = margins.adaptive_beta(pairs, beta=0.1, scale=0.6, usual_reward_margin=0.0)
        return lambda moved: PAIR_LOSSES["dpo"](moved, beta=beta)
    if name == "wpo":
        weight = regularised.wpo_weight(pairs)
        return lambda moved: weight * PAIR_LOSSES["dpo"](moved)
    return PAIR_LOSSES[name]


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("exchanged", [False, True], ids=["as labelled", "exchanged"])
def test_gradients_are_those_of_finite_differences(name, exchanged):
    pairs = full_pairs()
    if exchanged:  # the other branch of hinges; scores stay, as they must be in order
        scores = {side: getattr(pairs, side) for side in ("chosen_score", "rejected_score")}
        pairs = replace(pairs.swapped(), **scores)
    held = frozen(name, pairs)
    point = torch.stack([pairs.policy_chosen, pairs.policy_rejected, pairs.policy_sampled])

    def at(loss, values):
        chosen, rejected, sampled = values
        return loss(replace(pairs, policy_chosen=chosen, policy_rejected=rejected, policy_sampled=sampled))

    leaf = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at(PAIR_LOSSES[name], leaf).sum(), leaf)
    step = 1e-5
    moves = step * torch.eye(point.numel(), dtype=point.dtype).reshape(-1, *point.shape)
    differences = torch.stack([(at(held, point + move) - at(held, point - move)).sum() for move in moves]) / (2 * step)
    assert_allclose(gradient.reshape(-1), differences, rtol=1e-6, atol=1e-7)
    assert gradient.abs().max() > 0


NOT_ORDERED = {
    "odpo",  # undefined where the rejected score is greater
    "infonca",  # the scores are its labels, and exchanged too
    "discopop",  # not monotone near 0
    "sft",  # read no rejected response
    "sft_norm",
}


@pytest.mark.parametrize("name", sorted(set(PAIR_LOSSES) - NOT_ORDERED))
def test_a_pair_costs_more_with_its_responses_exchanged(name):
    pairs = full_pairs(n=1, seed=3)  # AOT's rows are pairs in a batch of one
    same = pairs.reference_chosen  # equal references and lengths, so that nothing but the ratios and scores differ
    pairs = replace(
        pairs,
        policy_chosen=same + pairs.chosen_ratio,
        policy_rejected=same + pairs.rejected_ratio,
        reference_rejected=same,
        rejected_tokens=pairs.chosen_tokens,
        rejected_sequential_kl=pairs.chosen_sequential_kl,
        rejected_log_collision=pairs.chosen_log_collision,
    )
    loss = PAIR_LOSSES[name]
    assert loss(pairs) < loss(pairs.swapped())


def test_exchanging_the_responses_of_dpo_adds_the_margin():
    pairs = full_pairs()
    for name in ("dpo", "forward_kl_dpo", "js_dpo", "chi_po", "dpo_norm"):  # -log s(z) + log s(-z) = -z
        kept, exchanged = PAIR_LOSSES[name](pairs), PAIR_LOSSES[name](pairs.swapped())
        assert_allclose(torch.expm1(kept) * torch.expm1(exchanged), torch.ones(5), rtol=1e-9)
    assert_allclose(PAIR_LOSSES["dpo"](pairs) - PAIR_LOSSES["dpo"](pairs.swapped()), -0.1 * pairs.margin)
    mixed = 0.8 * PAIR_LOSSES["dpo"](pairs) + 0.2 * PAIR_LOSSES["dpo"](pairs.swapped())
    assert_allclose(PAIR_LOSSES["cdpo"](pairs, flip=0.2), mixed)


def test_infonca_reads_its_label_from_the_scores():
    pairs = full_pairs()
    assert_allclose(PAIR_LOSSES["infonca"](pairs.swapped()), PAIR_LOSSES["infonca"](pairs))


def test_discopop_is_not_monotone_but_ordered_at_wide_margins():
    near, wide = (PairLogps(*numbers(m, 0, 0, 0).unsqueeze(-1)) for m in (0.5, 50.0))
    loss = PAIR_LOSSES["discopop"]
    assert loss(near) > loss(near.swapped())
    assert loss(wide) < loss(wide.swapped())


def test_swapping_twice_changes_nothing():
    pairs = full_pairs()
    again = vars(pairs.swapped().swapped())
    assert all(torch.equal(value, again[name]) for name, value in vars(pairs).items())


@pytest.mark.parametrize("name", sorted(set(PAIR_LOSSES) - {"aot", "aot_unpaired"}))
def test_permuting_the_batch_permutes_the_losses(name):
    pairs, order = full_pairs(), torch.tensor([3, 0, 4, 1, 2])
    permuted = PairLogps(**{key: value[order] for key, value in vars(pairs).items()})
    assert_allclose(PAIR_LOSSES[name](permuted), PAIR_LOSSES[name](pairs)[order])


def test_aot_does_not_see_the_order_of_either_side():
    pairs, order = full_pairs(), torch.tensor([3, 0, 4, 1, 2])
    chosen = {f"{who}_chosen": getattr(pairs, f"{who}_chosen")[order] for who in ("policy", "reference")}
    moved = replace(pairs, **chosen)
    assert_allclose(PAIR_LOSSES["aot_unpaired"](moved), PAIR_LOSSES["aot_unpaired"](pairs))
    moved = replace(pairs, policy_chosen=pairs.policy_chosen[order], policy_rejected=pairs.policy_rejected[order])
    assert_allclose(PAIR_LOSSES["aot"](moved), PAIR_LOSSES["aot"](pairs))
    assert not torch.allclose(PAIR_LOSSES["dpo"](moved).sum(), PAIR_LOSSES["dpo"](pairs).sum())


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("cdpo", {"flip": 0.0}),
        ("robust_dpo", {"flip": 0.0}),
        ("odpo", {"scale": 0.0}),
        ("beta_dpo", {"scale": 0.0}),
        ("rpo", {"eta": 0.0, "beta": 0.1}),
        ("iterative_rpo", {"nll_weight": 0.0}),
        ("dpop", {"penalty": 0.0}),
        ("r_dpo", {"length_weight": 0.0}),
        ("tdpo2", {"drift_weight": 0.0}),
        ("tgdpo", {"guidance_weight": 0.0}),
        ("flex_dpo", {"rejected_beta": 0.1}),
        ("xpo", {"optimism": 0.0}),
        ("selm", {"optimism": 0.0, "beta": 0.1}),
        ("vpo", {"weight": 0.0}),
        ("infonca", {"temperature": 1e-3}),
        ("alpha_dpo", {"alpha": 1 + 1e-7}),
    ],
)
def test_losses_that_contain_dpo_become_it(name, off):
    pairs = full_pairs(seed=7)
    assert_allclose(PAIR_LOSSES[name](pairs, **off), PAIR_LOSSES["dpo"](pairs), rtol=1e-6)


def test_conservative_dpo_is_not_dpo():
    """Smoothing that is silently ignored is this family's best-known trap."""
    assert (PAIR_LOSSES["cdpo"](full_pairs()) > PAIR_LOSSES["dpo"](full_pairs()) + 1e-3).all()


def test_the_robust_loss_averages_over_flips_to_the_clean_one():
    pairs = full_pairs()
    robust = PAIR_LOSSES["robust_dpo"]
    mean = 0.7 * robust(pairs, flip=0.3) + 0.3 * robust(pairs.swapped(), flip=0.3)
    assert_allclose(mean, PAIR_LOSSES["dpo"](pairs))


@given(st.floats(-80, 80), st.floats(0.01, 2.0), st.floats(1e-4, 0.4))
@settings(max_examples=60, deadline=None)
def test_properties_over_margins(margin, beta, smoothing):
    pairs = PairLogps(numbers(margin), numbers(0), numbers(0), numbers(0))
    assert PAIR_LOSSES["exo"](pairs, beta=beta, smoothing=smoothing) >= -1e-12  # a KL
    for name in ("dpo", "hinge", "ipo", "discopop", "nca", "bco", "apo_zero", "apo_down", "sppo"):
        assert PAIR_LOSSES[name](pairs, beta=beta) >= 0
        assert torch.isfinite(PAIR_LOSSES[name](pairs, beta=beta)).all()


@pytest.mark.parametrize("name", sorted(set(PAIR_LOSSES) - {"odpo"}))
@pytest.mark.parametrize("far", [-3000.0, 3000.0])
def test_losses_and_gradients_stay_finite_in_float32_far_from_the_reference(name, far):
    """Log-ratios of thousands of nats are what long responses give."""
    pairs = PairLogps(**{key: value.float() for key, value in vars(full_pairs()).items()})
    references = {
        "reference_chosen": pairs.policy_chosen - far,
        "reference_rejected": pairs.policy_rejected + 0.5 * far,
    }
    drifted = replace(pairs, **references)
    leaf = drifted.policy_chosen.clone().requires_grad_()
    loss = PAIR_LOSSES[name](replace(drifted, policy_chosen=leaf))
    assert torch.isfinite(loss).all()
    assert loss.dtype == torch.float32
    assert torch.isfinite(torch.autograd.grad(loss.sum(), leaf)[0]).all()


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_losses_stay_on_their_device_and_read_no_value(name):
    """The meta device holds no numbers: .item() and a tensor of another device would raise."""
    pairs = PairLogps(**{key: value.to("meta", torch.float32) for key, value in vars(full_pairs()).items()})
    loss = PAIR_LOSSES[name](pairs)
    assert (loss.device.type, loss.dtype, loss.shape) == ("meta", torch.float32, (5,))


def test_no_gradient_flows_where_the_paper_stops_it():
    pairs = full_pairs()
    chosen = pairs.chosen_sequential_kl.clone().requires_grad_()
    rejected = pairs.rejected_sequential_kl.clone().requires_grad_()
    moved = replace(pairs, chosen_sequential_kl=chosen, rejected_sequential_kl=rejected)
    one = torch.autograd.grad(PAIR_LOSSES["tdpo1"](moved).sum(), (chosen, rejected))
    two = torch.autograd.grad(PAIR_LOSSES["tdpo2"](moved).sum(), (chosen, rejected), allow_unused=True)
    assert_allclose(one[0], -one[1])
    assert two[0] is None
    assert (two[1] > 0).all()


def test_a_missing_field_is_named():
    pairs = PairLogps(numbers(-8), numbers(-15))
    with pytest.raises(ValueError, match="reads reference_chosen, which was not given"):
        PAIR_LOSSES["dpo"](pairs)
    with pytest.raises(ValueError, match="reads chosen_tokens"):
        PAIR_LOSSES["simpo"](pairs)


def test_log_probabilities_a_token_are_refused():
    with pytest.raises(ValueError, match=r"policy_rejected has shape \(1, 3\).*Sum log-probabilities"):
        PairLogps(numbers(-8), torch.zeros(1, 3))


def test_undefined_limits_are_refused():
    with pytest.raises(ValueError, match="'simpo'"):
        PAIR_LOSSES["alpha_po"](full_pairs(), alpha=0.0)
    with pytest.raises(ValueError, match="'dpo'"):
        PAIR_LOSSES["alpha_dpo"](full_pairs(), alpha=1.0)
