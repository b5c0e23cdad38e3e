import csv
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger

import prefenvs
from prefenvs.agents import PEBBLE, PreferenceConfig, PrefPPO, RewardMetricsCallback
from prefenvs.agents.presets import Preset
from prefenvs.agents.train import Run, open_folder, train
from prefenvs.metrics import REWARD_METRICS

SMALL = PreferenceConfig(
    queries=24, sessions=3, first_session=200, last_session=500, segment_steps=15, hidden=(8,), reward_epochs=4
)


def true_reward(obs, act, after):
    """Pendulum's, of its observations (cos, sin, speed) and torques."""
    return -(np.arctan2(obs[:, 1], obs[:, 0]) ** 2 + 0.1 * obs[:, 2] ** 2 + 0.001 * act.reshape(len(obs)) ** 2)


class TrueModel(torch.nn.Module):
    """A reward model that has learned everything: Pendulum's true reward, in another unit."""

    trained, device = True, torch.device("cpu")

    def reward(self, obs, act, next_obs=None, context=None):
        return 3 * torch.as_tensor(true_reward(obs.double().numpy(), act.double().numpy(), None))


class Written(KVWriter):
    """Keeps what is logged."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        pass


def pebble(metrics=None, steps=600, **settings):
    env = make_vec_env("prefenvs/Pendulum-v0", 2, env_kwargs={"budget": 24})
    sac = {"learning_starts": 100, "buffer_size": 2000, "batch_size": 16, "policy_kwargs": {"net_arch": [8]}}
    sac |= {"train_freq": 25, "gradient_steps": 1, "reset_updates": 5}
    model = PEBBLE("MlpPolicy", env, preferences=SMALL, seed=0, device="cpu", **sac)
    callback = None if metrics is None else RewardMetricsCallback(model.preferences, metrics, **settings)
    return model.learn(steps, callback=callback), callback


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A short run with every metric, and its CSV."""
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    _, callback = pebble(tuple(REWARD_METRICS), true_reward=true_reward, path=path)
    return callback, path


def test_each_session_is_measured_with_finite_numbers_in_range(measured):
    callback, path = measured
    np.testing.assert_array_equal(callback.history[:, 1], [1, 2, 3])
    np.testing.assert_array_equal(callback.history[:, 0], [200, 350, 500])
    values = dict(zip(REWARD_METRICS, callback.history[:, 2:].T, strict=True))
    for name, column in values.items():
        low = -1 if name in ("pearson", "spearman") else 0
        assert ((low <= column) & (column <= 1)).all(), name
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "session", *REWARD_METRICS]
    np.testing.assert_allclose([float(row["starc"]) for row in rows], values["starc"], rtol=1e-8)


def test_the_metrics_are_those_of_the_recorded_rewards(measured):
    held = measured[0].compare()
    steps = held.transitions
    np.testing.assert_allclose(held.true, true_reward(steps.observations, steps.actions, None), atol=1e-4)
    assert len(held.true) == 1024
    assert REWARD_METRICS["pearson"](held) == pytest.approx(np.corrcoef(held.true, held.learned)[0, 1])


def test_the_true_reward_in_place_of_the_learned_one_has_distance_0_and_correlation_1(measured, monkeypatch):
    monkeypatch.setattr(measured[0].preferences, "reward_model", TrueModel())
    held = measured[0].compare()
    for name in ("pearson", "spearman"):
        assert REWARD_METRICS[name](held) == pytest.approx(1, abs=1e-6)
    for name in ("starc", "val", "epic"):
        assert REWARD_METRICS[name](held) == pytest.approx(0, abs=1e-4), name  # rewards are float32 on the way


def test_measuring_changes_nothing_in_training():
    (plain, _), (measured, _) = pebble(steps=400), pebble(("pearson", "starc"), steps=400)
    for module in (lambda model: model.policy, lambda model: model.preferences.reward_model):
        weights = zip(module(plain).parameters(), module(measured).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)
    assert measured.preferences.feedback.asked == plain.preferences.feedback.asked == 16


def test_every_says_how_many_sessions_lie_between():
    _, callback = pebble(("pearson",), every=2)
    np.testing.assert_array_equal(callback.history[:, 1], [2])


def test_only_the_named_numbers_reach_the_logger():
    env = make_vec_env("prefenvs/Pendulum-v0", 1, env_kwargs={"budget": 24})
    model = PrefPPO("MlpPolicy", env, preferences=SMALL, seed=0, n_steps=50, batch_size=50, n_epochs=1, device="cpu")
    written = Written()
    model.set_logger(Logger(None, [written]))
    model.learn(600, callback=RewardMetricsCallback(model.preferences, ("spearman", "starc")))
    logged = {key for row in written.rows for key in row if "metrics" in key}
    assert logged == {"metrics/spearman", "metrics/starc"}


def test_an_untrained_reward_is_not_measured():
    env = gym.make("prefenvs/Pendulum-v0", budget=24, teacher=prefenvs.Teacher(eps_skip=1e9))
    model = PEBBLE("MlpPolicy", env, preferences=SMALL, buffer_size=1000, learning_starts=10_000, device="cpu")
    callback = RewardMetricsCallback(model.preferences)
    model.learn(600, callback=callback)
    assert model.preferences.session == 3
    assert len(callback.history) == 0


@pytest.mark.parametrize(
    ("metrics", "message"),
    [(("pearsn",), "Did you mean 'pearson'"), (("starc", "epic"), "epic.* needs the true reward as a function")],
)
def test_metrics_that_cannot_be_computed_are_refused_at_once(metrics, message):
    env = gym.make("prefenvs/Pendulum-v0", budget=24)
    model = PEBBLE("MlpPolicy", env, preferences=SMALL, buffer_size=10, device="cpu")
    with pytest.raises(ValueError, match=message):
        RewardMetricsCallback(model.preferences, metrics)


def preset(agent="prefppo"):
    ppo = {"n_steps": 100, "batch_size": 100, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}
    return Preset("Pendulum", agent, 400, 1, ppo, SMALL, 10_000, 300, "test")


def test_a_run_keeps_its_metrics_in_a_file_and_says_so_in_its_config(tmp_path):
    run = Run(preset(), device="cpu", reward_metrics=("pearson", "starc"))
    train(run, tmp_path, quiet=True)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["session"] for row in rows] == ["1"]
    assert all(-1 <= float(row["pearson"]) <= 1 and 0 <= float(row["starc"]) <= 1 for row in rows)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["reward_metrics"] == ["pearson", "starc"]
    assert Run.from_description(config).reward_metrics == ("pearson", "starc")


def test_a_folder_made_without_metrics_is_that_of_another_run(tmp_path):
    open_folder(Run(preset()), tmp_path, "first")
    assert "reward_metrics" not in json.loads((tmp_path / "config.json").read_text())
    open_folder(Run(preset()), tmp_path, "the same again")
    with pytest.raises(prefenvs.RunMismatch, match="reward_metrics differ"):
        open_folder(Run(preset(), reward_metrics=("pearson",)), tmp_path, "second")


def test_a_resumed_run_goes_on_with_the_history_it_had(measured):
    callback = measured[0]
    again = RewardMetricsCallback(callback.preferences, tuple(REWARD_METRICS), true_reward=true_reward)
    again.load_state(callback.state())
    np.testing.assert_array_equal(again.history, callback.history)


def test_agents_without_a_learned_reward_have_no_metrics_of_it(tmp_path):
    with pytest.raises(ValueError, match="sac learns none"):
        train(Run(preset("sac"), reward_metrics=("pearson",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
