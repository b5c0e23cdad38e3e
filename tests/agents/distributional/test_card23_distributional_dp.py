"""Golden case: reward 0 or 2 with probability 1/2, then safe (0) or gamble (+2 or -1); gamma = 1, tau = 0.75."""

import numpy as np
import pytest

from prefenvs.agents.distributional import (
    CVaR,
    Mean,
    Shortfall,
    StockGraph,
    best_cvar,
    best_markov_cvar,
    evaluate,
    nested_cvar,
    stepwise,
    value_iteration,
)
from prefenvs.tasks.grid.tabular import TabularMDP

TAU = 0.75
START, LOW, HIGH, CHOICE, END, WON, LOST = range(7)
SAFE, GAMBLE = 0, 1


def lottery():
    """The first reward is forgotten by the state: LOW and HIGH are the choice's state entered with 0 and with 2."""
    transitions, rewards = np.zeros((7, 2, 7)), np.zeros((7, 2, 7))
    transitions[START, :, [LOW, HIGH]] = 0.5
    rewards[START, :, HIGH] = 2.0
    transitions[[LOW, HIGH], :, CHOICE] = 1.0
    transitions[CHOICE, SAFE, END] = 1.0
    transitions[CHOICE, GAMBLE, [WON, LOST]] = 0.5
    rewards[CHOICE, GAMBLE, WON], rewards[CHOICE, GAMBLE, LOST] = 2.0, -1.0
    terminal = np.arange(7) >= END
    transitions[terminal, :, END] = 1.0
    return TabularMDP(transitions, rewards, 1.0, np.eye(7)[START], terminal)


def test_the_optimum_gambles_only_after_0_and_has_a_cvar_of_exactly_1():
    found = best_cvar(lottery(), TAU, 3)
    part = found.parts[0]
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert part.initial_stock == -2.0  # b = 2
    assert part.solution.action(2, CHOICE, -2.0) == GAMBLE  # after 0
    assert part.solution.action(2, CHOICE, 0.0) == SAFE  # after 2
    values, probabilities = found.return_law()
    np.testing.assert_array_equal(values, [-1.0, 2.0])
    np.testing.assert_allclose(probabilities, [0.25, 0.75], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("after_0", "after_2", "cvar"),
    [(SAFE, SAFE, 2 / 3), (GAMBLE, GAMBLE, 2 / 3), (SAFE, GAMBLE, 1 / 3), (GAMBLE, SAFE, 1.0)],
)
def test_the_four_policies_have_their_hand_computed_cvar(after_0, after_2, cvar):
    graph = StockGraph.build(lottery(), 3, [0.0])
    policy = [
        np.where((level.states == CHOICE) & (level.stocks[:, 0] > 0), after_2, after_0) for level in graph.levels[:-1]
    ]
    assert float(CVaR(TAU)(*evaluate(graph, policy).return_law())) == pytest.approx(cvar, abs=1e-12)


def test_no_policy_of_the_state_alone_and_no_nested_cvar_gets_beyond_two_thirds():
    mdp = lottery()
    assert best_markov_cvar(mdp, TAU, 3)[0] == pytest.approx(2 / 3, abs=1e-12)
    nested = stepwise(StockGraph.build(mdp, 3, [0.0]), nested_cvar(mdp, TAU, 3))
    assert float(CVaR(TAU)(*nested.return_law())) == pytest.approx(2 / 3, abs=1e-12)


@pytest.mark.parametrize("after_0", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("after_2", [0.0, 0.3, 1.0])
def test_randomising_cannot_beat_it(after_0, after_2):
    graph = StockGraph.build(lottery(), 3, [0.0])
    policy = []
    for level in graph.levels[:-1]:
        gamble = np.where((level.states == CHOICE) & (level.stocks[:, 0] > 0), after_2, after_0)
        policy.append(np.stack([1 - gamble, gamble], axis=1))
    assert float(CVaR(TAU)(*evaluate(graph, policy).return_law())) < 1.0


def test_the_mean_gambles_whatever_the_stock():
    graph = StockGraph.build(lottery(), 3, np.arange(-6.0, 7.0))
    solution = value_iteration(graph, Mean())
    level = graph.levels[2]
    assert (solution.policy[2][level.states == CHOICE] == GAMBLE).all()
    np.testing.assert_allclose(solution.start_values(Mean()), np.arange(-6.0, 7.0) + 1.5, rtol=0, atol=1e-12)


def test_the_discount_divides_the_stock():
    # gamma = 1/2 and b = 2: after a first reward r the stock is (-2 + r) / gamma, after one step more 4 (r - 2). The
    # gamble then counts a quarter, in units of the start: -2 + r / 1 + (2 or -1) / 4.
    mdp = lottery()
    half = TabularMDP(mdp.transitions, mdp.rewards, 0.5, mdp.start, mdp.terminal)
    graph = StockGraph.build(half, 3, [-2.0])
    np.testing.assert_array_equal(np.unique(graph.levels[2].stocks), [-8.0, 0.0])
    np.testing.assert_array_equal(graph.atoms, [-2.25, -2.0, -1.5, -0.25, 0.0, 0.5])
    # Shortfall: after 0 gambling gives (-2.25 - 1.5) / 2 > -2, after 2 safety gives 0 > -0.125.
    best = value_iteration(graph, Shortfall()).start_values(Shortfall())[0]
    assert best == pytest.approx(0.5 * -1.875 + 0.5 * 0.0, abs=1e-12)
