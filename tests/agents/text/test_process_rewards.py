"""Learners that are rewarded step by step, by a process reward that was given or learned from the teacher."""

import gymnasium as gym
import pytest
import torch

import prefenvs
from prefenvs.agents.reward_models.text import ProcessReward
from prefenvs.agents.text.grpo import GRPO, GRPOConfig
from prefenvs.agents.text.ppo import TokenPPO, TokenPPOConfig
from prefenvs.agents.text.rewards import TextPreferenceConfig
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import Decoder, Tabular

STOP = language_of("TextArithmetic").encode(";")
BY_NAME = TextPreferenceConfig(60, reward_model="process", reward_options={"separators": STOP}, epochs=2)
LETTERS = language_of("TextEnum")


def decoder():
    language = language_of("TextArithmetic")
    context = language.prompt_tokens.shape[1] + language.max_new_tokens
    return Decoder(language.vocab_size, context, layers=1, width=16, heads=2)


def solver(cls, config, **arguments):
    envs = gym.make_vec("prefenvs/TextArithmetic-v0", num_envs=32, view="completion", budget=60)
    return cls(decoder(), envs, config=config, device="cpu", **arguments)


@pytest.mark.parametrize("transform", ["delta_steps", "log_steps"])
def test_ppo_on_arithmetic_is_paid_at_the_end_of_each_step_by_a_model_asked_for_by_name(transform):
    config = TokenPPOConfig(transform=transform, beta=0.0, trace=1.0, whiten=False, epochs=1)
    learner = solver(TokenPPO, config, preferences=BY_NAME)
    learner.prepare()
    assert isinstance(learner.reward, ProcessReward)
    experience = learner.roll_out()
    quality, ends = learner.reward.steps(experience.prompts, experience.tokens)
    assert quality.shape[1] > 1, "some of these have several steps"
    at_ends = torch.zeros_like(experience.mask).scatter(1, ends.clamp(min=0), ends >= 0)
    assert (experience.token_rewards[~at_ends] == 0).all()
    torch.testing.assert_close(experience.token_rewards.sum(1), experience.rewards)
    # A critic that is still 0, and no discount: what is learned is what is still to come.
    to_go = experience.token_rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(experience.targets["returns"], to_go * experience.mask)
    before = [p.clone() for p in learner.policy.parameters()]
    learner.learn(64)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.policy.parameters(), strict=True))


def test_steps_that_are_right_are_learned_from_a_model_of_labelled_steps():
    """Each letter is a step, and only an "a" is right: the model learns that, and each policy from the model."""
    shape = (LETTERS.prompt_tokens, LETTERS.vocab_size, LETTERS.max_new_tokens)
    rng = torch.Generator().manual_seed(0)
    model = ProcessReward(Tabular(*shape), rng=rng, separators=(1, 2, 3))
    prompts = torch.from_numpy(LETTERS.prompt_tokens).repeat(40, 1)
    written = Tabular(*shape).sample(prompts, 4, rng).tokens
    right = (written.gather(1, model.logits(prompts, written)[1].clamp(min=0)) == 1).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        model.step_loss(prompts, written, right).mean().backward()
        optimizer.step()
    model.requires_grad_(False)
    settings = {"learning_rate": 0.1, "beta": 0.0, "transform": "log_steps"}
    for cls in (GRPO, TokenPPO):
        envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion")
        learner = cls(Tabular(*shape), envs, reward=model, config=cls.config_class(**settings), device="cpu")
        before, after = ((e.tokens == 1).sum() / (e.tokens > 0).sum() for e in (learner.roll_out(), learned(learner)))
        assert after > before + 0.2, (cls.__name__, before, after)


def learned(learner):
    return learner.learn(64 * 30).roll_out()


@pytest.mark.parametrize("reward", [None, lambda prompts, completions: completions.sum(1)])
def test_a_reward_without_steps_is_refused_before_anything_is_asked(reward):
    with pytest.raises(ValueError, match="separators"):
        solver(GRPO, GRPOConfig(transform="delta_steps"), reward=reward)


def test_the_steps_of_a_resumed_run_go_on_as_they_were():
    config = TokenPPOConfig(transform="delta_steps", epochs=1)
    unbroken, first = (solver(TokenPPO, config, preferences=BY_NAME).learn(n) for n in (96, 32))
    resumed = solver(TokenPPO, config, preferences=BY_NAME)
    resumed.load_state(first.state())
    resumed.learn(64, reset_num_timesteps=False)
    assert prefenvs.feedback(resumed.envs).asked == 0, "what was learned is loaded"
    assert all(torch.equal(a, b) for a, b in zip(*(m.policy.parameters() for m in (unbroken, resumed)), strict=True))
