"""How good is the learned reward? PEBBLE on Pendulum, with its reward compared with the true one as it learns."""

import sys

import gymnasium as gym

import prefenvs  # noqa: F401  registers the environments
from prefenvs.agents import PEBBLE, PreferenceConfig, RewardMetricsCallback
from prefenvs.agents.evaluation import evaluate

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
env = gym.make("prefenvs/Pendulum-v0", budget=200)
config = PreferenceConfig(
    queries=200, sessions=8, first_session=300, last_session=8000, hidden=(64, 64), reward_lr=1e-3
)
small = {"net_arch": [64, 64]}
model = PEBBLE("MlpPolicy", env, preferences=config, policy_kwargs=small, learning_rate=1e-3, seed=0)
metrics = RewardMetricsCallback(model.preferences, ("pearson", "spearman", "starc"))  # for you, not for the learner
model.learn(steps, callback=metrics)

print("   step  pearson  spearman  starc distance")
for step, _, pearson, spearman, starc in metrics.history:
    print(f"{step:7.0f}  {pearson:7.3f}  {spearman:8.3f}  {starc:14.3f}")
print(f"asked {model.preferences.feedback.asked} questions")
print(f"true return {evaluate(model, 'prefenvs/Pendulum-v0', 5).mean:.0f}; random play gets about -1200")
