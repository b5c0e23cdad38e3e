import numpy as np
import pytest

from prefenvs.queries import STRATEGIES, Candidates, k_centre, sessions


def candidates(seed=0, c=60, labelled=5):
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=(3, c))
    return Candidates(np.stack([p, 1 - p], -1), rng.normal(size=(c, 4)), rng.normal(size=(labelled, 4)))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_picks_different_candidates(name):
    chosen = STRATEGIES[name](candidates(), 10, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 10


def test_disagreement_and_entropy_differ_as_they_should():
    sure, split, unsure = [[1.0, 1.0], [0.0, 1.0], [0.5, 0.5]]  # P of two members for three candidates
    p = np.array([sure, split, unsure]).T
    found = Candidates(np.stack([p, 1 - p], -1), np.zeros((3, 1)), np.zeros((0, 1)))
    rng = np.random.default_rng(0)
    assert STRATEGIES["disagreement"](found, 1, rng).tolist() == [1]
    assert STRATEGIES["entropy"](found, 1, rng).tolist() == [2]


def test_k_centre_equals_the_greedy_reference():
    found = candidates()
    chosen = k_centre(found, 12, np.random.default_rng(0)).tolist()
    centres = [*found.labelled]
    for index in chosen:
        nearest = [min(np.linalg.norm(x - centre) for centre in centres) for x in found.features]
        assert nearest[index] == pytest.approx(max(nearest))
        centres.append(found.features[index])


@pytest.mark.parametrize("kind", ["constant", "decaying", "growing"])
def test_sessions_spend_the_budget(kind):
    sizes = sessions(kind, 203, 7)
    assert sum(sizes) == 203
    order = {"constant": 0, "decaying": -1, "growing": 1}[kind]
    assert np.sign(sizes[-1] - sizes[0]) == order or kind == "constant"


def test_an_unknown_schedule_suggests_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'constant'"):
        sessions("constnat", 10, 2)
