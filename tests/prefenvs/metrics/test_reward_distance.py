import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

from prefenvs.metrics import (
    CANONICALISATIONS,
    NORMS,
    dard_distance,
    epic_distance,
    pearson,
    reward_distance,
    s_redistribution,
    scale,
    shaping,
)
from prefenvs.metrics.reward_distance import dard, epic, minimal, val
from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
from prefenvs.tasks.grid.solvers import policy_evaluation


def problem(seed=0, states=5, actions=2, **settings):
    rng = np.random.default_rng(seed)
    mdp = random_sparse_mdp(rng, states, actions, successors=3, **settings)
    return mdp, rng.standard_normal(mdp.rewards.shape), rng


def epic_by_loops(R, gamma, d_s, d_a):
    """The formula of Gleave et al. 2021, one expectation after the other."""
    S, A = len(d_s), len(d_a)

    def mean(x):
        return sum(d_a[a] * d_s[t] * R[x, a, t] for a in range(A) for t in range(S))

    whole = sum(d_s[x] * mean(x) for x in range(S))
    return np.array(
        [
            [[R[s, a, t] + gamma * mean(t) - mean(s) - gamma * whole for t in range(S)] for a in range(A)]
            for s in range(S)
        ]
    )


def dard_by_loops(R, T, gamma, d_a):
    """The formula of Wulfe et al. 2022: one action A, S' after s and S'' after s'."""
    S, A = T.shape[:2]
    result = np.zeros_like(R)
    for s in range(S):
        for t in range(S):
            shift = 0.0
            for a in range(A):
                for first in range(S):
                    for second in range(S):
                        chance = d_a[a] * T[s, a, first] * T[t, a, second]
                        shift += chance * (gamma * R[t, a, second] - R[s, a, first] - gamma * R[first, a, second])
            result[s, :, t] = R[s, :, t] + shift
    return result


def weighted_pearson_distance(x, y, law):
    law = law / law.sum()
    x, y = x - (law * x).sum(), y - (law * y).sum()
    rho = (law * x * y).sum() / np.sqrt((law * x**2).sum() * (law * y**2).sum())
    return np.sqrt((1 - rho) / 2)


@pytest.mark.parametrize("uniform", [True, False])
def test_epic_is_what_loops_over_its_formula_give(uniform):
    mdp, R, rng = problem()
    d_s, d_a = (np.full(5, 0.2), np.full(2, 0.5)) if uniform else (rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(2)))
    given = (None, None) if uniform else (d_s, d_a)
    expected = epic_by_loops(R, mdp.gamma, d_s, d_a)
    np.testing.assert_allclose(epic(R, mdp, *given), expected, atol=1e-12)
    law = d_s[:, None, None] * d_a[:, None] * d_s
    assert (law * expected).sum() == pytest.approx(0, abs=1e-12), "its mean is 0, so Pearson needs no centring"
    other = epic_by_loops(mdp.rewards, mdp.gamma, d_s, d_a)
    distance = epic_distance(R, mdp.rewards, mdp, states=given[0], actions=given[1])
    assert distance == pytest.approx(weighted_pearson_distance(expected, other, law), abs=1e-12)


@pytest.mark.parametrize("uniform", [True, False])
def test_dard_is_what_loops_over_its_formula_give(uniform):
    mdp, R, rng = problem()
    d_a = np.full(2, 0.5) if uniform else rng.dirichlet(np.ones(2))
    given = None if uniform else d_a
    expected, other = (dard_by_loops(r, mdp.transitions, mdp.gamma, d_a) for r in (R, mdp.rewards))
    np.testing.assert_allclose(dard(R, mdp, given), expected, atol=1e-12)
    law = mdp.transitions * d_a[:, None]
    assert abs((law * expected).sum()) > 1e-3, "its mean is not 0, so centring matters"
    distance = dard_distance(R, mdp.rewards, mdp, actions=given)
    assert distance == pytest.approx(weighted_pearson_distance(expected, other, law), abs=1e-12)
    other_law = rng.dirichlet(np.ones(50)).reshape(5, 2, 5)
    distance = dard_distance(R, mdp.rewards, mdp, actions=given, weights=other_law)
    assert distance == pytest.approx(weighted_pearson_distance(expected, other, other_law), abs=1e-12)


@pytest.mark.parametrize("terminals", [0, 2])
def test_minimal_is_the_least_equivalent_reward(terminals):
    # Independent: least |r + D phi + Z z| over potentials and redistributions as one dense problem, twice.
    mdp, R, _ = problem(terminals=terminals)
    alive = np.flatnonzero(~mdp.terminal)
    basis = [shaping(np.zeros_like(R), row, mdp) for row in np.eye(5)[alive]]
    basis += [s_redistribution(np.zeros_like(R), z.reshape(R.shape), mdp) for z in np.eye(R.size)]
    matter = ~mdp.terminal[:, None, None] * np.ones(R.shape)  # what follows an end is no reward
    design = np.array([(matter * b).ravel() for b in basis]).T
    target = (matter * R).ravel()
    ours = minimal(R, mdp)
    least = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(ours.ravel(), least, atol=1e-9)
    found = lsq_linear(design, -target, tol=1e-12)
    assert np.sqrt(2 * found.cost) == pytest.approx(NORMS["l2"](ours), rel=1e-6)

    def cost(x):
        return ((target + design @ x) ** 2).sum(), 2 * design.T @ (target + design @ x)

    descent = minimize(cost, np.zeros(design.shape[1]), jac=True, method="CG")
    assert np.sqrt(descent.fun) == pytest.approx(NORMS["l2"](ours), rel=1e-5)
    np.testing.assert_allclose(minimal(ours, mdp), ours, atol=1e-9)


def test_val_is_the_advantage_of_its_policy():
    mdp, R, rng = problem(terminals=1)
    policy = rng.dirichlet(np.ones(2), size=5)
    held = mdp.with_rewards(R)
    v = policy_evaluation(held, policy)
    q = held.expected_rewards() + mdp.gamma * mdp.continuing() @ v
    np.testing.assert_allclose(val(R, mdp, policy)[..., 0], q - v[:, None], atol=1e-12)


@pytest.mark.parametrize("name", CANONICALISATIONS)
def test_canonicalisations_are_linear_idempotent_up_to_norm_and_batched(name):
    mdp, R, rng = problem(terminals=1)
    canonicalise = CANONICALISATIONS[name]
    batch = rng.standard_normal((2, 3, *R.shape))
    both = canonicalise(batch, mdp)
    np.testing.assert_allclose(both[1, 2], canonicalise(batch[1, 2], mdp), atol=1e-12)
    np.testing.assert_allclose(canonicalise(2 * batch[0] - 3 * batch[1], mdp), 2 * both[0] - 3 * both[1], atol=1e-10)
    again = canonicalise(np.broadcast_to(both, batch.shape), mdp)
    if name != "dard":  # which reads rewards of S' to S'' that it has itself shifted
        np.testing.assert_allclose(again, both, atol=1e-9)


def test_weights_say_which_transitions_count():
    mdp, R, rng = problem()
    weights = rng.uniform(size=R.shape) * (rng.uniform(size=R.shape) < 0.5)
    values = rng.standard_normal((4, *R.shape))
    np.testing.assert_allclose(NORMS["l1"](values, weights), [(weights * abs(v)).sum() for v in values])
    np.testing.assert_allclose(NORMS["l2"](values, weights), [np.sqrt((weights * v**2).sum()) for v in values])
    np.testing.assert_allclose(NORMS["linf"](values, weights), [abs(v[weights > 0]).max() for v in values])
    expected = [np.sqrt(np.cov(v.ravel(), aweights=weights.ravel(), ddof=0)) for v in values]
    np.testing.assert_allclose(NORMS["sd"](values, weights), expected)
    changed = np.where(weights > 0, R, 7.0)
    assert reward_distance(R, changed, mdp, canonicalise="none", weights=weights) == pytest.approx(0, abs=1e-12)
    assert reward_distance(R, changed, mdp, canonicalise="none") > 0.1
    # One value for all next states counts with the weights of them all.
    np.testing.assert_allclose(
        NORMS["sd"](values[..., :1], weights), NORMS["sd"](np.repeat(values[..., :1], 5, -1), weights)
    )


def test_the_standard_deviation_gives_pearsons_distance():
    mdp, R, rng = problem()
    other = R + 0.1 * rng.standard_normal((20, *R.shape))
    rho = pearson(R.reshape(-1), other.reshape(20, -1))
    distance = reward_distance(R, other, mdp, canonicalise="none", norm="sd")
    np.testing.assert_allclose(distance, np.sqrt((1 - rho) / 2), atol=1e-9)


def test_a_function_or_another_metric_may_take_the_place_of_a_name():
    mdp, R, rng = problem()
    other = rng.standard_normal(R.shape)
    by_name = reward_distance(R, other, mdp, canonicalise="val", norm="l1", metric="linf")
    assert by_name == reward_distance(R, other, mdp, canonicalise=val, norm=NORMS["l1"], metric=NORMS["linf"])
    assert by_name < reward_distance(R, other, mdp, canonicalise="val", norm="l1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canonicalise": "vall"}, "canonicalise='vall' is not known.*Did you mean 'val'"),
        ({"norm": "l3"}, "norm='l3' is not known"),
        ({"metric": "linff"}, "Did you mean 'linf'"),
    ],
)
def test_misspelt_names_are_refused(settings, message):
    mdp, R, _ = problem()
    with pytest.raises(ValueError, match=message):
        reward_distance(R, R, mdp, **settings)


def test_rewards_of_another_shape_are_refused():
    mdp, R, _ = problem()
    with pytest.raises(ValueError, match=r"has shape \(5, 2\), expected \(\.\.\., S, A, S\) with S, A = \(5, 2\)"):
        reward_distance(R[..., 0], R, mdp)
    with pytest.raises(ValueError, match="factor=-1 must be positive"):
        scale(R, -1)
