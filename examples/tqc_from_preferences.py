"""TQC, from sb3-contrib, learns Pendulum from 200 answers. Any off-policy algorithm goes in its place."""

import sys

import gymnasium as gym
from sb3_contrib import TQC

import prefenvs
from prefenvs.agents import PreferenceCallback, PreferenceConfig, RewardReplayBuffer
from prefenvs.agents.evaluation import evaluate

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 15_000
env = gym.make("prefenvs/Pendulum-v0", teacher="noisy", budget=200)
config = PreferenceConfig(
    queries=200, sessions=8, first_session=300, last_session=8000, hidden=(64, 64), reward_lr=1e-3
)
asker = PreferenceCallback(prefenvs.feedback(env), config, seed=0)
small = {"net_arch": [64, 64]}
model = TQC("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, policy_kwargs=small, learning_rate=1e-3, seed=0)
model.learn(steps, callback=asker)
print(f"{asker.feedback.asked} questions asked, {asker.feedback.answered} answered")
print(f"true return {evaluate(model, 'prefenvs/Pendulum-v0', 5).mean:.0f}; random play gets about -1200")
