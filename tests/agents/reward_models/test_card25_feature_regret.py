"""Knox et al. 2022, arXiv:2206.02231, on continuous states: closed forms of a linear system, and the grids' model."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from prefenvs.agents.reward_models import (
    FeatureRegret,
    FeatureReward,
    Features,
    LinearRegret,
    LinearReward,
    fit_linear,
    quadratic_features,
    random_weights,
)
from prefenvs.oracles import DeterministicRegret
from prefenvs.segments import JudgedSegments, TorchSegments
from prefenvs.tasks.grid.random_mdp import random_grid
from prefenvs.tasks.grid.sampling import random_segments
from prefenvs.tasks.grid.solvers import policies_for_weights, successor_features

A, B, GAMMA = 1.1, 0.5, 0.9
"""x' = A x + B u."""
COSTS = Features(("x^2", "u^2"), lambda obs, act: torch.cat([obs**2, act**2], -1))


class Gains:
    """Policies u = -k x, each with psi(x) = x^2 (1, k^2) / (1 - gamma (A - B k)^2), a geometric series."""

    gamma = GAMMA

    def __init__(self, gains):
        self.gains = torch.tensor(gains, dtype=torch.float64)

    def __call__(self, obs):
        closed = 1 - GAMMA * (A - B * self.gains) ** 2
        each = torch.stack([1 / closed, self.gains**2 / closed], -1)  # (P, 2)
        return each[:, None] * obs.double() ** 2

    def add(self, weights):
        """For costs (q, r) the best gain, by iterating Riccati's equation."""
        best = [riccati(*-w)[0] for w in weights.numpy()]
        self.gains = torch.cat([self.gains, torch.tensor(best, dtype=torch.float64)])


def riccati(q, r):
    """Best gain k and p of V(x) = -p x^2 for reward -(q x^2 + r u^2)."""
    p = q
    for _ in range(500):
        k = GAMMA * p * A * B / (r + GAMMA * p * B**2)
        p = q + r * k**2 + GAMMA * p * (A - B * k) ** 2
    return k, p


def motion(count, steps, seed=0):
    """Random actions from random states; the last segment is one step short."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(count, steps + 1, 1)), rng.normal(size=(count, steps, 1))
    for t in range(steps):
        x[:, t + 1] = A * x[:, t] + B * u[:, t]
    mask = np.ones((count, steps), bool)
    mask[-1, -1] = False
    x[-1, -1], u[-1, -1] = 9.0, 9.0  # padding, which nobody may read
    return x, u, mask


def shown(*arrays):
    return TorchSegments(*(torch.as_tensor(array) for array in arrays))


def with_weights(model, weights):
    with torch.no_grad():
        model.weights.copy_(torch.as_tensor(np.asarray(weights)))
    return model


def test_the_score_is_the_sum_of_advantages_in_closed_form():
    # Completing the square: A*(x, u) = -(r + gamma p B^2) (u + k x)^2.
    q, r = 1.0, 0.3
    k, p = riccati(q, r)
    x, u, mask = motion(30, 5)
    advantage = -(r + GAMMA * p * B**2) * (u + k * x[:, :-1])[..., 0] ** 2
    expected = (advantage * mask * GAMMA ** np.arange(5)).sum(1)
    model = with_weights(FeatureRegret(COSTS, Gains([k, 0.9, 2.0]), temperature=1e-12), [[-q, -r]])
    np.testing.assert_allclose(model.segment_members(shown(x, u, mask))[0].detach(), expected, rtol=1e-9)


def test_it_agrees_with_the_oracle_of_deterministic_regret():
    class Values:
        gamma, source = GAMMA, "closed form"

        def v(self, observations):
            return -riccati(1.0, 0.3)[1] * observations[..., 0] ** 2

    x, u, mask = motion(30, 5)
    rewards = -(x[:, :-1] ** 2 + 0.3 * u**2)[..., 0] * mask
    judged = JudgedSegments(x, u, rewards, {}, mask, np.zeros(30, bool))
    model = with_weights(FeatureRegret(COSTS, Gains([riccati(1.0, 0.3)[0]])), [[-1.0, -0.3]])
    expected = DeterministicRegret(Values()).utility(judged)[:, 0]
    np.testing.assert_allclose(model.segment_members(shown(x, u, mask))[0].detach(), expected, rtol=1e-9)


def test_on_a_deterministic_grid_it_is_the_grids_own_model():
    mdp = random_grid(np.random.default_rng(0)).mdp
    dims = len(mdp.weights)
    policies = policies_for_weights(mdp, random_weights(6, dims, np.random.default_rng(1)))
    mean = torch.tensor(mdp.expected_features())

    class Exact:
        gamma, table = mdp.gamma, torch.tensor(successor_features(mdp, policies))

        def __call__(self, obs):
            return self.table[:, obs.long()]

    features = Features(tuple(mdp.feature_names), lambda obs, act: mean[obs.long(), act.long()])
    seen = shown(*random_segments(mdp, 100, 1, np.random.default_rng(2)))  # of one step: the grids' do not discount
    weights = random_weights(2, dims, np.random.default_rng(3)) / 10
    pairs = {
        LinearRegret(mdp, policies, 2, 1.0): FeatureRegret(features, Exact(), 2, 1.0),
        LinearReward(mdp, 2): FeatureReward(features, 2),
    }
    for tabular, general in pairs.items():
        expected = with_weights(tabular, weights).segment_members(seen).detach()
        assert expected.std() > 0.1
        np.testing.assert_allclose(with_weights(general, weights).segment_members(seen).detach(), expected, atol=1e-8)


def test_the_gradient_goes_through_the_values():
    x, u, mask = motion(8, 3)
    model = FeatureRegret(COSTS, Gains([0.8, 1.5, 2.5]), temperature=0.5)
    read = model.read(shown(x, u, mask))

    def total(w):
        return float(with_weights(model, w)(read).sum().detach())

    point = np.array([[-1.0, -0.4]])
    with_weights(model, point)(read).sum().backward()
    steps = 1e-6 * np.eye(2)[:, None]
    numeric = [(total(point + step) - total(point - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(model.weights.grad[0], numeric, rtol=1e-5)


def test_labels_by_regret_tell_the_reward_that_partial_returns_of_them_do_not():
    q, r = 1.0, 0.3
    k, p = riccati(q, r)
    x, u, mask = motion(400, 5)
    advantage = (-(r + GAMMA * p * B**2) * (u + k * x[:, :-1])[..., 0] ** 2 * mask * GAMMA ** np.arange(5)).sum(1)
    choice = np.eye(2)[advantage.reshape(-1, 2).argmax(1)]
    ratio = {}
    starts = -np.array([[1.0, 10.0], [1.0, 1.0], [10.0, 1.0]])
    for name, model in {
        "regret": FeatureRegret(COSTS, Gains([0.5, 1.5, 2.5]), starts=starts),
        "partial": FeatureReward(COSTS),
    }.items():
        fit_linear(model, shown(x, u, mask), choice, steps=200)
        weights = model.weights[0].detach().numpy()
        ratio[name] = weights[1] / weights[0]
    assert ratio["regret"] == pytest.approx(r / q, rel=0.1)
    assert ratio["partial"] < r / q / 2


def test_quadratic_features_are_all_products_of_scaled_entries():
    observation = gym.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 4.0]), dtype=np.float64)
    action = gym.spaces.Box(-1.0, 3.0, (1,), dtype=np.float64)
    features = quadratic_features(observation, action)
    # Scaled: 1 / 2, 3 / 2 - 1 = 1 / 2 and (0 + 1) / 2 - 1 = -1 / 2.
    got = features(torch.tensor([1.0, 3.0]), torch.tensor([0.0]))
    assert features.names == ("o0", "o1", "a0", "o0 o0", "o0 o1", "o0 a0", "o1 o1", "o1 a0", "a0 a0")
    np.testing.assert_allclose(got, [0.5, 0.5, -0.5, 0.25, 0.25, -0.25, 0.25, -0.25, 0.25])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="temperature=0"):
        FeatureRegret(COSTS, Gains([1.0]), temperature=0)
    box = gym.spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(ValueError, match=r"observation_space=.*bounded Box"):
        quadratic_features(gym.spaces.Box(-np.inf, np.inf, (2,)), box)
    with pytest.raises(ValueError, match=r"action_space=.*bounded Box"):
        quadratic_features(box, gym.spaces.Discrete(3))
