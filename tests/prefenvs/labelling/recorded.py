"""An environment with recordings to ask about."""

import gymnasium as gym
import numpy as np

import prefenvs
from prefenvs import SegmentStore


def pendulum(steps=420, env_seed=1, segments=40, **settings):
    """An environment with two finished episodes, and segments of them."""
    env = gym.make("prefenvs/Pendulum-v0", **settings)
    store = SegmentStore(env.observation_space, env.action_space, task="Pendulum")
    rng = np.random.default_rng(0)
    prefenvs.feedback(env)
    observation, _ = env.reset(seed=env_seed)
    for _ in range(steps):
        action = rng.uniform(-2, 2, (1,)).astype(np.float32)
        after, _, terminated, truncated, info = env.step(action)
        ids = info["segment_id"][None]
        store.add(observation[None], action[None], after[None], [terminated], [truncated], ids)
        observation = after
        if truncated:
            observation, _ = env.reset()
    return env, store.sample(segments, 25, np.random.default_rng(2)) if segments else None
