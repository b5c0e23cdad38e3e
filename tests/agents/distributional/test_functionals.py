import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.agents.distributional import (
    FUNCTIONALS,
    CVaR,
    ExpectedUtility,
    Goal,
    Homeostasis,
    MeanVariance,
    OptimisticCVaR,
    StockGraph,
    make_functional,
    policy_iteration,
    value_iteration,
)
from prefenvs.agents.distributional.functionals import check_optimisable, describe_functional
from prefenvs.tasks.grid.ledge import ledge_world

ARGUMENTS = {"cvar": {"tau": 0.3}, "optimistic_cvar": {"tau": 0.3}, "expected_utility": {"f": np.tanh}}
EVERY = {name: make(**ARGUMENTS.get(name, {})) for name, make in FUNCTIONALS.items()}
VALUES = np.array([-3.0, -1.0, 0.0, 2.0, 5.0])


def laws(rng, n, d=None):
    """n laws on VALUES, or on as many vectors."""
    values = VALUES if d is None else rng.normal(size=(5, d))
    return values, rng.dirichlet(np.ones(5) / 2, size=n)


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_what_is_said_to_be_indifferent_is(name):
    functional, rng = EVERY[name], np.random.default_rng(0)
    values, many = laws(rng, 300, 2 if name == "homeostasis" else None)
    one, other, third = many[:100], many[100:200], many[200:]
    order = np.sign(functional(values, one) - functional(values, other))
    if functional.indifferent_to_mixtures:
        mixed = functional(values, 0.3 * one + 0.7 * third) - functional(values, 0.3 * other + 0.7 * third)
        np.testing.assert_array_equal(np.sign(mixed[abs(mixed) > 1e-12]), order[abs(mixed) > 1e-12])
    if functional.indifferent_to_gamma:
        scaled = functional(0.4 * values, one) - functional(0.4 * values, other)
        np.testing.assert_array_equal(np.sign(scaled[abs(scaled) > 1e-12]), order[abs(scaled) > 1e-12])


@pytest.mark.parametrize("functional", [CVaR(0.3), OptimisticCVaR(0.3), MeanVariance()], ids=repr)
def test_what_is_said_not_to_be_indifferent_to_mixtures_is_not(functional):
    rng = np.random.default_rng(0)
    values, many = laws(rng, 3000)
    one, other, third = many[:1000], many[1000:2000], many[2000:]
    order = functional(values, one) > functional(values, other)
    mixed = functional(values, (one + third) / 2) > functional(values, (other + third) / 2)
    assert (order != mixed).any()


@pytest.mark.parametrize("name", [name for name in FUNCTIONALS if name != "homeostasis"])
def test_laws_are_judged_in_batches_and_values_in_any_order(name):
    functional, rng = EVERY[name], np.random.default_rng(1)
    values, many = laws(rng, 6)
    together = functional(values, many.reshape(2, 3, 5))
    order = rng.permutation(5)
    for i, law in enumerate(many):
        assert functional(values[order], law[order]) == pytest.approx(together.reshape(-1)[i], abs=1e-12)


@given(st.floats(0.01, 1.0), st.integers(0, 1000))
def test_cvar_is_the_maximum_over_b_of_rockafellar_and_uryasev(tau, seed):
    values, many = laws(np.random.default_rng(seed), 1)
    by_b = [b + many[0] @ np.minimum(values - b, 0) / tau for b in values]  # the best b is an outcome
    assert CVaR(tau)(values, many[0]) == pytest.approx(max(by_b), abs=1e-9)
    by_b = [b + many[0] @ np.maximum(values - b, 0) / tau for b in values]
    assert OptimisticCVaR(tau)(values, many[0]) == pytest.approx(min(by_b), abs=1e-9)


def test_hand_computed_values():
    values, law = np.array([-4.0, 1.0, 2.0]), np.array([0.25, 0.25, 0.5])
    expected = {
        "mean": 0.25,
        "shortfall": -1.0,
        "excess": 1.25,
        "target": -2.25,
        "goal": 0.75,
        "cvar": (0.25 * -4 + 0.05 * 1) / 0.3,
        "optimistic_cvar": 2.0,
        "mean_variance": 0.25 - (0.25 * 16 + 0.25 + 2 - 0.25**2),
    }
    assert {name: float(EVERY[name](values, law)) for name in expected} == pytest.approx(expected)
    vectors = np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0]])
    assert Homeostasis(2)(vectors, law) == pytest.approx(-(0.25 * 5 + 0.5 * 2**0.5))
    assert Homeostasis(1)(vectors, law) == pytest.approx(-(0.25 * 7 + 0.5 * 2))
    assert Homeostasis(np.inf)(vectors, law) == pytest.approx(-(0.25 * 4 + 0.5))
    assert Goal()(vectors, law) == 0.75


@pytest.mark.parametrize(
    ("functional", "gamma", "message"),
    [
        (MeanVariance(), 1.0, "not indifferent to mixtures.*expected utility with f concave"),
        (CVaR(0.1), 1.0, "not indifferent to mixtures.*best_cvar"),
        (OptimisticCVaR(0.1), 1.0, "not indifferent to mixtures.*best_optimistic_cvar"),
        (ExpectedUtility(np.tanh), 0.9, "not indifferent to gamma, and gamma=0.9.*positively homogeneous"),
    ],
)
def test_what_cannot_be_optimised_is_refused_with_the_reason(functional, gamma, message):
    graph = StockGraph.build(ledge_world(gamma).mdp, 2, [0.0])
    for solve in (value_iteration, policy_iteration):
        with pytest.raises(ValueError, match=message):
            solve(graph, functional)


def test_a_cut_off_of_endless_episodes_needs_a_lipschitz_functional():
    check_optimisable(EVERY["target"], 0.9, endless=True)
    with pytest.raises(ValueError, match=r"not Lipschitz.*Give a horizon"):
        check_optimisable(Goal(), 0.9, endless=True)


def test_vector_rewards_and_functionals_of_scalars_do_not_go_together():
    mdp = ledge_world().mdp
    graph = StockGraph.build(mdp, 2, np.zeros((1, 4)), mdp.features)
    with pytest.raises(ValueError, match="Vector rewards need a functional of vectors"):
        value_iteration(graph, EVERY["mean"])


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_lies_between_0_and_1(tau):
    with pytest.raises(ValueError, match="not a fraction of outcomes"):
        CVaR(tau)


def test_functionals_go_by_name():
    assert make_functional("goal") == Goal()
    assert make_functional({"name": "cvar", "tau": 0.2}) == CVaR(0.2)
    with pytest.raises(ValueError, match=r"functional='cvarr' is not known.*Did you mean 'cvar'"):
        make_functional("cvarr")


@pytest.mark.parametrize("name", [name for name in FUNCTIONALS if name != "expected_utility"])
def test_a_functional_is_made_again_from_its_description(name):
    assert make_functional(describe_functional(EVERY[name])) == EVERY[name]


def test_a_function_cannot_be_written_down():
    with pytest.raises(ValueError, match=r"cannot be written as JSON.*register it"):
        describe_functional(EVERY["expected_utility"])
