"""Learners hold what the oracle judged, ask as they were told, save, load and refuse what is not theirs."""

import dataclasses
import json
import warnings
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import prefenvs
from prefenvs.agents import (
    PEBBLE,
    Barrier,
    LearnedReward,
    PreferenceCallback,
    PreferenceConfig,
    PrefPPO,
    RewardReplayBuffer,
)
from prefenvs.agents.checkpoint import read_folder, write_folder
from prefenvs.agents.learned_reward import predict_rewards
from prefenvs.agents.preset_choice import default_agent
from prefenvs.agents.presets import PRESETS
from prefenvs.agents.train import Run, open_folder, train
from prefenvs.queries import STRATEGIES

SMALL = PreferenceConfig(
    queries=24, sessions=3, first_session=200, last_session=500, segment_steps=15, hidden=(8,), reward_epochs=4
)


def pebble(seed=0, steps=620, config=SMALL, **settings):
    env = make_vec_env("prefenvs/Pendulum-v0", 2, env_kwargs={"budget": 24} | settings)
    model = PEBBLE(
        "MlpPolicy", env, preferences=config, learning_starts=150, batch_size=16, buffer_size=2000, seed=seed,
        policy_kwargs={"net_arch": [8]}, device="cpu", reset_updates=5,
    )  # fmt: skip
    return model.learn(steps)


def prefppo(seed=0, steps=640, config=SMALL, task="CartPole", **settings):
    env = make_vec_env(f"prefenvs/{task}-v0", 2, env_kwargs={"budget": 24} | settings)
    ppo = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    return PrefPPO("MlpPolicy", env, preferences=config, seed=seed, **ppo).learn(steps)


def prefppo_clipped(**arguments):
    """PrefPPO on Pendulum: its Gaussian actions reach beyond the torques there are, and are clipped."""
    return prefppo(task="Pendulum", **arguments)


@pytest.mark.parametrize("make", [pebble, prefppo, prefppo_clipped])
def test_a_learner_holds_just_what_the_oracle_judges(make):
    learner = make().preferences
    segments = learner.store.sample(300, 15, np.random.default_rng(0))
    judged = learner.feedback._judge(segments)
    np.testing.assert_array_equal(judged.mask, segments.mask)
    np.testing.assert_array_equal(judged.observations, segments.observations)
    np.testing.assert_array_equal(judged.actions, segments.actions)
    np.testing.assert_array_equal(judged.terminated, segments.terminated)
    assert set(segments.ids[:, 0]) == {0, 1}, "of both environments"
    assert len(np.unique(segments.ids[:, 1])) > 1, "of several episodes"
    assert learner.feedback.asked == 24
    assert learner.session == 3


def test_what_was_learned_without_the_callback_is_a_gap_in_its_store():
    venv = make_vec_env("prefenvs/Pendulum-v0")
    callback = PreferenceCallback(prefenvs.feedback(venv), SMALL, seed=0)
    rewarded = LearnedReward(venv, callback.build(venv.observation_space, venv.action_space, 1, "cpu"))
    model = PPO("MlpPolicy", rewarded, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    for present in (callback, callback, None, callback):
        model.learn(32, callback=present, reset_num_timesteps=False)
    first = callback.store.sample(1000, 15, np.random.default_rng(0)).ids[:, 2]
    assert set(first) == {*range(64 - 15 + 1), *range(96, 96 + 32 - 15 + 1)}


def test_steps_that_were_taken_by_hand_are_a_gap_in_its_store():
    model = prefppo(steps=64, task="Pendulum")
    for _ in range(3):
        model.env.step(np.zeros((2, 1), np.float32))
    model.learn(64, reset_num_timesteps=False)
    first = model.preferences.store.sample(1000, 15, np.random.default_rng(0)).ids[:, 2]
    assert set(first) == {*range(64 - 15 + 1), *range(67, 67 + 64 - 15 + 1)}


def test_short_segments_of_failed_episodes_are_among_them():
    segments = prefppo().preferences.store.sample(200, 15, np.random.default_rng(0))
    assert segments.terminated.any()
    assert (segments.lengths[~segments.terminated] == 15).all()
    assert (segments.lengths < 15).any()


def test_no_short_segment_is_asked_about_when_windows_are_whole():
    for whole in (False, True):
        query, _ = prefppo(config=dataclasses.replace(SMALL, whole_windows=whole)).preferences.latest
        assert (query.segments.lengths == query.segments.mask.shape[1]).all() == whole


def test_the_replay_buffer_holds_the_rewards_of_the_model():
    model = pebble()
    buffer = model.replay_buffer
    size = buffer.size()
    assert not buffer.explore
    for row in range(2):
        torque = 2.0 * buffer.actions[:size, row]  # SB3 keeps actions in [-1, 1]; Pendulum's lie in [-2, 2]
        expected = predict_rewards(model.preferences.reward_model, buffer.observations[:size, row], torque)
        np.testing.assert_allclose(buffer.rewards[:size, row], expected, atol=1e-5)


def test_sessions_are_held_when_due_and_spend_the_queries(tmp_path):
    config = dataclasses.replace(SMALL, schedule="growing")
    learner = pebble(config=config).preferences
    np.testing.assert_array_equal(learner.history[:, 0], [200, 350, 500])
    np.testing.assert_array_equal(np.diff(learner.history[:, 1], prepend=0), [4, 8, 12])  # in the ratio 1 : 2 : 3
    assert len(learner.data) == learner.feedback.answered == 24


def test_a_session_whose_questions_could_not_be_asked_is_held_when_learning_goes_on(monkeypatch):
    model = pebble(steps=300, config=dataclasses.replace(SMALL, strategy="k_centre"))
    learner = model.preferences

    def away(query):
        raise ConnectionError("the teacher is away")

    with monkeypatch.context() as patched:
        patched.setattr(learner.feedback, "ask", away)
        with pytest.raises(ConnectionError):
            model.learn(300, reset_num_timesteps=False)
    model.learn(300, reset_num_timesteps=False)
    np.testing.assert_array_equal(learner.history[:, :2], [[200, 8], [350, 16], [500, 24]])
    assert len(learner._asked_features) == 24


def test_the_environments_budget_wins_over_the_learners():
    learner = pebble(budget=7).preferences
    assert learner.feedback.asked == sum(learner._sizes) == 7


def test_by_default_the_whole_budget_is_asked_in_the_first_half_of_training():
    config = dataclasses.replace(SMALL, queries=None, last_session=None)
    learner = pebble(config=config, budget=50, steps=1000).preferences
    assert learner.feedback.asked == 50
    np.testing.assert_array_equal(learner.history[:, 0], [200, 350, 500])
    without = PreferenceCallback(prefenvs.feedback(gym.make("prefenvs/Pendulum-v0")), PreferenceConfig(), seed=0)
    assert sum(without._sizes) == 200


def test_questions_that_were_never_asked_are_told_of():
    with pytest.warns(
        UserWarning, match=r"16 of 24 questions are still to be asked.* at steps 350 to 500.* ended at step 300"
    ):
        pebble(steps=300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pebble()


def test_a_replay_of_several_steps_is_refused_before_anything_is_asked():
    env = gym.make("prefenvs/Pendulum-v0", budget=20)
    callback = PreferenceCallback(prefenvs.feedback(env), SMALL, seed=0)
    model = SAC("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, n_steps=3, device="cpu")
    with pytest.raises(ValueError, match="n_steps=3, and a RewardReplayBuffer keeps single steps"):
        model.learn(300, callback=callback)


def test_what_was_asked_before_is_not_asked_again():
    env = gym.make("prefenvs/Pendulum-v0", budget=20)
    feedback = prefenvs.feedback(env)
    first = PreferenceCallback(feedback, SMALL, seed=0)
    model = SAC("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, learning_starts=10_000, device="cpu")
    model.learn(300, callback=first)
    assert feedback.asked == 7  # the first of sessions of 7, 6 and 7
    assert sum(PreferenceCallback(feedback, SMALL, seed=0)._sizes) == 13


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "uniform"])
def test_a_strategy_chooses_the_queries_and_remembers_them(strategy):
    learner = prefppo(config=dataclasses.replace(SMALL, strategy=strategy, candidates=3)).preferences
    assert learner.feedback.asked == len(learner._asked_features) == 24, "those of the first session too"


def test_a_session_waits_until_one_of_the_newest_episodes_is_long_enough():
    learners = [prefppo(seed=seed, config=dataclasses.replace(SMALL, newest=1)).preferences for seed in range(4)]
    assert all(learner.num_timesteps == 640 for learner in learners)
    assert {learner.session for learner in learners} == {0, 3}, "of one no newest episode was ever long enough"


def test_newest_asks_about_the_latest_episodes_only():
    learner = prefppo(config=dataclasses.replace(SMALL, newest=1)).preferences
    query, _ = learner.latest
    last = [query.segments.ids[query.segments.ids[:, 0] == stream, 1] for stream in (0, 1)]
    assert all(len(np.unique(episodes)) <= 1 for episodes in last)


def test_a_teacher_that_skips_everything_leaves_the_learner_exploring():
    model = pebble(teacher=prefenvs.Teacher(eps_skip=1e9))
    assert model.preferences.feedback.asked == 24
    assert model.preferences.feedback.answered == 0
    assert not model.preferences.reward_model.trained
    assert model.replay_buffer.explore
    np.testing.assert_array_equal(model.preferences.history[:, 1:3], [[8, 0], [16, 0], [24, 0]])
    assert np.isnan(model.preferences.history[:, 3:6]).all()


def test_the_reward_may_stay_unscaled_and_every_answer_be_trained_on():
    model = pebble(config=dataclasses.replace(SMALL, scale_reward=False, held_out_every=None))
    assert model.preferences.reward_model.scale == 1
    assert 0 < np.abs(model.replay_buffer.rewards).max() <= 1
    train, held = model.preferences.data.split()
    assert (len(train), len(held)) == (24, 0)
    assert np.isfinite(model.preferences.history[:, 4]).all()
    assert np.isnan(model.preferences.history[:, 5]).all()
    with pytest.raises(ValueError, match="held_out_every=1 leaves no answer to train on"):
        PreferenceConfig(held_out_every=1)


def test_the_critic_starts_afresh_once_when_the_reward_model_is_first_trained(monkeypatch):
    found, reset = [], PEBBLE.after_session
    monkeypatch.setattr(PEBBLE, "after_session", lambda self, first: (found.append(first), reset(self, first)))
    model = pebble()
    assert found == [True, False, False]
    weights = [weight.clone() for weight in model.critic.parameters()]
    model.reset_updates, model.train = 1, lambda *_: None
    model.after_session(first=True)
    assert not any(torch.equal(a, b) for a, b in zip(weights, model.critic.parameters(), strict=True) if a.dim() > 1)
    for ours, target in zip(model.critic.parameters(), model.critic_target.parameters(), strict=True):
        assert torch.equal(ours, target)
    assert not model.critic.optimizer.state


def test_unknown_strategies_and_empty_sessions_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'disagreement'"):
        PreferenceConfig(strategy="disagrement")
    with pytest.raises(ValueError, match="queries=2 do not fill sessions=3"):
        PreferenceConfig(queries=2, sessions=3)


@pytest.mark.parametrize("make", [pebble, prefppo])
def test_the_same_seed_gives_the_same_agent_and_another_another(make):
    one, two, other = (make(seed, steps=400) for seed in (1, 1, 2))
    for module in (lambda model: model.policy, lambda model: model.preferences.reward_model):
        weights = zip(module(one).parameters(), module(two).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)
        weights = zip(module(one).parameters(), module(other).parameters(), strict=True)
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
    assert loaded.num_timesteps == model.num_timesteps


def test_a_loaded_agent_goes_on_with_its_learned_reward_and_its_critic(tmp_path):
    pebble().save(tmp_path / "agent")
    env = gym.make("prefenvs/Pendulum-v0", budget=24)
    loaded = PEBBLE.load(tmp_path / "agent", env, device="cpu", preferences=SMALL)
    assert not loaded.replay_buffer.explore
    before = [weight.clone() for weight in loaded.critic_target.parameters()]
    loaded.after_session = lambda first: setattr(loaded, "was_first", first)
    loaded.learn(210)
    assert loaded.was_first is False, "its critic was not trained on exploration, so it is kept"
    after = torch.cat([weight.detach().flatten() for weight in loaded.critic_target.parameters()])
    assert (torch.cat([weight.flatten() for weight in before]) - after).abs().mean() < 0.05
    assert loaded.replay_buffer.rewards[:200].any()


def test_a_loaded_agent_keeps_its_schedules(tmp_path):
    env = gym.make("prefenvs/CartPole-v0")
    falling = {"learning_rate": LinearSchedule(1e-3, 0.0, 1.0), "clip_range": LinearSchedule(0.4, 0.1, 0.5)}
    PrefPPO("MlpPolicy", env, preferences=SMALL, device="cpu", **falling).save(tmp_path / "agent")
    loaded = PrefPPO.load(tmp_path / "agent", env, device="cpu")
    for remaining in (1.0, 0.6, 0.0):
        assert loaded.lr_schedule(remaining) == falling["learning_rate"](remaining)
        assert loaded.clip_range(remaining) == falling["clip_range"](remaining)


def test_a_schedule_of_ones_own_is_asked_for_when_loading(tmp_path):
    env = gym.make("prefenvs/CartPole-v0")
    own = {"learning_rate": lambda remaining: 1e-3 * remaining**2}
    PrefPPO("MlpPolicy", env, preferences=SMALL, device="cpu", **own).save(tmp_path / "agent")
    with pytest.raises(
        ValueError, match=r"functions, classes or objects of your own for learning_rate.*learning_rate=\.\.\."
    ):
        PrefPPO.load(tmp_path / "agent", env)
    assert PrefPPO.load(tmp_path / "agent", env, device="cpu", **own).lr_schedule(0.5) == 2.5e-4


def test_an_activation_of_ones_own_is_asked_for_and_not_replaced_by_another(tmp_path):
    env = gym.make("prefenvs/CartPole-v0")
    own = {"policy_kwargs": {"net_arch": [4], "activation_fn": torch.nn.ELU}}
    model = PrefPPO("MlpPolicy", env, preferences=SMALL, device="cpu", **own)
    model.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"of your own for policy_kwargs"):
        PrefPPO.load(tmp_path / "agent", env)
    loaded = PrefPPO.load(tmp_path / "agent", env, device="cpu", **own)
    observations = np.stack([env.observation_space.sample() for _ in range(9)])
    ours, theirs = (m.policy.predict_values(torch.as_tensor(observations)).detach() for m in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("cls", "task"), [(PEBBLE, "Pendulum"), (PrefPPO, "CartPole")])
def test_an_id_is_made_into_an_environment(cls, task):
    model = cls(
        "MlpPolicy", f"prefenvs/{task}-v0", preferences=SMALL, device="cpu", policy_kwargs={"net_arch": [4]}, seed=0
    )
    assert model.preferences.feedback.task == task


def test_an_off_policy_learner_refuses_observations_that_vecnormalize_changes():
    venv = VecNormalize(DummyVecEnv([lambda: gym.make("prefenvs/Pendulum-v0")]))
    model = PEBBLE("MlpPolicy", venv, preferences=SMALL, buffer_size=100, device="cpu")
    with pytest.raises(ValueError, match="VecNormalize normalizes observations here"):
        model.learn(10)
    venv = VecNormalize(DummyVecEnv([lambda: gym.make("prefenvs/Pendulum-v0")]), norm_obs=False)
    assert PEBBLE("MlpPolicy", venv, preferences=SMALL, buffer_size=100, device="cpu").learn(10).num_timesteps == 10


def test_a_file_that_is_no_agent_is_refused(tmp_path):
    env = gym.make("prefenvs/Pendulum-v0")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        PEBBLE.load(tmp_path / "bad.zip", env)
    SAC("MlpPolicy", env, buffer_size=10, device="cpu").save(tmp_path / "sac.zip")
    with pytest.raises(prefenvs.DamagedFile, match="cannot be read as an agent"):
        PEBBLE.load(tmp_path / "sac.zip", env)
    with pytest.raises(FileNotFoundError):
        PEBBLE.load(tmp_path / "none.zip", env)


@pytest.mark.parametrize("kept", [0.1, 0.6, 0.999])
def test_a_truncated_agent_is_refused_and_left(kept, tmp_path):
    path = tmp_path / "agent.zip"
    PEBBLE("MlpPolicy", gym.make("prefenvs/Pendulum-v0"), preferences=SMALL, buffer_size=10, device="cpu").save(path)
    whole = path.read_bytes()
    part = whole[: int(kept * len(whole))]
    path.write_bytes(part)
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        PEBBLE.load(path, gym.make("prefenvs/Pendulum-v0"))
    assert path.read_bytes() == part


def test_an_agent_whose_facts_are_incomplete_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as archive:
        archive.writestr("agent.json", json.dumps({"class": "PEBBLE"}))
        archive.writestr("agent.safetensors", (8).to_bytes(8, "little") + b"{}      ")  # no arrays
    with pytest.raises(prefenvs.DamagedFile, match="cannot be read as an agent"):
        PEBBLE.load(tmp_path / "agent.zip", gym.make("prefenvs/Pendulum-v0"))


def test_an_agent_of_another_kind_or_space_is_refused(tmp_path):
    small = {"preferences": SMALL, "device": "cpu"}
    PrefPPO("MlpPolicy", gym.make("prefenvs/Pendulum-v0"), **small).save(tmp_path / "agent")
    with pytest.raises(prefenvs.RunMismatch, match=r"PrefPPO\.load"):
        PEBBLE.load(tmp_path / "agent", gym.make("prefenvs/Pendulum-v0"))
    with pytest.raises(prefenvs.RunMismatch, match="was trained on spaces"):
        PrefPPO.load(tmp_path / "agent", gym.make("prefenvs/CartPole-v0"))
    with pytest.raises(ValueError, match="needs env="):
        PrefPPO.load(tmp_path / "agent")


def harm_truncate(folder):
    path = folder / "learner.safetensors"
    path.write_bytes(path.read_bytes()[:40])


def harm_one_bit(folder):
    path = folder / "learner.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def harm_remove(folder):
    (folder / "learner.safetensors").unlink()


def harm_facts(folder):
    (folder / "facts.json").write_text('{"barrier": 1,')


@pytest.mark.parametrize("harm", [harm_truncate, harm_one_bit, harm_remove, harm_facts])
def test_a_damaged_checkpoint_is_refused_and_left(harm, tmp_path):
    folder = tmp_path / "000001"
    arrays = {"a": np.arange(100.0)}
    write_folder(folder, {"learner": arrays}, {"barrier": 1})
    np.testing.assert_array_equal(read_folder(folder)[0]["learner"]["a"], arrays["a"])
    harm(folder)
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(prefenvs.DamagedFile, match=rf"It was left as it is; remove ({folder}|it) to "):
        read_folder(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before_once_that_is_removed(tmp_path):
    def barrier(seed=0):
        model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
        return model, Barrier(tmp_path, every=32, seed=seed)

    model, saves = barrier()
    saves.begin(model)
    model.learn(130, callback=saves)
    assert [path.name for path in saves.checkpoints()] == ["000003", "000004"]
    harm_truncate(tmp_path / "000004")
    with pytest.raises(prefenvs.DamagedFile, match="000004"):
        barrier()[1].begin(barrier()[0])
    (tmp_path / "000004" / "facts.json").unlink()
    for path in (tmp_path / "000004").iterdir():
        path.unlink()
    (tmp_path / "000004").rmdir()
    with pytest.raises(prefenvs.RunMismatch, match="belongs to seed 0, this run has seed 1"):
        barrier(seed=1)[1].begin(barrier()[0])
    model, saves = barrier()
    assert saves.begin(model)
    assert model.num_timesteps == 96


def test_a_folder_of_another_run_is_refused(tmp_path):
    open_folder(Run(PRESETS["pendulum-small"], seed=1), tmp_path, "first")
    open_folder(Run(PRESETS["pendulum-small"], seed=1), tmp_path, "the same again")
    written = (tmp_path / "config.json").read_text()
    with pytest.raises(prefenvs.RunMismatch, match=r"seed differ.* repeat its own command: first"):
        open_folder(Run(PRESETS["pendulum-small"], seed=2), tmp_path, "second")
    assert (tmp_path / "config.json").read_text() == written
    (tmp_path / "config.json").write_text(written[:100])
    with pytest.raises(prefenvs.DamagedFile, match="It was left as it is; give another --out"):
        open_folder(Run(PRESETS["pendulum-small"], seed=1), tmp_path, "first")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oracle": "partial_retrun"}, "Did you mean 'partial_return'"),
        ({"teacher": "mistke"}, "Did you mean 'mistake'"),
        ({"preset": dataclasses.replace(PRESETS["pendulum-small"], task="Pendulm")}, "Did you mean 'Pendulum'"),
        ({"preset": dataclasses.replace(PRESETS["pendulum-small"], agent="peble")}, "Did you mean 'pebble'"),
    ],
)
def test_a_misspelt_name_leaves_no_folder_behind(settings, message, tmp_path):
    run = Run(**({"preset": PRESETS["pendulum-small"]} | settings))
    with pytest.raises(ValueError, match=message):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_true_reward_environment_is_refused():
    with pytest.raises(prefenvs.EvaluationOnly):
        PEBBLE("MlpPolicy", gym.make("prefenvs/Pendulum-v0", evaluation=True))
    with pytest.raises(TypeError, match="not a preference environment"):
        PEBBLE("MlpPolicy", gym.make("Pendulum-v1"))
    with pytest.raises(TypeError, match="not a preference environment"):
        PrefPPO("MlpPolicy", gym.make("Pendulum-v1"))


def test_tasks_without_a_preset_get_an_agent_that_can_act_in_them():
    agents = {task: default_agent(task) for task in ("CartPole", "Pendulum", "HalfCheetah", "MountainCar", "Hopper")}
    assert list(agents.values()) == ["prefppo", "pebble", "pebble", "prefppo", "pebble"]
