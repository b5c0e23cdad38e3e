import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.queries import (
    STRATEGIES,
    Candidates,
    disagreement,
    entropy,
    hybrid,
    k_centre,
    queries_to_ask,
    sessions,
    uniform,
)


def candidates(seed=0, c=60, labelled=5, d=4):
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=(3, c))
    return Candidates(np.stack([p, 1 - p], -1), rng.normal(size=(c, d)), rng.normal(size=(labelled, d)))


def of_probabilities(*members):
    """Candidates from each member's (c,) probability that the first of two segments is preferred."""
    p = np.array(members)
    return Candidates(np.stack([p, 1 - p], -1), np.zeros((p.shape[1], 1)), np.zeros((0, 1)))


def greedy_centres(features, labelled, n):
    """The farthest-first traversal by its definition, all distances anew at each pick; needs `labelled` to start."""
    centres, chosen = list(labelled), []
    for _ in range(n):
        nearest = [min(np.linalg.norm(x - centre) for centre in centres) for x in features]
        chosen.append(int(np.argmax(nearest)))
        centres.append(features[chosen[-1]])
    return chosen


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("labelled", [0, 5])
def test_a_strategy_picks_different_candidates_repeatably(name, labelled):
    found = candidates(labelled=labelled)
    chosen = STRATEGIES[name](found, 10, np.random.default_rng(0))
    assert chosen.shape == (10,)
    assert len(set(chosen.tolist())) == 10
    assert set(chosen.tolist()) <= set(range(60))
    np.testing.assert_array_equal(STRATEGIES[name](found, 10, np.random.default_rng(0)), chosen)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_asked_for_all_candidates_gives_all(name):
    chosen = STRATEGIES[name](candidates(c=8), 8, np.random.default_rng(0))
    assert sorted(chosen.tolist()) == list(range(8))


def test_uniform_is_fair():
    rng = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([uniform(candidates(c=5), 2, rng) for _ in range(2000)]), minlength=5)
    # Each is picked with probability 2/5: 800 +- 22 of 2000. Five standard deviations either way.
    assert (abs(counts - 800) < 110).all()


def test_disagreement_and_entropy_differ_as_they_should():
    found = of_probabilities([1.0, 0.0, 0.5], [1.0, 1.0, 0.5])  # sure, split, unsure
    rng = np.random.default_rng(0)
    assert disagreement(found, 1, rng).tolist() == [1]
    assert entropy(found, 1, rng).tolist() == [2]


def test_disagreement_orders_by_standard_deviation():
    # Standard deviations over two members are half the gap: 0.1, 0.4, 0.2, 0.0.
    found = of_probabilities([0.4, 0.1, 0.9, 0.3], [0.6, 0.9, 0.5, 0.3])
    assert disagreement(found, 4, np.random.default_rng(0)).tolist() == [1, 2, 0, 3]


def test_entropy_orders_by_the_mean_of_the_members_entropies():
    # H(p) in nats: H(.5) = .693, H(.9) = .325, H(0) = 0. Means: (.693 + 0)/2 = .347, .325, 0, .509.
    found = of_probabilities([0.5, 0.9, 0.0, 0.5], [0.0, 0.9, 0.0, 0.1])
    assert entropy(found, 4, np.random.default_rng(0)).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_k_centre_equals_the_greedy_reference(seed):
    found = candidates(seed, labelled=300)  # more than the block in which distances are taken
    assert k_centre(found, 12, np.random.default_rng(0)).tolist() == greedy_centres(found.features, found.labelled, 12)


def test_k_centre_starts_at_random_where_nothing_was_labelled_and_goes_on_greedily():
    found = candidates(labelled=0)
    first, *rest = k_centre(found, 12, np.random.default_rng(3)).tolist()
    assert rest == greedy_centres(found.features, found.features[[first]], 11)
    assert len({int(k_centre(found, 1, np.random.default_rng(seed))[0]) for seed in range(10)}) > 3


def test_hybrid_keeps_a_share_by_one_strategy_and_picks_by_the_other():
    found = candidates()
    kept = disagreement(found, 30, np.random.default_rng(0))
    expected = kept[greedy_centres(found.features[kept], found.labelled, 7)]
    np.testing.assert_array_equal(hybrid(disagreement, k_centre)(found, 7, np.random.default_rng(0)), expected)
    np.testing.assert_array_equal(STRATEGIES["disagreement_k_centre"](found, 7, np.random.default_rng(0)), expected)


def test_hybrid_keeps_as_many_as_are_asked_for():
    chosen = hybrid(entropy, uniform, keep=0.01)(candidates(), 9, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(chosen), np.sort(entropy(candidates(), 9, np.random.default_rng(0))))


@pytest.mark.parametrize(("wanted", "remaining", "asked"), [
    (None, math.inf, 7), (None, 30, 30), (None, 0, 0), (20, math.inf, 20), (20, 30, 20), (20, 5, 5),
])  # fmt: skip
def test_queries_to_ask_are_those_wanted_or_all_that_remain(wanted, remaining, asked):
    assert queries_to_ask(wanted, remaining, otherwise=7) == asked


def test_sessions_by_hand():
    assert sessions("constant", 12, 3) == [4, 4, 4]
    assert sessions("growing", 12, 3) == [2, 4, 6]  # 1 : 2 : 3
    assert sessions("decaying", 22, 3) == [12, 6, 4]  # 1 : 1/2 : 1/3
    assert sessions("growing", 5, 1) == [5]


@given(st.sampled_from(["constant", "decaying", "growing"]), st.integers(0, 2000), st.integers(1, 60))
def test_sessions_spend_the_budget_and_keep_their_shape(kind, budget, count):
    sizes = sessions(kind, budget, count)
    assert len(sizes) == count
    assert sum(sizes) == budget
    assert min(sizes) >= 0
    steps = np.diff(sizes)
    slack = 1  # rounding moves a session by one
    assert {"constant": (abs(steps) <= slack), "decaying": steps <= slack, "growing": steps >= -slack}[kind].all()


def test_an_unknown_schedule_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"schedule='constnat' is not known\..*Did you mean 'constant'"):
        sessions("constnat", 10, 2)
