import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.agents.evaluation import evaluate
from prefenvs.agents.gridded import CHARTS, Chart, GridPlanner, GridPolicies, GridPolicy, played_by, task_dynamics
from prefenvs.agents.reward_models import FeatureRegret, Features
from prefenvs.tasks import TASKS

GAMMA = 0.9
LINE = Chart((0.0,), (6.0,), (7,), (False,), lambda obs: obs, lambda x: x)
PLACE = Features(("x", "step"), lambda obs, act: torch.cat([obs, torch.ones_like(obs)], -1))
ACTIONS = np.array([[-1.0], [0.0], [1.0]])


def walk(states, actions, steps):
    """Move by the action, from node to node; nothing ends."""
    after = np.empty((len(states), steps, 1))
    for t in range(steps):
        states = after[:, t] = np.clip(states + actions, 0, 6)
    return after, np.zeros((len(states), steps), bool)


def walk_home(states, actions, steps):
    """The same, and the episode ends at 0."""
    after, _ = walk(states, actions, steps)
    return after, np.logical_or.accumulate(after[..., 0] == 0, axis=1)


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-9, 9)), min_size=1, max_size=20))
def test_interpolation_weighs_the_corners_and_wraps_periodic_axes(points):
    chart, x = CHARTS["Pendulum"], torch.tensor(points, dtype=torch.float64)
    index, weight = chart.corners(x)
    assert ((weight >= -1e-9) & (weight <= 1 + 1e-9)).all()
    np.testing.assert_allclose(weight.sum(1), 1.0)
    # Linear interpolation is exact for what is linear: the speed, which ends at the last node.
    speed = (chart.grid()[index, 1] * weight).sum(1)
    np.testing.assert_allclose(speed, x[:, 1].clamp(-8, 8), atol=1e-9)
    turned, moved = chart.corners(x + torch.tensor([2 * math.pi, 0.0]))
    cosine = chart.grid()[:, 0].cos()
    np.testing.assert_allclose((cosine[turned] * moved).sum(1), (cosine[index] * weight).sum(1), atol=1e-6)


def test_nodes_are_their_own_corners():
    chart = CHARTS["Pendulum"]
    index, weight = chart.corners(chart.coordinates(chart.observations(chart.grid())))
    assert len(chart.grid()) == 41 * 41
    found = index.gather(1, weight.argmax(1, keepdim=True))[:, 0]
    np.testing.assert_array_equal(found, torch.arange(41 * 41))


def test_dynamics_are_the_pendulums_equations():
    rng = np.random.default_rng(0)
    states, actions = rng.uniform([-math.pi, -7], [math.pi, 7], (20, 2)), rng.uniform(-2, 2, (20, 1))
    after, ended = task_dynamics("Pendulum")(states, actions.astype(np.float32), 3)
    angle, speed = states.T
    for t in range(3):
        # Gymnasium's: acceleration 3 g / (2 l) sin(angle) + 3 / (m l^2) torque, 0.05 s, g = 10, m = l = 1.
        speed = np.clip(speed + (15 * np.sin(angle) + 3 * actions[:, 0]) * 0.05, -8, 8)
        angle = angle + speed * 0.05
        np.testing.assert_allclose(after[:, t], np.stack([angle, speed], 1), rtol=1e-6)
    assert not ended.any()


@pytest.mark.parametrize("hold", [1, 2])
def test_values_and_successor_features_are_exact_where_steps_end_on_nodes(hold):
    planner = GridPlanner(LINE, walk_home, ACTIONS, PLACE, GAMMA, hold)
    # Each step costs 1: walk home, in x steps. What comes after the end counts nothing, in the middle of a hold too.
    home = torch.tensor([[0.0, -1.0]])
    x = np.arange(1, 7)
    expected = -(1 - GAMMA**x) / (1 - GAMMA)
    np.testing.assert_allclose(planner.action_values(home).amax(1)[1:, 0], expected, rtol=1e-5)
    psi = GridPolicies(planner, home)(torch.arange(1.0, 7.0)[:, None])[0]
    np.testing.assert_allclose(psi[:, 1], -expected, rtol=1e-5)
    places = [sum(GAMMA**t * (start - t) for t in range(start)) for start in x]
    np.testing.assert_allclose(psi[:, 0], places, rtol=1e-5)


def test_a_policy_acts_best_between_nodes():
    planner = GridPlanner(LINE, walk, ACTIONS, PLACE, GAMMA, hold=1)
    right = GridPolicy(planner, [1.0, 0.0])
    np.testing.assert_array_equal(right.act(np.array([[0.4], [2.5]])), [[1.0], [1.0]])
    np.testing.assert_array_equal(right.predict(np.array([2.5]))[0], [1.0])


def test_a_refresh_takes_up_the_policies_of_what_was_learned():
    planner = GridPlanner(LINE, walk, ACTIONS, PLACE, GAMMA, hold=1)
    model = FeatureRegret(PLACE, GridPolicies(planner, [[-1.0, 0.0]]))
    with torch.no_grad():
        model.weights.copy_(torch.tensor([[1.0, 0.0]]))
    ends = torch.tensor([[3.0]])
    before = model.values(model.psi(ends).double()).item()
    model.refresh()
    best = planner.action_values(model.weights.detach()).amax(1)[3, 0].item()
    # Values and successor features leave out what comes after as many sweeps, at most a hundredth of the greatest.
    assert before < 10 < model.values(model.psi(ends).double()).item() == pytest.approx(best, abs=0.7)
    assert model.state_dict()["psi.table"].shape == (2, 7, 2)


def test_planned_for_its_true_costs_the_pendulum_swings_up_like_the_reference():
    space = gym.make("prefenvs/Pendulum-v0").action_space
    costs = Features(
        ("angle^2", "speed^2", "torque^2"),
        lambda obs, act: torch.stack([torch.atan2(obs[..., 1], obs[..., 0]), obs[..., 2], act[..., 0]], -1) ** 2,
    )
    torques = np.linspace(space.low, space.high, 5)
    planner = GridPlanner(CHARTS["Pendulum"], task_dynamics("Pendulum"), torques, costs, 0.99)
    got = evaluate(GridPolicy(planner, [-1.0, -0.1, -0.001]), "prefenvs/Pendulum-v0", 5).mean
    reference = TASKS["Pendulum"].reference_score
    assert reference is not None
    assert got > reference.mean - 10


def test_policies_are_planned_for_weights_of_any_device(device):
    planner = GridPlanner(LINE, walk, ACTIONS, PLACE, GAMMA, hold=1)
    weights = torch.tensor([1.0, 0.0], device=device)
    np.testing.assert_array_equal(GridPolicy(planner, weights).act(np.array([[0.4]])), [[1.0]])
    assert GridPolicies(planner, weights[None]).table.shape == (1, 7, 2)


def test_each_policy_plays_as_many_streams_and_a_share_of_their_actions_is_random():
    planner = GridPlanner(LINE, walk, ACTIONS, PLACE, GAMMA, hold=1)
    up, down = (GridPolicy(planner, np.array([sign, 0.0])) for sign in (1.0, -1.0))
    space, shares = gym.spaces.Box(-5.0, 5.0, (1,)), np.array([0.0, 1.0, 0.0, 1.0])
    act = played_by([up, down], shares, space, np.random.default_rng(0))
    played = np.array([act(np.full((4, 1), 3.0, np.float32))[:, 0] for _ in range(200)])  # (times, streams)
    assert (played[:, 0] == 1).all() and (played[:, 2] == -1).all()
    assert (np.abs(played[:, [1, 3]]).max(0) > 4).all()
