"""What every agent for text in AGENTS promises: it learns a task from preferences alone, saves, loads and repeats."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

import prefenvs
from prefenvs.agents import AGENTS, TextPreferenceConfig
from prefenvs.agents.text.evaluation import evaluate_text
from prefenvs.agents.train import agent_class, writes_text
from prefenvs.error import DamagedFile, RunMismatch
from prefenvs.tasks.text.enumerable import TextBandit
from prefenvs.tasks.text.lm import Decoder, Tabular

TEXT_AGENTS = [name for name in AGENTS if writes_text(name)]
TASK = TextBandit()
ASKED = TextPreferenceConfig(queries=800, learning_rate=3e-2, epochs=20)
ONLINE = {"learning_rate": 0.2}
SETTINGS = {
    "best_of_n": {"group": 8},
    "dpo": {"learning_rate": 0.2, "options": {"beta": 0.3}},
    "grpo": ONLINE,
    "p3o": ONLINE,
    "reward_weighted": {"learning_rate": 0.2, "beta": 0.1},
    "rloo": ONLINE,
    "rso": {"learning_rate": 0.2, "options": {"beta": 0.3}, "pairs": 1500, "candidates": 8},
    "token_ppo": {**ONLINE, "critic_learning_rate": 5e-2},
}
"""Settings with which each agent learns the task within 64 * 60 of its unit."""


def table(seed=0):
    language = TASK.language
    return Tabular.of(language, seed=seed)


def envs():
    return gym.make_vec("prefenvs/TextBandit-v0", num_envs=64, view="completion", budget=800)


def make(name, policy=None, **changes):
    cls = agent_class(name)
    arguments = {"config": cls.config_class(**SETTINGS[name]), "preferences": ASKED, "seed": 0, "device": "cpu"}
    return cls(policy or table(), envs(), **{**arguments, **changes})


@pytest.fixture(scope="module", params=TEXT_AGENTS)
def learned(request):
    assert request.param in SETTINGS, f"give SETTINGS with which {request.param} learns the task."
    return request.param, make(request.param).learn(64 * 60)


def test_an_agent_learns_from_preferences_alone(learned):
    name, model = learned
    # The best of one is the reference.
    reference = make("best_of_n", config=agent_class("best_of_n").config_class(group=1), reward=lambda p, c: c.sum(1))
    reference.prepare()
    before, after = (evaluate_text(m, "prefenvs/TextBandit-v0", 400).mean for m in (reference, model))
    assert after > before + 0.3, (name, before, after)  # the best arms are worth 2.3 on average, the reference about 0
    assert prefenvs.feedback(model.envs).asked == 800
    assert not any(hasattr(model.envs, door) for door in ("task", "rewards"))


def test_an_agent_has_the_surface_of_an_sb3_algorithm(learned):
    _, model = learned
    for member in ("learn", "predict", "save", "load", "get_env", "set_logger", "policy", "logger", "num_timesteps"):
        assert hasattr(model, member), member
    assert model.unit in ("completions", "pairs")
    observations, _ = model.get_env().reset(seed=0)
    action, state = model.predict(observations)
    assert state is None
    assert action.shape == (64, 1)
    assert model.get_env().action_space.contains(action.astype(model.get_env().action_space.dtype))
    one = {key: value[0] for key, value in observations.items()}
    assert model.predict(one, deterministic=True)[0].shape == (1,)
    assert model.num_timesteps >= 64 * 60


def test_a_saved_agent_writes_the_same_and_can_go_on(learned, tmp_path):
    name, model = learned
    model.save(tmp_path / "agent")
    cls = type(model)
    loaded = cls.load(tmp_path / "agent", envs(), policy=table(seed=9), device="cpu")
    assert loaded.config == model.config
    prompts = torch.from_numpy(TASK.language.prompt_tokens)
    ours, theirs = (m.complete(prompts, torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(ours, theirs)
    before = loaded.num_timesteps
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps >= before + 64
    assert prefenvs.feedback(loaded.envs).asked == 0, "it had its answers"
    written = torch.zeros(len(prompts), 1, dtype=torch.int64)
    proxies = [m.proxy(prompts, written) for m in (model, loaded)]
    assert torch.equal(*proxies) if name != "dpo" else proxies == [None, None]
    with pytest.raises(ValueError, match="language model of your own"):
        cls.load(tmp_path / "agent", envs())
    other = agent_class("rloo" if name != "rloo" else "grpo")
    with pytest.raises(RunMismatch, match="load it with"):
        other.load(tmp_path / "agent", envs(), policy=table())
    (tmp_path / "broken.zip").write_bytes(b"nothing")
    with pytest.raises(DamagedFile, match="left as it is"):
        cls.load(tmp_path / "broken", envs())


@pytest.mark.parametrize("name", TEXT_AGENTS)
def test_a_reward_of_one_s_own_is_asked_for_again_when_loaded(name, tmp_path):
    def first(prompts, completions):
        return completions[:, 0].float()

    make(name, reward=first, preferences=TextPreferenceConfig(queries=20)).learn(64).save(tmp_path / "agent")
    cls, loading = agent_class(name), {"policy": table(seed=9), "device": "cpu"}
    with pytest.raises(ValueError, match=r"with reward= of your own, .* load\(path, env, reward=\.\.\.\)"):
        cls.load(tmp_path / "agent", envs(), **loading)
    loaded = cls.load(tmp_path / "agent", envs(), reward=first, **loading)
    assert loaded.reward is first
    assert cls.load(tmp_path / "agent", envs(), reward=None, **loading).reward is None  # to learn one from now on


@pytest.mark.parametrize("name", sorted(set(TEXT_AGENTS) - {"dpo"}))
def test_a_reward_given_to_load_takes_the_place_of_the_learned_one(name, tmp_path):
    make(name, preferences=TextPreferenceConfig(queries=20, epochs=1)).learn(64).save(tmp_path / "agent")

    def other(prompts, completions):
        return completions[:, 0].float()

    loaded = agent_class(name).load(tmp_path / "agent", envs(), reward=other, policy=table(seed=9), device="cpu")
    prompts = torch.from_numpy(TASK.language.prompt_tokens)
    assert torch.equal(loaded.proxy(prompts, prompts[:, :1]), other(prompts, prompts[:, :1]))


@pytest.mark.parametrize("name", TEXT_AGENTS)
def test_a_decoder_is_saved_with_its_shape(name, tmp_path):
    decoder = Decoder(30, 3, layers=1, width=8, heads=2)
    model = make(name, decoder, preferences=TextPreferenceConfig(queries=20, epochs=1)).learn(64)
    model.save(tmp_path / "agent.zip")
    loaded = type(model).load(tmp_path / "agent.zip", envs(), device="cpu")
    for one, other in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", TEXT_AGENTS)
def test_settings_are_given_by_name_as_subclasses_may_add_some_before_others(name):
    with pytest.raises(TypeError, match="positional argument"):
        agent_class(name).config_class(1e-3)


@pytest.mark.parametrize("name", TEXT_AGENTS)
def test_a_callback_sees_every_iteration_and_can_stop(name):
    seen = []

    class Stop(BaseCallback):
        def _on_step(self):
            seen.append(self.num_timesteps)
            return len(seen) < 2

    model = make(name, preferences=TextPreferenceConfig(queries=60, epochs=1))
    model.learn(64 * 10, callback=[Stop()])
    assert len(seen) == 2
    assert model.num_timesteps == seen[-1] <= 128
    assert np.isfinite(model.logger.name_to_value.get("train/loss", 0.0))


@pytest.mark.parametrize("name", TEXT_AGENTS)
def test_an_agent_learns_on_any_device_and_is_loaded_on_the_cpu(name, device, tmp_path):
    model = make(name, device=device).learn(64 * 60)
    assert evaluate_text(model, "prefenvs/TextBandit-v0", 400).mean > 0.25  # of the reference it is about 0
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", envs(), policy=table(seed=9), device="cpu")
    prompts = torch.from_numpy(TASK.language.prompt_tokens)
    if name != "best_of_n":  # which draws
        ours, theirs = (m.policy.to("cpu").logprobs(prompts, prompts[:, :1]) for m in (model, loaded))
        torch.testing.assert_close(ours, theirs)
