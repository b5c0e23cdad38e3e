import itertools

import numpy as np
import pytest

from prefenvs.studies import regret_preferences as study
from prefenvs.tasks.grid.random_mdp import random_lottery_grid
from prefenvs.tasks.grid.sampling import random_segments
from prefenvs.tasks.grid.solvers import policy_iteration
from prefenvs.teacher import draws_needed


def tables(shares, moved=0.5):
    """Tables in which an arm's share of near-optimal grids is as given, a little different by seed."""
    rng, found = np.random.default_rng(0), {}
    for arm, share in shares.items():
        oracle, learner = (moved * (model == "regret") for model in arm.split(" to "))
        row = {"noise": "noiseless", "labels": 100, "enough": True, "labels moved": oracle, "model moved": learner}
        found[arm] = {s: [{**row, "near optimal": share + 0.01 * rng.normal()}] for s in study.SEEDS["full"]}
    return found


SHARES = {
    "regret to regret": 0.95,
    "regret to partial_return": 0.6,
    "partial_return to regret": 0.3,
    "partial_return to partial_return": 0.5,
}


def test_the_claim_holds_where_it_should_and_not_when_arms_are_exchanged():
    assert set(SHARES) == set(study.arms("full")) == set(study.arms("smoke"))
    assert study.check(tables(SHARES)).outcome == "holds"
    found = tables(SHARES)
    for labels in list(itertools.permutations(found))[1:]:
        assert study.check(dict(zip(labels, found.values(), strict=True))).outcome != "holds", labels


def test_what_a_constant_changes_tells_arms_apart_where_their_shares_do_not():
    # Learners by regret do better on both kinds of labels: the claim fails, and exchanging the learners is no way out.
    found = tables({**SHARES, "partial_return to regret": 0.7})
    assert study.check(found).outcome == "fails"
    for labels in list(itertools.permutations(found))[1:]:
        assert study.check(dict(zip(labels, found.values(), strict=True))).outcome != "holds", labels


def test_a_gain_below_the_margin_fails():
    assert study.check(tables({**SHARES, "regret to regret": 0.65})).outcome == "fails"


def test_answers_by_regret_that_a_constant_hardly_changes_fail():
    assert study.check(tables(SHARES, moved=0.2)).outcome == "fails"


def test_fewer_labels_and_noisy_ones_do_not_count():
    found = tables(SHARES)
    for by_seed in found.values():
        for table in by_seed.values():
            table += [
                {**table[0], "noise": "logistic", "labels": 300, "near optimal": 0.0},
                {**table[0], "labels": 10, "enough": False, "near optimal": 0.0},
            ]
    assert study.check(found) == study.check(tables(SHARES))


def shown(mdp, count, seed=1):
    rng = np.random.default_rng(seed)
    return random_segments(mdp, 2 * count, 3, rng), rng.random((count, draws_needed(2)))


def test_noiseless_labels_follow_the_scores_and_tie_where_both_are_optimal():
    mdp = random_lottery_grid(np.random.default_rng(0)).mdp
    (states, actions, mask), uniforms = shown(mdp, 300)
    v, q = policy_iteration(mdp)
    gaps = np.where(mask, (q - v[:, None])[states[:, :-1], actions], 0.0)
    difference = np.diff(gaps.sum(1).reshape(-1, 2), axis=1)[:, 0]
    choice = study.answers(mdp, "regret", (states, actions, mask), uniforms)
    np.testing.assert_array_equal(choice[:, 1], np.where(np.abs(difference) < 1e-9, 0.5, difference > 0))
    assert (np.abs(difference) < 1e-9).any()


def test_logistic_labels_follow_the_law():
    mdp = random_lottery_grid(np.random.default_rng(0)).mdp
    one, _ = shown(mdp, 1, seed=3)
    many = tuple(np.tile(array, (20_000, 1)) for array in one)
    uniforms = np.random.default_rng(4).random((20_000, draws_needed(2)))
    states, actions, mask = one
    first, second = (mdp.rewards[states[:, :-1], actions, states[:, 1:]] * mask).sum(1)
    share = study.answers(mdp, "partial_return", many, uniforms, beta=1.0)[:, 0].mean()
    assert abs(share - 1 / (1 + np.exp(second - first))) < 4 * np.sqrt(0.25 / 20_000)


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_changes_answers_by_regret_alone(seed):
    for _, mdp in study.problems(seed, "smoke"):
        seen = shown(mdp, 200)
        assert study.moved(mdp, "partial_return", *seen) == 0
        assert study.moved(mdp, "regret", *seen) > 0.05


@pytest.mark.parametrize("arm", study.arms("smoke"))
def test_a_smoke_run_gives_a_row_for_each_setting_and_repeats(arm):
    rows = study.run(arm, 0, "smoke")
    assert len(rows) == 2 * len(study.BETAS) * len(study.LABELS["smoke"])  # kinds of grids
    assert all(row["normalised return"] <= 1 + 1e-6 for row in rows)
    assert rows == study.run(arm, 0, "smoke")
