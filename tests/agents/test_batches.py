"""Learners on a batch that steps as arrays: they learn the same as on single environments, and resume bit for bit."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env

import prefenvs
from prefenvs.agents import PEBBLE, Barrier, PreferenceConfig, PrefPPO

ENV_ID = "prefenvs/Hopper-v0"
SMALL = PreferenceConfig(
    queries=24, sessions=2, first_session=200, last_session=400, segment_steps=10, hidden=(8,), reward_epochs=3
)


def make(agent, venv):
    shared = {"preferences": SMALL, "seed": 1, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
    if agent is PEBBLE:
        return PEBBLE(
            "MlpPolicy", venv, learning_starts=100, batch_size=16, buffer_size=2000, reset_updates=3, **shared
        )
    return PrefPPO("MlpPolicy", venv, n_steps=32, batch_size=32, n_epochs=1, **shared)


def weights(model):
    both = (model.policy, model.preferences.reward_model)
    return np.concatenate([p.detach().numpy().ravel() for module in both for p in module.parameters()])


@pytest.mark.parametrize("agent", [PEBBLE, PrefPPO])
def test_a_learner_gets_the_same_weights_as_on_single_environments(agent):
    ours = make(agent, prefenvs.sb3_vec(ENV_ID, 4, budget=24)).learn(600)
    theirs = make(agent, make_vec_env(ENV_ID, 4, env_kwargs={"budget": 24})).learn(600)
    assert ours.preferences.feedback.asked == 24
    np.testing.assert_array_equal(weights(ours), weights(theirs))


@pytest.mark.parametrize("agent", [PEBBLE, PrefPPO])
def test_a_resumed_run_repeats_an_unbroken_one_bit_for_bit(agent, tmp_path):
    def run(folder, steps):
        model = make(agent, prefenvs.sb3_vec(ENV_ID, 4, budget=24, store=str(folder / "answers.sqlite")))
        barrier = Barrier(folder / "checkpoints", 256, 1, model.preferences.feedback, (model.preferences,))
        resumed = barrier.begin(model)
        model.learn(steps - model.num_timesteps, callback=CallbackList([barrier]), reset_num_timesteps=False)
        model.get_env().close()
        return model, resumed

    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
    unbroken, _ = run(tmp_path / "unbroken", 640)
    run(tmp_path / "broken", 416)  # past the barrier at 256, in the midst of a session's questions
    again, resumed = run(tmp_path / "broken", 640)
    assert resumed
    assert again.preferences.feedback.asked == unbroken.preferences.feedback.asked == 24
    np.testing.assert_array_equal(weights(again), weights(unbroken))
    assert torch.equal(again.preferences.reward_model.scale, unbroken.preferences.reward_model.scale)
