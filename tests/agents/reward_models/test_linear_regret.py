"""Knox et al. 2022, arXiv:2206.02231: the learner's side. Tasks and exact solutions: tests/tasks/grid/test_card25_*."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefenvs
from prefenvs.agents.reward_models import LINEAR_MODELS, LinearRegret, LinearReward, fit_linear, linear_model
from prefenvs.agents.reward_models.linear_regret import random_weights
from prefenvs.agents.reward_models.losses import bradley_terry_loss
from prefenvs.making import make_task
from prefenvs.metrics import normalised_return, optimal_policy
from prefenvs.oracles import Regret, TabularValues
from prefenvs.segments import JudgedSegments, Label, Query, Segments, TorchSegments
from prefenvs.tasks import TASKS
from prefenvs.tasks.grid import GRID_TASKS
from prefenvs.tasks.grid.delivery import delivery_world
from prefenvs.tasks.grid.random_mdp import random_grid, random_lottery_grid
from prefenvs.tasks.grid.sampling import random_segments
from prefenvs.tasks.grid.solvers import (
    greedy_policy,
    policies_for_weights,
    policy_evaluation,
    policy_iteration,
    uniform_policy,
)
from prefenvs.tasks.grid.world import build_grid


def grids():
    """A deterministic, a stochastic and the delivery grid."""
    rng = np.random.default_rng(0)
    return {
        "deterministic": random_grid(rng).mdp,
        "stochastic": random_lottery_grid(rng).mdp,
        "delivery": delivery_world(gamma=0.999).mdp,
    }


GRIDS = grids()
each_grid = pytest.mark.parametrize("mdp", GRIDS.values(), ids=GRIDS)


def walk(mdp, count, steps, seed=0):
    """Segments of random actions; short where they end early."""
    states, actions, mask = random_segments(mdp, count, steps, np.random.default_rng(seed))
    return states, actions, mask, mdp.terminal[states[:, -1]]


def policies_of(mdp, count, seed=0):
    """Greedy policies of random reward vectors."""
    return policies_for_weights(mdp, random_weights(count, len(mdp.weights), np.random.default_rng(seed)))


def loss_of(model, query, label):
    """(n,) Bradley-Terry loss a query of a model's only member, in nats."""
    scores = model.segment_members(query.segments.torch())[0].reshape(query.n, query.k)
    return bradley_terry_loss(scores, torch.as_tensor(label.choice))


def shown(states, actions, mask, *_):
    return TorchSegments(*(torch.as_tensor(a) for a in (states, actions, mask)))


def query_of(states, actions, mask, terminated):
    n = len(states)
    ids = np.stack([np.zeros(n, int), np.arange(n), np.zeros(n, int)], 1)
    return Query(Segments(states, actions, mask, terminated, np.zeros(n, bool), ids))


def with_weights(model, weights):
    with torch.no_grad():
        model.weights.copy_(torch.tensor(np.asarray(weights)))
    return model


@each_grid
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 100.0])
def test_values_from_successor_features_never_exceed_the_optimum(mdp, temperature):
    rng = np.random.default_rng(1)
    weights = 5 * rng.normal(size=(4, len(mdp.weights)))
    model = with_weights(LinearRegret(mdp, policies_of(mdp, 12), 4, temperature), weights)
    found = model.state_values().detach().numpy()
    best = np.stack([policy_iteration(mdp.with_weights(w))[0] for w in weights])
    assert (found <= best + 1e-7 * (1 + np.abs(best))).all()
    if temperature == 100.0:
        assert (found < best - 0.1).any(), "a soft maximum mixes in worse policies"


@each_grid
def test_values_reach_the_optimum_as_the_temperature_falls_with_an_optimal_policy_among_them(mdp):
    v, q = policy_iteration(mdp)
    policies = np.stack([uniform_policy(mdp), greedy_policy(q), policies_for_weights(mdp, -mdp.weights[None])[0]])
    gaps = []
    for temperature in (1e3, 10.0, 1e-4):
        model = with_weights(LinearRegret(mdp, policies, temperature=temperature), mdp.weights[None])
        gaps.append(float(np.abs(model.state_values().detach().numpy()[0] - v).max()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-6 * (1 + np.abs(v).max())
    np.testing.assert_allclose(model.advantages().detach().numpy()[0], q - v[:, None], atol=1e-6 * np.abs(v).max())


@each_grid
def test_with_the_true_weights_the_model_scores_segments_as_the_oracle_does(mdp):
    v, q = policy_iteration(mdp)
    states, actions, mask, terminated = walk(mdp, 60, 3)
    segments = JudgedSegments(states, actions, np.zeros(mask.shape), {}, mask, terminated)
    expected = Regret(TabularValues.of(mdp)).utility(segments).sum(1)
    model = with_weights(LinearRegret(mdp, greedy_policy(q)[None]), mdp.weights[None])
    got = model.segment_members(shown(states, actions, mask))[0].detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-7 * np.abs(v).max())
    assert expected.std() > 0.1


def test_where_transitions_are_sure_the_score_telescopes_whatever_the_weights():
    # sum_t Q~(s_t, a_t) - V~(s_t) = partial return + V~(last) - V~(first) with gamma = 1.
    mdp = delivery_world().mdp
    policies = np.stack([uniform_policy(mdp), greedy_policy(policy_iteration(mdp)[1])])
    weights = np.random.default_rng(0).normal(size=(2, 6))
    states, actions, mask, _ = walk(mdp, 80, 3)
    regret = with_weights(LinearRegret(mdp, policies, 2, temperature=1.0), weights)
    partial = with_weights(LinearReward(mdp, 2), weights)
    seen = shown(states, actions, mask)
    v = regret.state_values()
    expected = partial.segment_members(seen) + v[:, states[:, -1]] - v[:, states[:, 0]]
    np.testing.assert_allclose(regret.segment_members(seen).detach(), expected.detach(), atol=1e-9)


def test_partial_return_is_the_sum_of_the_rewards_of_the_steps():
    mdp = GRIDS["delivery"]
    states, actions, mask, _ = walk(mdp, 50, 4)
    model = with_weights(LinearReward(mdp), mdp.weights[None])
    steps = mdp.rewards[states[:, :-1], actions, states[:, 1:]]
    np.testing.assert_allclose(
        model.segment_members(shown(states, actions, mask))[0].detach(), np.where(mask, steps, 0).sum(1), atol=1e-12
    )
    flat = [torch.as_tensor(a.reshape(-1)) for a in (states[:, :-1], actions, states[:, 1:])]
    np.testing.assert_allclose(model.reward(*flat).detach(), steps.reshape(-1), atol=1e-12)
    mean = model.reward(flat[0], flat[1]).detach().numpy().reshape(mask.shape)
    np.testing.assert_allclose(mean, mdp.expected_rewards()[states[:, :-1], actions], atol=1e-12)


def test_the_gradient_goes_through_the_values():
    mdp = GRIDS["stochastic"]
    model = LinearRegret(mdp, policies_of(mdp, 6), temperature=2.0)
    # A step costs something, else walking on for ever outweighs all and the logits saturate.
    weights = torch.tensor([[-0.3, 0.8, -0.5, 1.3]], dtype=torch.float64)
    query = query_of(*walk(mdp, 20, 1))
    label = Label(np.tile([1.0, 0.0], (10, 1)))

    def loss(w):
        return float(loss_of(with_weights(model, w), query, label).mean().detach())

    loss_of(with_weights(model, weights), query, label).mean().backward()
    numeric = []
    for i in range(weights.shape[1]):
        step = torch.zeros_like(weights)
        step[0, i] = 1e-5
        numeric.append((loss(weights + step) - loss(weights - step)) / 2e-5)
    np.testing.assert_allclose(model.weights.grad[0], numeric, atol=1e-7)
    # With V~ held constant the gradient would be that of partial returns alone.
    partial = with_weights(LinearReward(mdp), weights)
    loss_of(partial, query, label).mean().backward()
    assert (model.weights.grad - partial.weights.grad).abs().max() > 0.01


@pytest.mark.parametrize("mdp", GRIDS.values(), ids=GRIDS)
def test_partial_returns_fitted_together_equal_models_fitted_alone(mdp):
    seen = shown(*walk(mdp, 40, 3))
    choice = np.eye(2)[np.random.default_rng(2).integers(2, size=(3, 20))]
    counts = np.array([4, 20, 11])
    together = LinearReward(mdp, members=3)
    losses = fit_linear(together, seen, choice, counts, steps=30)
    for member in range(3):
        alone, few = LinearReward(mdp), slice(counts[member])
        cut = seen[: 2 * counts[member]]
        loss = fit_linear(alone, cut, choice[member, few], steps=30)
        np.testing.assert_allclose(together.weights[member].detach(), alone.weights[0].detach(), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(losses[member], loss[0], rtol=1e-7)


def test_one_label_set_is_shared_by_all_members_and_a_fit_repeats():
    mdp = GRIDS["stochastic"]
    seen, choice = shown(*walk(mdp, 40, 3)), np.eye(2)[np.random.default_rng(2).integers(2, size=20)]
    models = [linear_model("regret", mdp, 2, policies=10, rng=np.random.default_rng(0)) for _ in range(2)]
    for model in models:
        assert not model.trained
        fit_linear(model, seen, choice, steps=30)
        assert model.trained
        np.testing.assert_array_equal(model.weights[0].detach(), model.weights[1].detach())
    np.testing.assert_array_equal(models[0].weights.detach(), models[1].weights.detach())


def test_a_fit_begins_at_the_start_that_explains_the_labels_best():
    mdp = GRIDS["stochastic"]
    v, q = policy_iteration(mdp)
    starts = np.stack([-mdp.weights, mdp.weights, 0 * mdp.weights])
    model = LinearRegret(mdp, policies_for_weights(mdp, starts), starts=starts)
    states, actions, mask, _ = walk(mdp, 100, 3)
    scores = np.where(mask, (q - v[:, None])[states[:, :-1], actions], 0).sum(1).reshape(-1, 2)
    fit_linear(model, shown(states, actions, mask), np.eye(2)[scores.argmax(1)], steps=1, lr=0.0)
    np.testing.assert_array_equal(model.weights[0].detach(), mdp.weights)


def test_a_refresh_adds_the_policies_that_are_best_for_what_was_learned():
    mdp = GRIDS["stochastic"]
    v, _ = policy_iteration(mdp)
    model = with_weights(LinearRegret(mdp, uniform_policy(mdp)[None]), mdp.weights[None])
    assert np.abs(model.state_values().detach().numpy()[0] - v).max() > 1
    model.refresh()
    np.testing.assert_allclose(model.state_values().detach().numpy()[0], v, atol=1e-6)


def test_labels_of_equal_segments_do_not_say_whether_walking_pays_unless_they_are_by_regret():
    # gas and goal both rise by 2: each step pays 2 more, so a constant is added to all rewards.
    mdp = build_grid(["....G"], {"gas": -1, "goal": -1}, gamma=0.99).mdp
    weights = np.array([[-1.0, -1.0], [1.0, 1.0]])
    policies = policies_of(mdp, 20)
    states, actions, mask, terminated = walk(mdp, 200, 3)
    full = np.flatnonzero(mask.all(1))[:60]
    query = query_of(states[full], actions[full], mask[full], terminated[full])
    label = Label(np.eye(2)[np.random.default_rng(0).integers(2, size=30)])
    partial = [loss_of(with_weights(LinearReward(mdp), w[None]), query, label).detach() for w in weights]
    np.testing.assert_allclose(partial[0], partial[1], atol=1e-12)
    regret = [loss_of(with_weights(LinearRegret(mdp, policies), w[None]), query, label).detach() for w in weights]
    assert (regret[0] - regret[1]).abs().max() > 0.1


def test_ties_share_and_skips_weigh_nothing():
    mdp = GRIDS["delivery"]
    model = LinearReward(mdp)  # w = 0: every logit is 0
    query = query_of(*walk(mdp, 6, 2))
    label = Label(np.array([[1.0, 0.0], [0.5, 0.5], [np.nan, np.nan]]))
    np.testing.assert_allclose(loss_of(model, query, label).detach(), [np.log(2), np.log(2), 0.0])


@pytest.mark.parametrize("task", [spec.name for spec in GRID_TASKS])
def test_by_its_name_it_learns_any_grid_task_from_its_teacher(task):
    env = gym.make(f"prefenvs/{task}-v0", oracle="regret", budget=300)
    feedback = prefenvs.feedback(env)
    store = prefenvs.SegmentStore(env.observation_space, env.action_space, 1, episodes=feedback.recorded_episodes)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(1500):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        step = (observation, action, after, terminated, truncated, info["segment_id"])
        store.add(*(np.asarray(part)[None] for part in step))
        observation = env.reset()[0] if terminated or truncated else after
    query = prefenvs.Query(store.sample(600, steps=3, rng=np.random.default_rng(0)))
    label = feedback.ask(query)
    model = linear_model("regret", task, rng=np.random.default_rng(0))
    before = loss_of(model, query, label).detach().mean()
    fit_linear(model, query.segments.torch(), label.choice, steps=200)
    assert loss_of(model, query, label).detach().mean() < 0.75 * before
    mdp = make_task(TASKS[task]).mdp
    mdp = replace(mdp, gamma=min(mdp.gamma, 0.999))
    planned = optimal_policy(mdp.with_weights(model.weights[0].detach().numpy()))
    assert normalised_return(mdp, planned[None]) > 0.9


def test_unknown_names_and_tasks_without_a_finite_problem_are_refused():
    rng = np.random.default_rng(0)
    assert {type(linear_model(name, "prefenvs/GridLedge-v0", rng=rng)) for name in LINEAR_MODELS} == {
        LinearReward,
        LinearRegret,
    }
    with pytest.raises(ValueError, match=r"linear model='regrett' is not known.*Did you mean 'regret'"):
        linear_model("regrett", "GridLedge", rng=rng)
    with pytest.raises(ValueError, match="task='GridLegde' is not known"):
        linear_model("regret", "GridLegde", rng=rng)
    with pytest.raises(ValueError, match=r"Pendulum has no finite problem.*GridDelivery"):
        linear_model("regret", "Pendulum", rng=rng)


def test_choices_that_do_not_fit_are_refused():
    mdp = GRIDS["stochastic"]
    with pytest.raises(ValueError, match=r"choice has shape \(2, 5, 2\), expected .* with M = 1 members"):
        fit_linear(LinearReward(mdp), shown(*walk(mdp, 10, 2)), np.zeros((2, 5, 2)))
    with pytest.raises(ValueError, match="temperature=0"):
        LinearRegret(mdp, uniform_policy(mdp)[None], temperature=0)


@each_grid
def test_policies_for_weights_are_optimal_for_their_weights(mdp):
    policy = policies_for_weights(mdp, np.stack([mdp.weights, -mdp.weights]), sweeps=3000)
    for weights, chosen in zip((mdp.weights, -mdp.weights), policy, strict=True):
        problem = mdp.with_weights(weights)
        best = policy_iteration(problem)[0]
        np.testing.assert_allclose(policy_evaluation(problem, chosen), best, atol=0.1 * (1 + np.abs(best).max()))
