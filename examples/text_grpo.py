"""A language model learns from preferences: pre-train, ask the teacher, fit a reward, optimise with GRPO."""

import sys

import gymnasium as gym

import prefenvs
from prefenvs.agents import GRPO, TextPreferenceConfig
from prefenvs.agents.text.evaluation import evaluate_text
from prefenvs.agents.text.grpo import GRPOConfig

completions = int(sys.argv[1]) if len(sys.argv) > 1 else 7680
envs = gym.make_vec("prefenvs/TextSentiment-v0", num_envs=64, view="completion", teacher="mistake", budget=1000)
ask = TextPreferenceConfig(queries=min(1000, completions), learning_rate=1e-3, epochs=4)
config = GRPOConfig(learning_rate="lin_3e-4", beta=0.1, kl="reward")  # or a variant: GRPO_VARIANTS["dr_grpo"]
decoder = {"width": 64, "steps": min(600, completions // 4)}  # any LanguageModel goes in its place
model = GRPO("decoder", envs, config=config, preferences=ask, policy_kwargs=decoder, seed=0)

model.prepare()  # asks and fits; learn() would do it
before = evaluate_text(model, "prefenvs/TextSentiment-v0")  # through the evaluation door, for you alone
model.learn(completions)
after = evaluate_text(model, "prefenvs/TextSentiment-v0")

print(f"{prefenvs.feedback(envs).asked} questions asked; held-out accuracy {model.report.held_out_accuracy:.0%}")
print(f"true return {before.mean:.2f} before, {after.mean:.2f} after; KL {after.kl:.2f} nats")
for prompt, completion, reward in after.examples:
    print(f"  {prompt} | {completion} ({reward:.2f})")
