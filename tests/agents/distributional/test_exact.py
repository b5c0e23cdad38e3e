"""The exact solvers against every history-dependent policy of small random problems, one after the other."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from prefenvs.agents.distributional import (
    CVaR,
    Excess,
    ExpectedUtility,
    Goal,
    Homeostasis,
    Mean,
    OptimisticCVaR,
    Shortfall,
    StockGraph,
    Target,
    best_cvar,
    best_optimistic_cvar,
    cvar_of,
    evaluate,
    markov,
    policy_iteration,
    shortfall_graph,
    truncation,
    value_iteration,
)
from prefenvs.tasks.grid.ledge import ledge_world
from prefenvs.tasks.grid.solvers import policy_evaluation, q_values, uniform_policy
from prefenvs.tasks.grid.tabular import TabularMDP


def random_mdp(rng, gamma=1.0, d=None, integers=True, states=3, actions=2, outcomes=2):
    """A random MDP that starts in state 0 and ends in the last, with rewards or `d` features, integer or not."""
    transitions = np.zeros((states, actions, states))
    for s, a in itertools.product(range(states), range(actions)):
        transitions[s, a, rng.choice(states, outcomes, replace=False)] = rng.dirichlet(np.ones(outcomes))
    shape = (states, actions, states, d or 1)
    phi = rng.integers(-3, 4, shape).astype(float) if integers else rng.normal(size=shape)
    weights, terminal = np.ones(d or 1), np.arange(states) == states - 1
    return TabularMDP(transitions, phi @ weights, gamma, np.eye(states)[0], terminal, phi, weights)


def every_return_law(mdp, horizon, rewards):
    """(values, probabilities) of the return of each deterministic history-dependent policy, values not merged."""

    def laws(state, steps):
        if mdp.terminal[state] or steps == 0:
            return [[(1.0, np.zeros(rewards.shape[3:]))]]
        found = []
        for action in range(mdp.num_actions):
            ends = np.flatnonzero(mdp.transitions[state, action])
            # What is done after one outcome is chosen freely of what is done after another: that is a history.
            for choice in itertools.product(*(laws(end, steps - 1) for end in ends)):
                pairs = [(end, p, g) for end, law in zip(ends, choice, strict=True) for p, g in law]
                found.append(
                    [
                        (mdp.transitions[state, action, end] * p, rewards[state, action, end] + mdp.gamma * g)
                        for end, p, g in pairs
                    ]
                )
        return found

    return [(np.array([g for _, g in law]), np.array([p for p, _ in law])) for law in laws(0, horizon)]


def best_of(laws, functional, stock):
    return max(float(functional(stock + values, probabilities)) for values, probabilities in laws)


SCALAR = [
    Mean(),
    Shortfall(),
    Excess(),
    Target(),
    Goal(),
    ExpectedUtility(lambda x: -(x**2), homogeneous=True),
]
ANY = ExpectedUtility(lambda x: np.sin(x) + 0.3 * x)
STOCKS = np.array([-4.0, -1.5, 0.0, 2.0])


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(12))
def test_value_iteration_is_as_good_as_the_best_history_dependent_policy(seed, gamma):
    mdp = random_mdp(np.random.default_rng(seed), gamma, integers=seed % 3 > 0)
    laws = every_return_law(mdp, 3, mdp.rewards)
    graph = StockGraph.build(mdp, 3, STOCKS)
    for functional in SCALAR + [ANY] * (gamma == 1):
        expected = [best_of(laws, functional, stock) for stock in STOCKS]
        solution = value_iteration(graph, functional)
        np.testing.assert_allclose(solution.start_values(functional), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            policy_iteration(graph, functional).start_values(functional), expected, rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_as_good_over_four_steps(seed):
    mdp = random_mdp(np.random.default_rng(100 + seed))
    laws = every_return_law(mdp, 4, mdp.rewards)
    graph = StockGraph.build(mdp, 4, STOCKS)
    for functional in (Target(), Shortfall()):
        expected = [best_of(laws, functional, stock) for stock in STOCKS]
        found = value_iteration(graph, functional).start_values(functional)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
@pytest.mark.parametrize("seed", range(4))
def test_several_stocks_at_once_are_optimised_together(seed, p):
    mdp = random_mdp(np.random.default_rng(200 + seed), d=2)
    laws = every_return_law(mdp, 3, mdp.features)
    stocks = np.array([[-1.0, 2.0], [0.0, 0.0]])
    graph = StockGraph.build(mdp, 3, stocks, mdp.features)
    for functional in (Homeostasis(p), Goal()):
        expected = [best_of(laws, functional, stock) for stock in stocks]
        found = value_iteration(graph, functional).start_values(functional)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(8))
def test_no_history_dependent_policy_has_a_better_cvar(seed, gamma):
    mdp = random_mdp(np.random.default_rng(300 + seed), gamma)
    laws = every_return_law(mdp, 3, mdp.rewards)
    for tau in (0.1, 0.4, 1.0):
        found = best_cvar(mdp, tau, 3)
        assert found.value == pytest.approx(best_of(laws, CVaR(tau), 0.0), abs=1e-12)
        assert float(CVaR(tau)(*found.return_law())) == pytest.approx(found.value, abs=1e-12)


def best_mixture(laws, tau):
    """The greatest optimistic CVaR of a mixture of laws, as a linear program in weights and the best tau of mass."""
    values, place = np.unique(np.concatenate([law[0] for law in laws]), return_inverse=True)
    policy = np.repeat(np.arange(len(laws)), [len(law[0]) for law in laws])
    mass = np.zeros((len(values), len(laws)))
    np.add.at(mass, (place, policy), np.concatenate([law[1] for law in laws]))
    n, k = mass.shape
    total = np.zeros((2, k + n))
    total[0, :k], total[1, k:] = 1.0, 1.0
    done = linprog(
        np.concatenate([np.zeros(k), -values / tau]),
        A_ub=np.hstack([-mass, np.eye(n)]),
        b_ub=np.zeros(n),
        A_eq=total,
        b_eq=[1.0, tau],
    )
    return -done.fun


@pytest.mark.parametrize("seed", range(6))
def test_no_mixture_of_policies_has_a_better_optimistic_cvar(seed):
    mdp = random_mdp(np.random.default_rng(400 + seed))
    laws = every_return_law(mdp, 3, mdp.rewards)
    for tau in (0.1, 0.4, 1.0):
        found = best_optimistic_cvar(mdp, tau, 3)
        assert found.value == pytest.approx(best_mixture(laws, tau), abs=1e-9)
        assert float(OptimisticCVaR(tau)(*found.return_law())) == pytest.approx(found.value, abs=1e-9)
        assert found.value >= best_of(laws, OptimisticCVaR(tau), 0.0) - 1e-12


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_the_mean_is_ordinary_value_iteration_whatever_the_stock(gamma):
    mdp = random_mdp(np.random.default_rng(5), gamma, states=5, actions=3)
    graph = StockGraph.build(mdp, 4, STOCKS)
    solution, v = value_iteration(graph, Mean()), np.zeros(mdp.num_states)
    for level, actions in zip(reversed(graph.levels[:-1]), reversed(solution.policy), strict=True):
        q = q_values(mdp, v)
        over = level.atoms >= 0
        np.testing.assert_array_equal(actions[~over], q.argmax(axis=-1)[level.states[~over]])
        v = q.max(axis=-1)
    np.testing.assert_allclose(solution.start_values(Mean()), STOCKS + v[0], rtol=0, atol=1e-12)


def test_cvar_of_everything_is_the_mean():
    mdp = ledge_world().mdp
    mean = value_iteration(StockGraph.build(mdp, 12, [0.0]), Mean()).start_values(Mean())[0]
    shortfalls = value_iteration(shortfall_graph(mdp, 12), Shortfall())
    assert cvar_of(shortfalls, 1.0).value == pytest.approx(mean, abs=1e-12)
    tails = [cvar_of(shortfalls, tau).value for tau in (0.05, 0.2, 0.5, 1.0)]
    assert tails == sorted(tails)
    assert best_optimistic_cvar(mdp, 1.0, 12).value == pytest.approx(mean, abs=1e-12)


def test_a_policy_of_the_state_alone_has_the_value_that_the_linear_system_gives():
    world = ledge_world(gamma=0.5).mdp  # halves: stocks stay exact, and thirty steps leave 1e-8
    policy = uniform_policy(world)
    shorter = TabularMDP(world.transitions, world.rewards, 0.5, world.start, world.terminal)
    graph = StockGraph.build(shorter, 6, [0.0])
    mean = evaluate(graph, markov(graph, policy)).start_values(Mean())[0]
    assert abs(mean - world.start @ policy_evaluation(world, policy)) <= truncation(world, 6)


def test_the_bound_on_a_cut_off_is_reached_by_a_constant_reward():
    once = np.ones((1, 1, 1))
    mdp = TabularMDP(once, 2 * once, 0.5, np.ones(1), np.zeros(1, bool))
    graph = StockGraph.build(mdp, 5, [0.0])
    mean = value_iteration(graph, Mean()).start_values(Mean())[0]
    assert 2 / (1 - 0.5) - mean == pytest.approx(truncation(mdp, 5), abs=1e-12)
    assert truncation(ledge_world().mdp, 5) == np.inf


def test_actions_can_be_looked_up_and_what_cannot_occur_is_an_error():
    mdp = ledge_world().mdp
    solution = value_iteration(StockGraph.build(mdp, 10, [0.0]), Mean())
    assert solution.action(0, 35, 0.0) == 3  # right, onto the ledge
    with pytest.raises(KeyError, match=r"state 35 with stock 4.0 does not occur after 0 steps"):
        solution.action(0, 35, 4.0)


def test_actions_that_are_not_allowed_are_not_taken():
    mdp = ledge_world().mdp
    allowed = np.ones((mdp.num_states, mdp.num_actions), bool)
    allowed[23, 3] = False  # the short-cut
    solution = value_iteration(StockGraph.build(mdp, 14, [0.0]), Mean(), allowed)
    for level, actions in zip(solution.graph.levels, solution.policy, strict=False):
        assert not (actions[level.states == 23] == 3).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0, "stocks": [0.0]}, "horizon=0 leaves no step"),
        ({"horizon": 2, "stocks": [1.0, 1.0]}, "stocks holds a value twice"),
        ({"horizon": 2, "stocks": [[1.0, 1.0]]}, r"stocks has shape \(1, 2\)"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StockGraph.build(ledge_world().mdp, **arguments)


def test_a_problem_too_large_for_exact_laws_is_refused_with_what_to_do():
    mdp = random_mdp(np.random.default_rng(0), 0.9, integers=False, states=4, actions=3, outcomes=3)
    with pytest.raises(ValueError, match=r"Shorten the horizon, give fewer initial stocks"):
        StockGraph.build(mdp, 8, [0.0])


@pytest.mark.parametrize("deterministic", [True, False])
def test_visits_times_mean_rewards_sum_to_the_mean_return(deterministic):
    rng = np.random.default_rng(3)
    mdp = random_mdp(rng)
    graph = StockGraph.build(mdp, 4, [0.0, 2.0])
    policy = rng.integers(2, size=3) if deterministic else rng.dirichlet(np.ones(2), size=3)
    solution = evaluate(graph, markov(graph, policy))
    values, probabilities = solution.return_law(1)
    assert (solution.visits(1) * mdp.expected_rewards()).sum() == pytest.approx(values @ probabilities, abs=1e-12)
    np.testing.assert_allclose(solution.visits(0), solution.visits(1), atol=1e-12)


def test_a_step_that_repeats_half_the_time_is_visited_a_half_as_often_each_time():
    transitions = np.array([[[0.5, 0.5]], [[0.0, 1.0]]])
    mdp = TabularMDP(transitions, np.zeros((2, 1, 2)), 1.0, np.array([1.0, 0.0]), np.array([False, True]))
    visits = value_iteration(StockGraph.build(mdp, 3, [0.0]), Mean()).visits()
    np.testing.assert_array_equal(visits, [[1.75], [0.0]])
