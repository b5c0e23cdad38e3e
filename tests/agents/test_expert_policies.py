import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import DummyVecEnv

from prefenvs.agents import expert_policies, experts
from prefenvs.agents.expert_policies import LEARNERS, SquashedActions, mode_layers
from prefenvs.agents.experts import CHECKS, ExpertSettings, train_policy
from prefenvs.oracles.value_nets import NetworkValues

ARGUMENTS = {"SAC": {"learning_starts": 2}, "PPO": {"learning_rate": 1e-3, "n_steps": 8, "batch_size": 16}}
FEW = dict(hidden=(16, 16), gamma=0.9, seed=0, steps=96)


def trained(name, env_id="prefenvs/Hopper-v0", **settings):
    return LEARNERS[name](env_id, 2, **FEW, **ARGUMENTS[name], **settings).learn(96)


def observations(model):
    return np.random.default_rng(0).normal(size=(50, *model.observation_space.shape)).astype(np.float32)


def test_the_layers_of_sac_are_its_mode():
    model = trained("SAC", "prefenvs/Pendulum-v0")
    x = observations(model)
    found = NetworkValues(mode_layers(model), (), np.float32([-2]), np.float32([2])).act(x)
    np.testing.assert_allclose(found, model.predict(x, deterministic=True)[0], atol=1e-5)


def test_the_layers_of_ppo_are_its_squashed_mode_on_unscaled_observations():
    model = trained("PPO", "prefenvs/Pendulum-v0")
    x = observations(model)
    scaled = model.get_vec_normalize_env().normalize_obs(x)
    assert np.abs(scaled - x).max() > 0.1, "else the scales prove nothing"
    mode = model.predict(scaled, deterministic=True)[0]
    found = NetworkValues(mode_layers(model), (), np.float32([-2]), np.float32([2])).act(x)
    np.testing.assert_allclose(found, 2 * np.tanh(mode), atol=1e-5)


def test_actions_are_squashed_into_the_space_of_the_task():
    played = []

    class Watched(DummyVecEnv):
        def step_async(self, actions):
            played.append(actions)
            super().step_async(actions)

    venv = SquashedActions(Watched([lambda: gym.make("prefenvs/Pendulum-v0", evaluation=True)] * 3))
    assert isinstance(venv.action_space, Box)
    venv.reset()
    venv.step(np.float32([[0.0], [np.arctanh(0.5)], [20.0]]))
    np.testing.assert_allclose(played[0], [[0.0], [1.0], [2.0]], atol=1e-6)
    assert played[0].dtype == np.float32
    venv.close()


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_seed_trains_the_same_policy(name):
    first, second = (mode_layers(trained(name)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.parametrize("name", LEARNERS)
def test_the_policy_kept_is_the_one_that_did_best_at_the_checks(monkeypatch, name):
    played, scores = [], iter([3.0, 9.0] + [1.0] * 20)

    def score(policy, *_, **__):
        played.append(policy.predict(np.random.default_rng(0).normal(size=(50, 3)))[0])
        return type("Found", (), {"mean": next(scores)})

    monkeypatch.setattr(expert_policies, "evaluate", score)
    monkeypatch.setattr(experts, "CHECK_GAP", 8)
    settings = ExpertSettings(
        96, num_envs=1, hidden=(16, 16), algorithm=name, arguments=ARGUMENTS[name] | {"batch_size": 8}
    )
    policy, others = train_policy("Pendulum", settings)
    assert len(others) == len(played) >= CHECKS
    np.testing.assert_array_equal(policy.predict(np.random.default_rng(0).normal(size=(50, 3)))[0], played[1])
    assert np.abs(played[1] - played[-1]).max() > 1e-3
