"""Any SB3 algorithm that was stopped goes on from its last barrier as if it had not been."""

import copy

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from prefenvs.agents import Barrier, QuantileDQN
from prefenvs.agents.checkpoint import learner_state

SMALL = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
ON_POLICY = SMALL | {"n_steps": 25}
OFF_POLICY = SMALL | {"learning_starts": 50, "buffer_size": 400, "batch_size": 16}
OU = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1))


def made(algorithm, task, settings, normalized=False, envs=2):
    venv = make_vec_env(task, envs, seed=0)
    settings = copy.deepcopy(settings)  # SB3 writes into policy_kwargs
    return algorithm("MlpPolicy", VecNormalize(venv) if normalized else venv, **settings)


LEARNERS = {
    "A2C": lambda: made(A2C, "CartPole-v1", ON_POLICY),
    "PPO": lambda: made(PPO, "CartPole-v1", ON_POLICY | {"batch_size": 25}),
    "PPO, gSDE": lambda: made(PPO, "Pendulum-v1", ON_POLICY | {"batch_size": 25, "use_sde": True}),
    "PPO, VecNormalize": lambda: made(PPO, "Pendulum-v1", ON_POLICY | {"batch_size": 25}, normalized=True),
    "SAC": lambda: made(SAC, "Pendulum-v1", OFF_POLICY),
    "SAC, gSDE": lambda: made(SAC, "Pendulum-v1", OFF_POLICY | {"use_sde": True, "train_freq": 10}),
    "SAC, VecNormalize": lambda: made(SAC, "Pendulum-v1", OFF_POLICY, normalized=True),
    "TD3, Gaussian noise": lambda: made(
        TD3, "Pendulum-v1", OFF_POLICY | {"action_noise": NormalActionNoise(np.zeros(1), np.ones(1))}
    ),
    "TD3, OU noise": lambda: made(TD3, "Pendulum-v1", OFF_POLICY | {"action_noise": OU}, envs=1),
    "DQN": lambda: made(DQN, "CartPole-v1", OFF_POLICY | {"target_update_interval": 70, "exploration_fraction": 0.9}),
    "DQN, less memory": lambda: made(
        DQN,
        "CartPole-v1",
        OFF_POLICY | {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
        envs=1,
    ),
    "DQN of several steps": lambda: made(DQN, "CartPole-v1", OFF_POLICY | {"n_steps": 3}),
    "QuantileDQN": lambda: QuantileDQN(
        "MlpPolicy",
        gym.make("prefenvs/GridLedge-v0", evaluation=True),
        quantiles=8,
        stocks=(0.0, 1.0),
        **copy.deepcopy(OFF_POLICY),
    ),
}


class Stop(BaseCallback):
    """Raises at a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps >= self.step:
            raise KeyboardInterrupt
        return True


def learn(name, folder, stop=10_000):
    """The weights and statistics of 500 steps with barriers at 100, 200, ..., and whether they began at one."""
    model, barrier = LEARNERS[name](), Barrier(folder, 100, seed=3)
    resumed = barrier.begin(model)
    model.learn(500 - model.num_timesteps, callback=CallbackList([barrier, Stop(stop)]), reset_num_timesteps=False)
    return learner_state(model), resumed


@pytest.mark.parametrize("name", LEARNERS)
def test_a_stopped_algorithm_repeats_bit_for_bit(name, tmp_path):
    unbroken, _ = learn(name, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        learn(name, tmp_path / "stopped", stop=330)
    again, resumed = learn(name, tmp_path / "stopped")
    assert resumed
    assert unbroken.keys() == again.keys()
    for key, array in unbroken.items():
        np.testing.assert_array_equal(array, again[key], err_msg=key)


def test_a_buffer_that_would_not_be_kept_whole_is_refused(tmp_path):
    model = DQN("MultiInputPolicy", BitFlippingEnv(), replay_buffer_class=HerReplayBuffer, device="cpu")
    with pytest.raises(ValueError, match="HerReplayBuffer also holds where its episodes begin"):
        Barrier(tmp_path / "run", 100, seed=0).begin(model)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_that_would_count_its_steps_anew_is_refused(tmp_path):
    def begun():
        model, barrier = made(PPO, "CartPole-v1", ON_POLICY), Barrier(tmp_path, every=64, seed=0)
        return model, barrier, barrier.begin(model)

    model, barrier, resumed = begun()
    assert not resumed
    model.learn(200, callback=barrier)
    model, barrier, resumed = begun()
    assert resumed
    with pytest.raises(ValueError, match=r"learn\(total - model.num_timesteps, .*reset_num_timesteps=False"):
        model.learn(200, callback=barrier)
