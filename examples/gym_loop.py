"""Plain Gymnasium: step a preference environment, keep what was seen, ask which of two segments is better."""

import sys

import gymnasium as gym
import numpy as np

import prefenvs

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
env = gym.make("prefenvs/HalfCheetah-v0", oracle="partial_return", teacher="mistake", budget=100)
feedback = prefenvs.feedback(env)
store = prefenvs.SegmentStore(env.observation_space, env.action_space, num_envs=1, task="HalfCheetah")

observation, info = env.reset(seed=0)
env.action_space.seed(0)
for _ in range(steps):
    action = env.action_space.sample()  # your policy goes here
    after, _, terminated, truncated, info = env.step(action)  # the reward is always 0.0
    step = (observation, action, after, terminated, truncated, info["segment_id"])
    store.add(*(np.asarray(part)[None] for part in step))
    observation = env.reset()[0] if terminated or truncated else after

query = prefenvs.Query(store.sample(2 * 50, steps=50, rng=np.random.default_rng(0)))  # 50 questions, 2 segments each
label = feedback.ask(query)  # fit a reward model to these
scores = prefenvs.true_scores(env, query.segments).reshape(-1, 2)  # for metrics only
right = (scores.argmax(1) == label.choice.argmax(1))[~label.skipped].mean()
print(f"asked {feedback.asked} of {feedback.budget}; {right:.0%} of the answers agree with the true return")
