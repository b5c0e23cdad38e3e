"""A policy is scored by the true reward on what it was trained on, or not at all."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeObservation, RescaleAction
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import prefenvs
from prefenvs.agents.evaluation import EvalCallback, evaluate


class Remembers:
    """Acts at random and keeps what it was shown."""

    def __init__(self, env):
        self.observation_space, self.action_space, self.shown = env.observation_space, env.action_space, []

    def predict(self, observation, deterministic):
        self.shown.append(observation)
        return self.action_space.sample(), None


@pytest.mark.parametrize("made", ["MountainCar-v0", lambda: gym.make("MountainCar-v0")], ids=["id", "function"])
def test_any_environment_can_be_played(made):
    found = evaluate(None, made, 2)
    assert (found.mean, found.success, found.episodes) == (-200.0, None, 2)


def test_a_task_is_played_through_the_evaluation_door_by_its_id():
    assert evaluate(None, "prefenvs:prefenvs/Pendulum-v0", 1).mean < -100
    assert evaluate(None, "prefenvs/Pendulum-v0", 1) == evaluate(
        None, lambda: gym.make("prefenvs/Pendulum-v0", evaluation=True), 1
    )


@pytest.mark.parametrize(
    "made", [lambda: gym.make("prefenvs/Pendulum-v0"), lambda: prefenvs.wrap(gym.make("MountainCar-v0"))]
)
def test_a_hidden_reward_is_refused(made):
    with pytest.raises(ValueError, match="hides its reward"):
        evaluate(None, made, 1)


@pytest.mark.parametrize(
    "wrapped",
    [lambda env: NormalizeObservation(env), lambda env: RescaleAction(env, -1, 1)],
    ids=["observations", "actions"],
)
def test_a_policy_trained_in_wrappers_is_played_in_them_and_not_without(wrapped):
    policy = Remembers(wrapped(gym.make("prefenvs/Pendulum-v0")))
    with pytest.raises(ValueError, match="give a function that makes the environment in the same ones"):
        evaluate(policy, "prefenvs/Pendulum-v0", 1)
    assert not policy.shown
    evaluate(policy, lambda: wrapped(gym.make("prefenvs/Pendulum-v0", evaluation=True)), 1)
    assert len(policy.shown) == 200


def test_a_policy_is_shown_observations_as_its_vecnormalize_normalizes_them():
    venv = VecNormalize(make_vec_env("Pendulum-v1", 2))
    model = PPO("MlpPolicy", venv, n_steps=64, seed=0, device="cpu").learn(256)
    policy, before = Remembers(venv), venv.obs_rms.count
    evaluate(policy, "Pendulum-v1", 1)
    raw = np.array(policy.shown)
    policy.shown, policy.get_vec_normalize_env = [], model.get_vec_normalize_env
    policy.action_space.seed(0)
    evaluate(policy, "Pendulum-v1", 1)
    np.testing.assert_allclose(policy.shown[0], venv.normalize_obs(raw[0]))
    assert not np.allclose(policy.shown[0], raw[0])
    assert venv.obs_rms.count == before, "and learns nothing from them"


def test_the_callback_takes_a_function_too():
    curve = EvalCallback(lambda: gym.make("CartPole-v1"), every=64, episodes=1)
    PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(128, callback=curve)
    assert curve.curve[:, 0].tolist() == [0, 64]
    assert (curve.curve[:, 1] > 0).all()


def test_a_policy_of_discrete_observations_and_actions_is_played():
    assert 0.0 <= evaluate(PPO("MlpPolicy", "FrozenLake-v1", device="cpu"), "FrozenLake-v1", 3).mean <= 1.0


def test_a_policy_of_another_discrete_space_is_refused_and_the_environment_closed():
    class Watched(gym.Wrapper):
        closed = 0

        def close(self):
            Watched.closed += 1
            super().close()

    policy = PPO("MlpPolicy", "FrozenLake-v1", device="cpu")
    with pytest.raises(ValueError, match=r"trained with observation_space Discrete\(16\), .* has Discrete\(64\)"):
        evaluate(policy, lambda: Watched(gym.make("FrozenLake-v1", map_name="8x8")), 1)
    assert Watched.closed == 1
