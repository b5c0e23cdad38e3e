"""A saved agent is made again with all the arguments that it was made with."""

import inspect
import json
import zipfile

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import ActorCriticPolicy

import prefenvs
from prefenvs.agents import PEBBLE, PreferenceConfig, PrefPPO, QuantileDQN
from prefenvs.agents.saving import read_saved, save_agent, write_agent

PREFERENCES = PreferenceConfig(queries=5, sessions=1, hidden=(4,))
SHARED = {"stats_window_size": 7, "verbose": 1, "seed": 5, "tensorboard_log": "somewhere"}
OFF_POLICY = SHARED | {
    "learning_rate": 0.01,
    "buffer_size": 777,
    "learning_starts": 5,
    "batch_size": 17,
    "tau": 0.5,
    "gamma": 0.9,
    "train_freq": (2, "episode"),
    "gradient_steps": 3,
    "target_update_interval": 2,
    "policy_kwargs": {"net_arch": [4]},
}
OTHERS = {
    PEBBLE: OFF_POLICY
    | {
        "replay_buffer_kwargs": {"k_nearest": 3},
        "ent_coef": "auto_0.2",
        "target_entropy": -0.5,
        "use_sde": True,
        "sde_sample_freq": 4,
        "use_sde_at_warmup": True,
        "reset_updates": 3,
        "preferences": PREFERENCES,
    },
    PrefPPO: SHARED
    | {
        "learning_rate": 0.01,
        "n_steps": 6,
        "batch_size": 3,
        "n_epochs": 2,
        "gamma": 0.9,
        "gae_lambda": 0.8,
        "clip_range": 0.3,
        "clip_range_vf": 0.4,
        "normalize_advantage": False,
        "ent_coef": 0.1,
        "vf_coef": 0.7,
        "max_grad_norm": 0.3,
        "use_sde": True,
        "sde_sample_freq": 4,
        "target_kl": 0.1,
        "policy_kwargs": {"net_arch": [4]},
        "preferences": PREFERENCES,
    },
    QuantileDQN: OFF_POLICY
    | {
        "exploration_fraction": 0.2,
        "exploration_initial_eps": 0.9,
        "exploration_final_eps": 0.3,
        "max_grad_norm": 0.3,
        "functional": {"name": "cvar", "tau": 0.25},
        "stocks": (-1.0, 1.0),
        "quantiles": 8,
        "relabel_stocks": (0.5,),
    },
}
"""Values other than the default."""
SAME = {
    PEBBLE: {"optimize_memory_usage", "n_steps"},  # its buffer covers the default alone
    PrefPPO: {"rollout_buffer_kwargs"},
    QuantileDQN: {"optimize_memory_usage", "n_steps", "replay_buffer_kwargs"},  # SB3 covers no other for Dict spaces
}
"""Arguments that can hardly have another value."""
ELSEWHERE = {"self", "env", "device", "_init_setup_model", "policy", "action_noise"} | {
    "replay_buffer_class",
    "rollout_buffer_class",
}
"""Arguments that the other tests here are about, and those of a process."""
BASES = {PEBBLE: SAC, PrefPPO: PPO, QuantileDQN: DQN}


def environment(cls):
    if cls is QuantileDQN:
        return gym.make("prefenvs/GridLedge-v0", evaluation=True)
    return gym.make("prefenvs/Pendulum-v0", budget=5)


def written(model, path):
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("agent.json"))


@pytest.mark.parametrize("cls", OTHERS)
def test_no_argument_is_lost(cls, tmp_path):
    env, given = environment(cls), OTHERS[cls]
    arguments = {*inspect.signature(BASES[cls].__init__).parameters, *inspect.signature(cls.__init__).parameters}
    assert arguments - ELSEWHERE - SAME[cls] - {"sac", "ppo", "dqn"} == set(given), "give each a value"
    facts = written(cls("MlpPolicy", env, device="cpu", **given), tmp_path / "agent.zip")
    default = written(cls("MlpPolicy", env, device="cpu", policy_kwargs={"net_arch": [9]}), tmp_path / "default.zip")
    kept, usual = ({**each["settings"], **each["own"]} for each in (facts, default))
    assert kept.keys() >= given.keys() | SAME[cls]
    assert not [name for name in given if kept[name] == usual[name]]
    loaded = cls.load(tmp_path / "agent.zip", env, device="cpu")
    assert written(loaded, tmp_path / "again.zip") == facts
    assert getattr(loaded, "train_freq", None) == getattr(cls("MlpPolicy", env, **given), "train_freq", None)


class Mine(RolloutBuffer):
    """A buffer of a user's own."""


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (PEBBLE, "action_noise", NormalActionNoise(np.zeros(1), np.ones(1))),
        (PrefPPO, "rollout_buffer_class", Mine),
    ],
)
def test_what_json_cannot_hold_is_asked_for_when_loading(cls, name, value, tmp_path):
    env = environment(cls)
    cls("MlpPolicy", env, preferences=PREFERENCES, device="cpu", **{name: value}).save(tmp_path / "agent")
    with pytest.raises(ValueError, match=rf"objects of your own for {name}, .*load\(path, env, {name}=\.\.\."):
        cls.load(tmp_path / "agent", env)
    assert getattr(cls.load(tmp_path / "agent", env, device="cpu", **{name: value}), name) is value


@pytest.mark.parametrize("arguments", [{}, {"rms_prop_eps": 1e-3}, {"use_rms_prop": False}])
def test_a2c_gets_the_optimizer_it_had(arguments, tmp_path):
    model = A2C("MlpPolicy", "CartPole-v1", device="cpu", **arguments)
    save_agent(model, tmp_path / "agent", {}, {})
    facts, _ = read_saved(A2C, tmp_path / "agent", {})
    again = A2C(env="CartPole-v1", device="cpu", **facts["settings"])
    assert again.policy_kwargs == model.policy_kwargs
    assert type(again.policy.optimizer) is type(model.policy.optimizer)


class Narrow(ActorCriticPolicy):
    """A policy of a user's own."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **{**named, "net_arch": [8]})


class Image(gym.Env):
    """Shows a grey image for 10 steps."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": []}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 0.0, False, self.steps == 10, {}


@pytest.mark.parametrize(
    ("policy", "env"), [("CnnPolicy", lambda: prefenvs.wrap(Image(), budget=5, name="Image")), (Narrow, environment)]
)
def test_an_agent_is_loaded_with_the_policy_it_had(policy, env, tmp_path):
    env = env(PrefPPO) if policy is Narrow else env()
    model = PrefPPO(policy, env, preferences=PREFERENCES, n_steps=8, batch_size=8, seed=0, device="cpu")
    model.save(tmp_path / "agent")
    again = {}
    if policy is Narrow:
        with pytest.raises(ValueError, match=r"of your own for policy, .*load\(path, env, policy=\.\.\."):
            PrefPPO.load(tmp_path / "agent", env)
        again = {"policy": Narrow}
    loaded = PrefPPO.load(tmp_path / "agent", env, device="cpu", **again)
    assert type(loaded.policy) is type(model.policy)
    observations = np.stack([env.observation_space.sample() for _ in range(5)])
    ours, theirs = (each.predict(observations, deterministic=True)[0] for each in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)


def test_a_file_of_an_earlier_version_is_refused(tmp_path):
    env = environment(PrefPPO)
    facts = written(PrefPPO("MlpPolicy", env, preferences=PREFERENCES, device="cpu"), tmp_path / "agent.zip")
    del facts["settings"]["policy"]
    write_agent(tmp_path / "agent.zip", facts, {})
    with pytest.raises(prefenvs.DamagedFile, match="it names no policy; earlier versions"):
        PrefPPO.load(tmp_path / "agent.zip", env)
