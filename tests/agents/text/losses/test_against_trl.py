"""Losses beside those of TRL 1.16.0's trainers, which `tests/agents/text/golden/make_trl.py` recorded."""

import json
from pathlib import Path

import pytest
import torch
from numpy.testing import assert_allclose

from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps, unpaired

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/trl.json").read_text(encoding="utf-8"))
DIRECT, REFERENCE_FREE = GOLDEN["direct"], GOLDEN["reference_free"]
OPTIONS = {
    "exo": {"smoothing": GOLDEN["smoothing"]},
    "robust_dpo": {"flip": GOLDEN["smoothing"]},
    "alpha_dpo": {"alpha": 0.5},
    "iterative_rpo": {"nll_weight": 0.7},
    "cpo_norm": {"nll_weight": 0.7},
    "simpo": {"margin": 0.5},
    "alpha_po": {"margin": 0.5, "alpha": 0.25},
}
# float32 through two different forward passes, of log-probabilities of about 30 nats
TOLERANCE = {"rtol": 3e-5, "atol": 3e-6}


def pairs_of(golden):
    return PairLogps(**{name: torch.tensor(value, dtype=torch.float64) for name, value in golden["pairs"].items()})


@pytest.mark.parametrize("name", DIRECT["losses"])
def test_losses_with_a_reference_equal_trl_s(name):
    beta = {} if name == "sft_norm" else {"beta": DIRECT["beta"]}
    loss = PAIR_LOSSES[name](pairs_of(DIRECT), **beta, **OPTIONS.get(name, {}))
    theirs = DIRECT["losses"][name]
    assert_allclose(loss.mean(0, keepdim=True) if name.startswith("aot") else loss, theirs, **TOLERANCE)


@pytest.mark.parametrize("name", sorted(set(REFERENCE_FREE["losses"]) - {"orpo_odds_term"}))
def test_losses_without_a_reference_equal_trl_s(name):
    loss = PAIR_LOSSES[name](pairs_of(REFERENCE_FREE), beta=REFERENCE_FREE["beta"], **OPTIONS[name])
    assert_allclose(loss, REFERENCE_FREE["losses"][name], **TOLERANCE)


def test_orpo_s_odds_term_equals_trl_s():
    pairs = pairs_of(REFERENCE_FREE)
    term = PAIR_LOSSES["orpo"](pairs, odds_weight=REFERENCE_FREE["beta"]) - PAIR_LOSSES["sft_norm"](pairs)
    assert_allclose(term, REFERENCE_FREE["losses"]["orpo_odds_term"], **TOLERANCE)


def test_kto_equals_trl_s():
    golden = GOLDEN["kto"]
    ratios, mismatched = (torch.tensor(golden[key], dtype=torch.float64) for key in ("ratios", "mismatched_ratios"))
    weights = {key: golden[key] for key in ("beta", "desirable_weight", "undesirable_weight")}
    reference_kl = unpaired.kto_reference_kl(mismatched)
    loss = unpaired.kto(ratios, torch.tensor(golden["desirable"]), reference_kl=reference_kl, **weights)
    assert_allclose(loss.mean(), golden["mean_loss"], **TOLERANCE)


def test_the_recorded_pairs_tell_the_losses_apart():
    losses = [tuple(values) for values in DIRECT["losses"].values()]
    assert len(set(losses)) == len(losses)
