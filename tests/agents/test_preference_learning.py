"""Learners hold what the oracle judged, learn from it, save and load."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env

import prefenvs
from prefenvs.agents import PEBBLE, LearnedReward, PreferenceConfig, PrefPPO, RewardEnsemble
from prefenvs.agents.checkpoint import read_folder, write_folder
from prefenvs.agents.learned_reward import predict_rewards
from prefenvs.agents.presets import PRESETS
from prefenvs.agents.train import Run, open_folder

SMALL = PreferenceConfig(
    queries=24, sessions=3, first_session=200, last_session=500, segment_steps=15, hidden=(8,), reward_epochs=4
)


def pebble(seed=0, steps=620, **settings):
    env = make_vec_env("prefenvs/Pendulum-v0", 2, env_kwargs={"budget": 24} | settings)
    model = PEBBLE(
        "MlpPolicy", env, preferences=SMALL, learning_starts=150, batch_size=16, buffer_size=2000, seed=seed,
        policy_kwargs={"net_arch": [8]}, device="cpu", reset_updates=5,
    )  # fmt: skip
    return model.learn(steps)


def prefppo(seed=0, task="CartPole"):
    env = make_vec_env(f"prefenvs/{task}-v0", 2, env_kwargs={"budget": 24})
    config = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    return PrefPPO("MlpPolicy", env, preferences=SMALL, seed=seed, **config).learn(640)


@pytest.mark.parametrize("make", [pebble, prefppo])
def test_a_learner_holds_just_what_the_oracle_judges(make):
    learner = make().preferences
    segments = learner.store.sample(60, 15, np.random.default_rng(0))
    judged = learner.feedback._judge(segments)
    np.testing.assert_array_equal(judged.mask, segments.mask)
    np.testing.assert_array_equal(judged.observations, segments.observations)
    np.testing.assert_array_equal(judged.actions, segments.actions)
    np.testing.assert_array_equal(judged.terminated, segments.terminated)
    assert learner.feedback.asked == 24
    assert learner.session == 3


def test_short_segments_of_failed_episodes_are_among_them():
    segments = prefppo().preferences.store.sample(200, 15, np.random.default_rng(0))
    assert segments.terminated.any()
    assert (segments.lengths[~segments.terminated] == 15).all()
    assert (segments.lengths < 15).any()


def test_the_replay_buffer_holds_the_rewards_of_the_model():
    model = pebble()
    buffer = model.replay_buffer
    size = buffer.size()
    low, high = model.action_space.low, model.action_space.high
    for row in range(2):
        actions = buffer.actions[:size, row] * (high - low) / 2 + (high + low) / 2  # SB3 keeps them in [-1, 1]
        expected = predict_rewards(model.preferences.reward_model, buffer.observations[:size, row], actions)
        np.testing.assert_allclose(buffer.rewards[:size, row], expected, atol=1e-5)


def test_the_exploration_reward_is_the_distance_to_the_fifth_neighbour():
    env = gym.make("prefenvs/Pendulum-v0", budget=24)
    model = PEBBLE("MlpPolicy", env, preferences=SMALL, learning_starts=50, buffer_size=100, seed=0, device="cpu")
    model.learn(60)
    buffer = model.replay_buffer
    buffer.novelty = np.zeros(3)
    index = np.arange(8)
    rewards = buffer._get_samples(index).rewards[:, 0].numpy()
    seen = buffer.observations[: buffer.size(), 0]
    distances = np.sort(np.linalg.norm(seen[index, None] - seen[None], axis=-1), 1)[:, 5]
    np.testing.assert_allclose(rewards, distances / distances.std(), rtol=1e-3)


def test_a_learned_reward_is_the_models_reward_of_the_step():
    venv = make_vec_env("prefenvs/Pendulum-v0", 3)
    model = RewardEnsemble(venv.observation_space, venv.action_space, hidden=(8,), rng=torch.Generator().manual_seed(0))
    env = LearnedReward(venv, model)
    before = env.reset()
    actions = np.random.default_rng(0).uniform(-2, 2, (3, 1)).astype(np.float32)
    assert not env.step(actions)[1].any(), "0 until the model is trained"
    model.trained.fill_(True)
    before = env.reset()
    rewards = env.step(actions)[1]
    np.testing.assert_allclose(rewards, model.reward(torch.tensor(before), torch.tensor(actions)).detach(), rtol=1e-5)


@pytest.mark.parametrize("make", [pebble, prefppo])
def test_the_same_seed_gives_the_same_agent_and_another_another(make):
    one, two, other = make(1), make(1), make(2)
    same = [torch.equal(a, b) for a, b in zip(one.policy.parameters(), two.policy.parameters(), strict=True)]
    assert all(same)
    weights = zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize(("make", "cls", "task"), [(pebble, PEBBLE, "Pendulum"), (prefppo, PrefPPO, "CartPole")])
def test_a_saved_agent_acts_and_rewards_as_before(make, cls, task, tmp_path):
    model = make()
    model.save(tmp_path / "agent")
    loaded = cls.load(tmp_path / "agent", gym.make(f"prefenvs/{task}-v0"), device="cpu")
    observations = np.stack([model.observation_space.sample() for _ in range(20)])
    ours, theirs = (m.predict(observations, deterministic=True)[0] for m in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)
    actions = np.stack([model.action_space.sample() for _ in range(20)])
    ours, theirs = (predict_rewards(m.preferences.reward_model, observations, actions) for m in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)


def test_a_file_that_is_no_agent_is_refused(tmp_path):
    env = gym.make("prefenvs/Pendulum-v0")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        PEBBLE.load(tmp_path / "bad.zip", env)
    prefppo().save(tmp_path / "other.zip")
    with pytest.raises(prefenvs.RunMismatch, match=r"PrefPPO\.load"):
        PEBBLE.load(tmp_path / "other.zip", env)
    with pytest.raises(ValueError, match="needs env="):
        PEBBLE.load(tmp_path / "other.zip")


@pytest.mark.parametrize("harm", ["truncate", "remove", "facts"])
def test_a_damaged_checkpoint_is_refused_and_left(harm, tmp_path):
    folder = tmp_path / "000001"
    write_folder(folder, {"learner": {"a": np.arange(100.0)}}, {"barrier": 1})
    np.testing.assert_array_equal(read_folder(folder)[0]["learner"]["a"], np.arange(100.0))
    path = folder / ("facts.json" if harm == "facts" else "learner.safetensors")
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(prefenvs.DamagedFile, match="It was left"):
        read_folder(folder)


def test_a_folder_of_another_run_is_refused(tmp_path):
    open_folder(Run(PRESETS["pendulum-small"], seed=1), tmp_path, "first")
    with pytest.raises(prefenvs.RunMismatch, match=r"seed differ.* repeat its own command: first"):
        open_folder(Run(PRESETS["pendulum-small"], seed=2), tmp_path, "second")


def test_the_environments_budget_wins_over_the_learners():
    env = gym.make("prefenvs/Pendulum-v0", budget=7)
    model = PEBBLE("MlpPolicy", env, preferences=SMALL, seed=0, device="cpu")
    assert sum(model.preferences._sizes) == 7


def test_a_true_reward_environment_is_refused():
    with pytest.raises(prefenvs.EvaluationOnly):
        PEBBLE("MlpPolicy", gym.make("prefenvs/Pendulum-v0", evaluation=True))
    with pytest.raises(TypeError, match="not a preference environment"):
        PEBBLE("MlpPolicy", gym.make("Pendulum-v1"))
