"""Learners train any model of transformers, whole or by LoRA, as they train a Decoder."""

import copy
import dataclasses
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.func import functional_call

from prefenvs.agents.reward_models.text import WordPairs
from prefenvs.agents.reward_models.text.scalar import LastStream
from prefenvs.agents.text.direct import DirectAlignment
from prefenvs.agents.text.grpo import GRPO
from prefenvs.agents.text.pair_logps import pair_logps, with_reference
from prefenvs.agents.text.ppo import TokenPPO
from prefenvs.agents.text.preference_pairs import PreferencePairs
from prefenvs.agents.text.rewards import TextPreferenceConfig
from prefenvs.agents.text.rso import RSO
from prefenvs.tasks.text.lm import TransformersModel
from prefenvs.tasks.text.lm.transformers_model import with_lora

transformers = pytest.importorskip("transformers")
LEARNERS = [DirectAlignment, GRPO, TokenPPO]
ASK = TextPreferenceConfig(queries=64, epochs=1)


def gpt2(lora=False):
    torch.manual_seed(0)  # transformers draws weights from the global generator
    config = transformers.GPT2Config(vocab_size=4, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    if lora:
        pytest.importorskip("peft")
        model = with_lora(model, {"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True})
    return TransformersModel(model, eos=0, pad=0)


def made(cls, policy):
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=32, view="completion", budget=64)
    few = {"pairs": 40, "candidates": 8} if cls is RSO else {}
    return cls(policy, envs, preferences=ASK, config=cls.config_class(learning_rate=1e-2, **few), seed=0, device="cpu")


def changed(model, before):
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


@pytest.mark.parametrize("cls", LEARNERS)
def test_a_gpt2_is_trained_from_preferences_and_its_reference_stays(cls, tmp_path):
    learner = made(cls, gpt2())
    before = {name: weight.detach().clone() for name, weight in learner.policy.named_parameters()}
    learner.learn(96)
    moved = changed(learner.policy, before)
    assert len(moved) > len(before) / 2
    assert not changed(learner.reference, before)
    learner.save(tmp_path / "agent")
    loaded = cls.load(tmp_path / "agent", learner.envs, policy=gpt2(), device="cpu")
    assert not changed(loaded.policy, dict(learner.policy.named_parameters()))
    with pytest.raises(ValueError, match="language model of your own"):
        cls.load(tmp_path / "agent", learner.envs)
    observations, _ = learner.envs.reset(seed=0)
    ours, theirs = (model.predict(observations, deterministic=True)[0] for model in (learner, loaded))
    np.testing.assert_array_equal(ours, theirs)


def bits(model):
    return [parameter.detach().view(torch.int16) for parameter in model.parameters()]


@pytest.mark.parametrize("cls", LEARNERS)
def test_a_model_of_bfloat16_is_trained_and_saved_to_the_bit(cls, tmp_path):
    learner = made(cls, gpt2().to(torch.bfloat16)).learn(96)
    learner.save(tmp_path / "agent")
    loaded = cls.load(tmp_path / "agent", learner.envs, policy=gpt2().to(torch.bfloat16), device="cpu")
    moved = [not torch.equal(*pair) for pair in zip(bits(learner.policy), bits(learner.reference), strict=True)]
    assert any(moved)
    for ours, theirs in ((learner.policy, loaded.policy), (learner.reference, loaded.reference)):
        assert all(torch.equal(*pair) for pair in zip(bits(ours), bits(theirs), strict=True))
    ours, theirs = (model.optimizer.state_dict()["state"] for model in (learner, loaded))
    assert all(torch.equal(ours[place][name], theirs[place][name]) for place in ours for name in ours[place])


def test_a_policy_of_bfloat16_that_is_its_reference_has_margin_0():
    model, rng = gpt2().to(torch.bfloat16), torch.Generator().manual_seed(0)
    prompts, chosen, rejected = (torch.randint(1, 4, (64, length), generator=rng) for length in (2, 4, 4))
    pairs = with_reference(model, PreferencePairs(prompts, chosen, rejected, torch.ones(64)))
    assert torch.equal(pair_logps(model, model, pairs).margin, torch.zeros(64))


@pytest.mark.parametrize("cls", [*LEARNERS, RSO])
def test_with_lora_the_small_matrices_are_trained_alone_by_policy_critic_and_reward_and_the_rest_is_shared(
    cls, tmp_path
):
    learner = made(cls, gpt2(lora=True))
    before = {name: weight.detach().clone() for name, weight in learner.policy.named_parameters()}
    learner.learn(96)
    models = [learner.policy, *([learner.critic.trunk] if cls is TokenPPO else [])]
    models += [learner.reward.stream.trunk] if learner.reward else []
    for model in models:
        moved = changed(model, before)
        assert moved and all("lora_" in name for name in moved)
    assert not changed(learner.reference, before)
    for name, weight in learner.reference.named_parameters():
        assert all((model.get_parameter(name) is weight) == ("lora_" not in name) for model in models), name
    learner.save(tmp_path / "agent")
    loaded = cls.load(tmp_path / "agent", learner.envs, policy=gpt2(lora=True), device="cpu")
    prompts, completions = torch.tensor([[1, 2]]), torch.tensor([[3, 1, 0, 0]])
    assert not changed(loaded.policy, dict(learner.policy.named_parameters()))
    if cls in (GRPO, TokenPPO):
        assert torch.equal(*(model.proxy(prompts, completions) for model in (learner, loaded)))


@pytest.mark.parametrize("lora", [False, True])
def test_an_ensemble_of_whole_models_learns_the_reward_and_scores_as_each_of_them_would(lora):
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=32, view="completion", budget=64)
    ask = dataclasses.replace(ASK, reward_model="trunk_ensemble", reward_options={"members": 2})
    policy = gpt2(lora)
    attends = policy.model.config._attn_implementation
    learner = GRPO(policy, envs, preferences=ask, seed=0, device="cpu").learn(64)
    model, trunk = learner.reward, gpt2(lora)
    assert learner.policy.model.config._attn_implementation == attends  # of the copies alone
    prompts, completions = torch.tensor([[0, 2], [1, 3]]), torch.tensor([[1, 2, 3, 0], [1, 0, 0, 0]])
    expected = []
    for member in range(2):
        weights = {name.replace("/", "."): weight[member] for name, weight in model.trunks.items()}
        stream = functional_call(LastStream(trunk), weights, (prompts, completions))
        expected.append(stream @ model.head[member] + model.bias[member])
    torch.testing.assert_close(model.raw_scores(prompts, completions), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_merged_copy_writes_as_the_policy_and_leaves_reference_and_reward_as_they_are():
    learner = made(GRPO, gpt2(lora=True)).learn(96)
    prompts, completions = torch.tensor([[1, 2]]), torch.tensor([[3, 1, 0, 0]])

    def told():
        reference = learner.reference.logprobs(prompts, completions)
        return learner.policy.logprobs(prompts, completions), reference, learner.proxy(prompts, completions)

    before = told()
    merged = copy.deepcopy(learner.policy).model.merge_and_unload()
    merged_logps = TransformersModel(merged, eos=0, pad=0).logprobs(prompts, completions)
    assert not torch.equal(before[0], before[1])
    torch.testing.assert_close(merged_logps, before[0])
    assert all(torch.equal(*pair) for pair in zip(before, told(), strict=True))


def test_a_model_that_cannot_write_the_language_is_refused_with_how_to_show_it():
    made_by = r"TransformersModel\(model, eos=0, pad=0, vocab_size=4\)"
    with pytest.raises(TypeError, match=rf"GPT2LMHeadModel, .* has no sample, logprobs, eos, pad, .* {made_by}"):
        made(GRPO, gpt2().model)
    with pytest.raises(TypeError, match=r"WordPairs, .* has no sample, logprobs\."):
        made(GRPO, WordPairs(4))
    for other, told in (
        ({"eos": 3}, "eos=3, expected eos=0"),
        ({"vocab_size": 3}, "vocab_size=3, expected vocab_size=4"),
    ):
        with pytest.raises(ValueError, match=rf"{told} as the task's language has.* {made_by}"):
            made(DirectAlignment, TransformersModel(gpt2().model, **{"eos": 0, "pad": 0, **other}))


def test_lora_without_peft_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"prefenvs\[text\]"):
        with_lora(gpt2().model, {"r": 2})
