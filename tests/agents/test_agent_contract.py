"""What every control agent in AGENTS promises: it learns a toy task from preferences alone, saves, loads, repeats."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

import prefenvs
from prefenvs.agents import AGENTS, PreferenceConfig
from prefenvs.agents.train import agent_class, writes_text

CONTROL_AGENTS = [name for name in AGENTS if not writes_text(name)]  # the others: text/test_text_agent_contract.py
ASKED = PreferenceConfig(
    queries=60, sessions=2, first_session=200, last_session=400, segment_steps=5, hidden=(16,), reward_lr=1e-2
)
SMALL = {"policy_kwargs": {"net_arch": [16, 16]}, "device": "cpu", "preferences": ASKED}
SETTINGS = {
    "pebble": {"learning_starts": 100, "learning_rate": 3e-3, "batch_size": 64, "buffer_size": 2000},
    "prefppo": {"n_steps": 100, "batch_size": 50, "learning_rate": 3e-3, "gamma": 0.9},
}
"""Arguments with which each agent learns the toy task within STEPS."""
STEPS = {"pebble": 900, "prefppo": 5000}


class Line(gym.Env):
    """A point on a line moves by its action, for 20 steps; being near 0 is the true reward, from -1 to 0 a step."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))
    metadata = {"render_modes": []}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1, 1), 0
        return np.array([self.position], np.float32), {}

    def step(self, action):
        self.position = float(np.clip(self.position + 0.3 * action[0], -1, 1))
        self.steps += 1
        return np.array([self.position], np.float32), -abs(self.position), False, self.steps == 20, {}


def make(name, **changes):
    env = prefenvs.wrap(Line(), budget=60, name="Line")
    return agent_class(name)("MlpPolicy", env, **{"seed": 0, **SMALL, **SETTINGS[name], **changes})


def true_return(policy, episodes=20):
    env, total = Line(), 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        over = False
        while not over:
            observation, reward, _, over, _ = env.step(policy(observation))
            total += reward / episodes
    return total


@pytest.fixture(scope="module", params=CONTROL_AGENTS)
def learned(request):
    assert request.param in SETTINGS, f"give SETTINGS and STEPS with which {request.param} learns the toy task."
    return request.param, make(request.param).learn(STEPS[request.param])


def test_an_agent_learns_from_preferences_alone(learned):
    name, model = learned
    rng = np.random.default_rng(0)
    random = true_return(lambda _: rng.uniform(-1, 1, 1))  # about -10
    still = true_return(lambda _: np.zeros(1))  # about -10
    reached = true_return(lambda observation: model.predict(observation, deterministic=True)[0])
    best = true_return(lambda observation: np.clip(-observation / 0.3, -1, 1))  # about -0.5
    assert reached > max(random, still) + 0.5 * (best - max(random, still)), (name, reached)
    assert model.preferences.feedback.asked == 60


def test_an_agent_has_the_surface_of_an_sb3_algorithm(learned):
    _, model = learned
    for member in ("learn", "predict", "save", "load", "get_env", "set_logger", "policy", "logger", "num_timesteps"):
        assert hasattr(model, member), member
    action, state = model.predict(np.zeros((3, 1), np.float32))
    assert action.shape == (3, 1)
    assert state is None
    assert model.num_timesteps >= STEPS[learned[0]]


def test_a_saved_agent_acts_the_same_and_can_go_on(learned, tmp_path):
    name, model = learned
    model.save(tmp_path / "agent")
    assert (tmp_path / "agent.zip").is_file()
    loaded = type(model).load(tmp_path / "agent", prefenvs.wrap(Line(), budget=60, name="Line"), device="cpu")
    observations = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    ours, theirs = (m.predict(observations, deterministic=True)[0] for m in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)
    before = loaded.num_timesteps
    loaded.learn(120, reset_num_timesteps=False)
    assert loaded.num_timesteps > before, name
    np.testing.assert_array_equal(loaded.preferences.history, model.preferences.history)  # no session is held again
    assert loaded.preferences.feedback.asked == 0
    assert len(loaded.preferences.data) == len(model.preferences.data) > 0


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_a_saved_agent_holds_the_sessions_that_are_left_when_they_are_due(name, tmp_path):
    model = make(name).learn(300)
    np.testing.assert_array_equal(model.preferences.history[:, 0], [200])
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", model.get_env(), device="cpu")
    loaded.learn(300, reset_num_timesteps=False)
    np.testing.assert_array_equal(loaded.preferences.history[:, :2], [[200, 30], [400, 60]])
    assert len(loaded.preferences.data) == loaded.preferences.feedback.answered == 60


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_a_saved_agent_begins_anew_to_ask_by_other_preferences(name, tmp_path):
    model = make(name).learn(300)
    model.save(tmp_path / "agent")
    other = dataclasses.replace(ASKED, queries=20, sessions=1, first_session=400, last_session=400)
    loaded = type(model).load(tmp_path / "agent", model.get_env(), device="cpu", preferences=other)
    assert loaded.preferences.reward_model.trained
    loaded.learn(300, reset_num_timesteps=False)
    np.testing.assert_array_equal(loaded.preferences.history[:, :2], [[400, 50]])


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_the_same_seed_gives_the_same_agent(name):
    observations = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]

    def actions(seed):
        return make(name, seed=seed).learn(300).predict(observations, deterministic=True)[0]

    first = actions(1)
    np.testing.assert_array_equal(first, actions(1))
    assert (first != actions(2)).any()


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_a_callback_sees_every_step_and_can_stop(name):
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 130

    model = make(name)
    model.learn(400, callback=Stop())
    assert model.num_timesteps == 130


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_a_callback_may_be_a_function(name):
    model = make(name)
    model.learn(400, callback=lambda local, _: local["self"].num_timesteps < 130)
    assert model.num_timesteps == 130
    assert model.preferences.store.windows(5)


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_an_agent_learns_on_any_device_and_is_loaded_on_the_cpu(name, device, tmp_path):
    model = make(name, device=device).learn(STEPS[name])
    assert model.preferences.model.device.type == device
    assert true_return(lambda observation: model.predict(observation, deterministic=True)[0]) > -5.5
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", prefenvs.wrap(Line(), budget=60, name="Line"), device="cpu")
    observations = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    ours, theirs = (m.predict(observations, deterministic=True)[0] for m in (model, loaded))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
