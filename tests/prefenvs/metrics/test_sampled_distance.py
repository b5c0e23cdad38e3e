from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from prefenvs.metrics import (
    Transitions,
    dard_distance,
    epic_distance,
    fourier_features,
    reward_distance,
    s_redistribution,
    sampled_dard,
    sampled_dard_distance,
    sampled_distance,
    sampled_epic,
    sampled_epic_distance,
    sampled_starc_distance,
    sampled_val,
    shaping,
    starc,
)
from prefenvs.metrics.reward_distance import dard, epic, val
from prefenvs.metrics.sampled_canonical import least_rewards, lstd_weights
from prefenvs.tasks.grid.random_mdp import random_sparse_mdp
from prefenvs.tasks.grid.solvers import policy_evaluation, uniform_policy

STATES, ACTIONS = 7, 3


def table(rewards):
    """The reward function of a (S, A, S) table."""
    return lambda obs, act, after: rewards[obs, act, after]


def dynamics(mdp):
    """Draws of next states; a terminal state is followed by itself."""
    steps = np.where(mdp.terminal[:, None, None], np.eye(mdp.num_states)[:, None], mdp.transitions).cumsum(-1)

    def draw(obs, act, rng):
        after = (rng.uniform(size=(len(obs), 1)) > steps[obs, act]).sum(-1).clip(max=mdp.num_states - 1)
        return after, mdp.terminal[after]

    return draw


def one_hot(mdp):
    """Features of states; a terminal state has the value 0, so it needs none."""
    return lambda obs: np.eye(mdp.num_states)[obs]


def problem(seed, successors=2, **settings):
    rng = np.random.default_rng(seed)
    mdp = random_sparse_mdp(rng, STATES, ACTIONS, successors=successors, **settings)
    return mdp, rng.standard_normal((2, *mdp.transitions.shape)), rng


def walk(mdp, rng, n):
    """n steps from non-terminal states by the uniform policy."""
    obs = rng.choice(np.flatnonzero(~mdp.terminal), size=n)
    act = rng.integers(mdp.num_actions, size=n)
    return Transitions(obs, act, *dynamics(mdp)(obs, act, rng))


def every_step(mdp):
    """Each action of each non-terminal state once; dynamics are deterministic."""
    obs, act = (part.ravel() for part in np.meshgrid(np.flatnonzero(~mdp.terminal), np.arange(ACTIONS), indexing="ij"))
    after = mdp.transitions[obs, act].argmax(-1)
    return Transitions(obs, act, after, mdp.terminal[after])


@pytest.mark.parametrize("terminals", [0, 1])
def test_val_over_every_step_of_a_deterministic_problem_is_exact(terminals):
    mdp, (r1, r2), rng = problem(0, successors=1, terminals=terminals)
    steps = every_step(mdp)
    canonical = sampled_val(table(r1), steps, mdp.gamma, rng, features=one_hot(mdp))
    np.testing.assert_allclose(canonical, val(r1, mdp)[steps.observations, steps.actions, 0], atol=1e-9)
    after = np.eye(STATES)[steps.next_observations] * ~steps.terminated[:, None]
    rewards = r1[steps.observations, steps.actions, steps.next_observations]
    weights = lstd_weights(rewards, np.eye(STATES)[steps.observations], after, mdp.gamma)
    np.testing.assert_allclose(weights, policy_evaluation(mdp.with_rewards(r1), uniform_policy(mdp)), atol=1e-9)
    settings = {"gamma": mdp.gamma, "rng": rng, "features": one_hot(mdp)}
    found = sampled_starc_distance(table(r1), table(r2), walk(mdp, rng, 4000), **settings)
    assert abs(found.value - starc(r1, r2, mdp)) < 4 * found.error
    assert found.floor == 0, "nothing else is drawn"


@pytest.mark.parametrize("terminals", [0, 1])
def test_val_averages_over_next_states_where_they_are_random(terminals):
    mdp, (r1, r2), rng = problem(1, terminals=terminals)
    steps = walk(mdp, rng, 6000)
    settings = {"gamma": mdp.gamma, "features": one_hot(mdp), "dynamics": dynamics(mdp), "rng": rng}
    found = sampled_starc_distance(table(r1), table(r2), steps, **settings)
    assert 0 < found.error < 0.02
    assert abs(found.value - starc(r1, r2, mdp)) < 4 * found.error + found.floor
    same = shaping(s_redistribution(3 * r1, r2, mdp), rng.standard_normal(STATES), mdp)
    seen = sampled_starc_distance(table(r1), table(same), steps, **settings)
    assert seen.value < 1.5 * seen.floor, "what sampling leaves of a redistribution is no distance"
    assert seen.value < 0.2
    blind = sampled_starc_distance(table(r1), table(same), steps, **settings | {"dynamics": None})
    assert blind.value > 2 * seen.value, "without dynamics the redistribution stays in"


def test_epic_and_dard_by_samples_agree_with_the_exact_ones():
    mdp, (r1, r2), rng = problem(2)
    steps = walk(mdp, rng, 4000)
    found = sampled_epic_distance(table(r1), table(r2), steps, gamma=mdp.gamma, rng=rng, samples=500)
    # The batch's own marginals: states and actions are uniform, next states are not told apart from states.
    after = np.bincount(steps.next_observations, minlength=STATES) / len(steps)
    law = np.full((STATES, ACTIONS, STATES), 1.0) * after
    exact = reward_distance(r1, r2, mdp, canonicalise=epic, norm="sd", weights=law)
    assert abs(found.value - exact) < 4 * found.error + found.floor
    assert found.floor < 0.1
    at = (steps.observations, steps.actions, steps.next_observations)
    canonical = sampled_epic(table(r1), steps, mdp.gamma, rng, samples=4000)
    offset = canonical - epic(r1, mdp)[at]
    assert np.ptp(offset) < 0.25, "equal but for a constant"
    settings = {"gamma": mdp.gamma, "rng": rng, "dynamics": dynamics(mdp)}
    found = sampled_dard_distance(table(r1), table(r2), steps, samples=60, **settings)
    assert abs(found.value - dard_distance(r1, r2, mdp)) < 4 * found.error + found.floor
    canonical = sampled_dard(table(r1), steps, mdp.gamma, rng, dynamics=dynamics(mdp), samples=200)
    errors = canonical - dard(r1, mdp)[at]
    assert abs(errors).max() < 6 * 4 / np.sqrt(200)
    assert epic_distance(r1, r2, mdp) > 0.1


def test_more_samples_make_error_and_floor_smaller():
    mdp, (r1, r2), rng = problem(3)
    small, large = (
        sampled_epic_distance(table(r1), table(r2), walk(mdp, rng, n), gamma=mdp.gamma, rng=rng, samples=n // 10)
        for n in (300, 6000)
    )
    assert large.error < small.error
    assert large.floor < small.floor


@pytest.mark.parametrize("name", ["epic", "dard"])
def test_shaping_cancels_to_the_last_digit_since_both_rewards_get_the_same_draws(name):
    mdp, (r1, _), rng = problem(4, terminals=1)
    same = 5 * shaping(r1, 10 * rng.standard_normal(STATES), mdp)
    steps = walk(mdp, rng, 300)
    canonicalise = partial(sampled_dard, dynamics=dynamics(mdp)) if name == "dard" else partial(sampled_epic, samples=9)
    settings = {"gamma": mdp.gamma, "rng": rng}
    assert sampled_distance(table(r1), table(same), steps, canonicalise, **settings).value < 1e-12
    assert sampled_distance(table(r1), table(-same), steps, canonicalise, **settings).value == pytest.approx(1)
    zero = sampled_distance(table(0 * r1), table(same), steps, canonicalise, **settings)
    assert zero.value == pytest.approx(0.5)


def pendulum(n, seed=0):
    """n steps of Pendulum by random torques, and its true reward as a function of observations."""
    env = gym.make("prefenvs/Pendulum-v0", evaluation=True)
    env.action_space.seed(seed)
    observation, rows, rewards = env.reset(seed=seed)[0], [], []
    for _ in range(n):
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, after, terminated))
        rewards.append(reward)
        observation = env.reset()[0] if truncated else after
    return Transitions(*(np.array(part, float) for part in zip(*rows, strict=True))), np.array(rewards)


def true_reward(obs, act, after):
    return -(np.arctan2(obs[:, 1], obs[:, 0]) ** 2 + 0.1 * obs[:, 2] ** 2 + 0.001 * act[:, 0] ** 2)


def test_pendulum_is_compared_without_telling_shaped_rewards_apart():
    steps, rewards = pendulum(1500)
    steps = Transitions(steps.observations, steps.actions, steps.next_observations, steps.terminated.astype(bool))
    np.testing.assert_allclose(true_reward(steps.observations, steps.actions, None), rewards, atol=1e-5)

    def energy(obs):
        return 10 * obs[:, 0] + obs[:, 2] ** 2 / 2

    def shaped(obs, act, after):
        return 2 * true_reward(obs, act, after) + 0.99 * energy(after) - energy(obs)

    def still(obs, act, after):
        return -(act[:, 0] ** 2)

    def features(obs):
        products = obs[:, :, None] * obs[:, None]
        return np.concatenate([np.ones((len(obs), 1)), obs, products[:, *np.triu_indices(3)]], 1)

    settings = {"gamma": 0.99, "rng": np.random.default_rng(0)}
    exact = sampled_starc_distance(true_reward, shaped, steps, features=features, **settings)
    assert exact.value < 1e-6, "the potential is in the span of the features"
    near = sampled_starc_distance(true_reward, shaped, steps, **settings)
    assert near.value < 0.1, "and nearly in that of random ones"
    far = sampled_starc_distance(true_reward, still, steps, **settings)
    assert far.value - 4 * far.error > 0.3
    epic = sampled_epic_distance(true_reward, shaped, steps, samples=64, **settings)
    assert epic.value < 1e-9

    def as_it_is(reward, steps, *_):
        return reward(steps.observations, steps.actions, steps.next_observations)

    raw = sampled_distance(true_reward, shaped, steps, as_it_is, **settings)
    assert raw.value > 0.05 > 10 * epic.value, "as they are, the two differ"


def test_the_least_reward_is_no_larger_than_that_of_any_potential():
    steps, rewards = pendulum(400)
    features = fourier_features(steps.observations, 30, np.random.default_rng(0))
    now, after = features(steps.observations), features(steps.next_observations)
    potentials = np.random.default_rng(1).standard_normal((50, now.shape[1]))
    batch = rewards + potentials @ (0.99 * after - now).T
    least = least_rewards(batch, now, after, 0.99)
    np.testing.assert_allclose(least, np.broadcast_to(least_rewards(rewards, now, after, 0.99), least.shape), atol=1e-6)
    assert ((least**2).sum(-1) < (batch**2).sum(-1)).all()


def test_too_few_transitions_are_refused():
    mdp, (r1, r2), rng = problem(5)
    with pytest.raises(ValueError, match="15 transitions do not make groups=10"):
        sampled_epic_distance(table(r1), table(r2), walk(mdp, rng, 15), gamma=0.9, rng=rng)
