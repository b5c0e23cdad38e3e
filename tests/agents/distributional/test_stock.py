import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

import prefenvs
from prefenvs.agents import LearnedReward, RewardEnsemble, StockWrapper
from prefenvs.agents.distributional.stock import StockVecEnv


class Paid(gym.Env):
    """Pays 1, 2, 3, ... and ends after four steps; its observation is a sample of any space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.paid = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.paid += 1
        return (
            self.observation_space.sample(),
            float(self.paid),
            self.paid == 4,
            False,
            {"factors": {"up": self.paid, "down": -1}},
        )


SPACES = {
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,), np.float32)}),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_stock_is_what_it_is_by_hand(name):
    env = StockWrapper(Paid(SPACES[name]), gamma=0.5, initial_stock=-3.0)
    observation, _ = env.reset(seed=0)
    stocks = [float(observation["stock"][0])]
    for _ in range(4):
        observation, *_ = env.step(0)
        stocks.append(float(observation["stock"][0]))
        assert env.observation_space.contains(observation)
    assert stocks == [-3.0, -4.0, -4.0, -2.0, 4.0]  # (-3 + 1) / 0.5, (-4 + 2) / 0.5, (-4 + 3) / 0.5, (-2 + 4) / 0.5
    assert set(env.observation_space) == ({"a", "b", "stock"} if name == "dict" else {"observation", "stock"})
    assert float(env.reset()[0]["stock"][0]) == -3.0


def test_the_stock_and_the_return_still_to_come_keep_their_sum():
    gamma = 0.5
    env = StockWrapper(Paid(SPACES["discrete"]), gamma, initial_stock=2.0)
    env.reset(seed=0)
    stocks, rewards = [env.stock[0]], []
    for _ in range(4):
        rewards.append(env.step(0)[1])
        stocks.append(env.stock[0])
    to_come = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(5)]
    totals = [gamma**t * (stocks[t] + to_come[t]) for t in range(5)]  # c_t + G_t = gamma (c_{t+1} + G_{t+1})
    np.testing.assert_allclose(totals, totals[0], rtol=0, atol=1e-12)


def test_factors_make_a_vector_and_a_function_chooses_the_beginning():
    env = StockWrapper(
        Paid(SPACES["discrete"]), 0.5, lambda observation: np.array([1.0, observation]), factors=("up", "down")
    )
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation["stock"], [1.0, observation["observation"]])
    after, reward, *_ = env.step(0)
    np.testing.assert_array_equal(after["stock"], [4.0, 2 * observation["observation"] - 2])
    assert reward == 1.0


def test_gymnasium_accepts_it_around_the_evaluation_door():
    check_env(StockWrapper(gym.make("prefenvs/GridWindy-v0", evaluation=True), 0.99), skip_render_check=True)


def test_a_hidden_reward_is_refused_and_a_learned_one_is_not():
    env = gym.make("prefenvs/GridWindy-v0", budget=1)
    with pytest.raises(ValueError, match=r"so no stock can be made of it\. Either give reward="):
        StockWrapper(env, 1.0)
    learned = StockWrapper(env, 1.0, 5.0, reward=lambda observation, action, after: after - observation - 10.0 * action)
    before, _ = learned.reset(seed=0)
    after, reward, *_ = learned.step(0)
    assert reward == float(after["observation"]) - float(before["observation"])
    assert after["stock"][0] == 5.0 + reward


def draw(episodes, rng):
    return rng.choice([-1.0, 1.0], size=episodes)


def test_a_vector_env_keeps_a_stock_each_and_gives_the_final_one_with_the_terminal_observation():
    venv = StockVecEnv(DummyVecEnv([lambda: Paid(SPACES["discrete"])] * 3), 0.5, draw)
    venv.seed(0)
    first = venv.reset()["stock"][:, 0]
    for step in range(4):
        observations, rewards, dones, infos = venv.step(np.zeros(3, int))
        if step < 3:
            first = (first + rewards) / 0.5
            np.testing.assert_array_equal(observations["stock"][:, 0], first)
    assert dones.all()
    for i in range(3):
        assert infos[i]["terminal_observation"]["stock"] == (first[i] + 4.0) / 0.5
    assert set(observations["stock"][:, 0]) <= {-1.0, 1.0}


def test_a_vector_of_preference_environments_needs_a_learned_reward():
    venv = DummyVecEnv([lambda: gym.make("prefenvs/CartPole-v0", budget=1)] * 2)
    with pytest.raises(ValueError, match="wrap the VecEnv in LearnedReward"):
        StockVecEnv(venv, 1.0, draw)
    model = RewardEnsemble(venv.observation_space, venv.action_space, members=1, hidden=(4,), rng=torch.Generator())
    model.trained.fill_(True)
    learned = StockVecEnv(LearnedReward(venv, model), 1.0, draw)
    before = learned.reset()["stock"][:, 0]
    observations, rewards, _, _ = learned.step(np.zeros(2, int))
    np.testing.assert_allclose(observations["stock"][:, 0], before + rewards, rtol=1e-6)
    assert rewards.any()


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"gamma=0 is not a discount"):
        StockWrapper(Paid(SPACES["box"]), 0)
    with pytest.raises(ValueError, match="give one of them"):
        StockWrapper(Paid(SPACES["box"]), 1.0, factors=("up",), reward=lambda *_: 0.0)
    with pytest.raises(ValueError, match="has a 'stock' already"):
        StockWrapper(StockWrapper(Paid(SPACES["box"]), 1.0), 1.0)
    env = StockWrapper(gym.make("CartPole-v1"), 1.0, factors=("goal",))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="info has no 'factors'"):
        env.step(0)


def test_the_package_exports_it():
    assert prefenvs.agents.StockWrapper is StockWrapper
