"""Preferences -> reward model -> a policy for the worst quarter of outcomes, and a picture of the way it takes."""

import sys

import gymnasium as gym
import imageio.v3 as iio
import numpy as np

from prefenvs.agents import PreferenceConfig, PrefPPO, QuantileDQN, StockWrapper
from prefenvs.agents.distributional import CVaR
from prefenvs.agents.learned_reward import predict_rewards

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
env = gym.make("prefenvs/GridLedge-v0", budget=400)
config = PreferenceConfig(
    queries=400, sessions=4, first_session=steps // 10, last_session=steps // 3, segment_steps=8, hidden=(64, 64)
)
asker = PrefPPO("MlpPolicy", env, preferences=config, n_steps=128, ent_coef=0.05, seed=0).learn(steps // 2)
reward_model = asker.preferences.reward_model

cvar = {"name": "cvar", "tau": 0.25}
model = QuantileDQN(
    "MlpPolicy",
    asker.get_env(),
    functional=cvar,
    stocks=range(-8, 17),
    learning_rate=1e-3,
    seed=0,
    learning_starts=100,
    exploration_fraction=0.6,
    target_update_interval=200,
    relabel_stocks=True,
)
model.learn(steps)  # rewards come from the reward model, and so does the stock


def learned(observation, action, after):
    return predict_rewards(reward_model, np.array([observation]), np.array([action])).item()


door = gym.make("prefenvs/GridLedge-v0", evaluation=True, render_mode="rgb_array")
play = StockWrapper(door, model.gamma, model.initial_stock, reward=learned)
returns, frames = [], []
for episode in range(40):
    observation, _ = play.reset(seed=episode)
    true_return, over = 0.0, False
    while not over:
        frames += [play.render()] if episode == 0 else []
        observation, _, terminated, truncated, info = play.step(model.predict(observation, deterministic=True)[0])
        true_return, over = true_return + sum(info["factors"].values()), terminated or truncated
    returns.append(true_return)
worst = CVaR(0.25)(np.array(returns), np.full(40, 1 / 40))
iio.imwrite("risk_averse.png", np.min(frames, axis=0))
print(f"asked {asker.preferences.feedback.asked} of 400; the way is drawn in risk_averse.png")
print(f"true return {np.mean(returns):.1f}, its worst quarter {worst:.1f}")
