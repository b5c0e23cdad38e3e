"""A batch as SB3's VecEnv, against SB3's DummyVecEnv of the single environments."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import prefenvs
from prefenvs.sb3 import BatchVecEnv

N = 3


def make_both(name, **settings):
    settings |= {"max_episode_steps": 12}
    functions = [lambda: gym.make(f"prefenvs/{name}-v0", **settings)] * N
    return prefenvs.sb3_vec(f"prefenvs/{name}-v0", N, **settings), DummyVecEnv(functions)


def assert_same(ours, theirs, names):
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other) & names
        for name, value in one.items():
            np.testing.assert_equal(value, other[name])


@pytest.mark.parametrize("evaluation", [False, True], ids=["hidden", "shown"])
@pytest.mark.parametrize("name", ["Hopper", "GridWindy"])
def test_it_gives_what_a_dummy_vec_env_gives(name, evaluation):
    ours, theirs = make_both(name, evaluation=evaluation)
    names = {"segment_id", "factors", "success", "terminal_observation", "TimeLimit.truncated"}
    ours.seed(5)
    theirs.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ours.action_space.seed(0)
    ended = 0
    for t in range(40):
        if t == 30:
            np.testing.assert_array_equal(ours.reset(), theirs.reset())
        actions = np.stack([ours.action_space.sample() for _ in range(N)])
        (*arrays, infos), (*expected, shown) = ours.step(actions), theirs.step(actions)
        for one, other in zip(arrays, expected, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert_same(infos, shown, names)
        assert_same(ours.reset_infos, theirs.reset_infos, {"segment_id"})
        ended += arrays[2].sum()
    assert ended > N
    ours.close()
    theirs.close()


def test_feedback_is_one_whatever_layers_it_is_reached_through():
    venv = prefenvs.sb3_vec("prefenvs/Hopper-v0", N, budget=4)
    feedback = prefenvs.feedback(venv)
    assert prefenvs.feedback(VecNormalize(VecMonitor(venv))) is feedback
    assert prefenvs.feedback(venv.batch) is feedback
    assert (feedback.num_streams, feedback.remaining) == (N, 4)


def test_sb3_trains_and_evaluates_on_it():
    venv = VecMonitor(prefenvs.sb3_vec("prefenvs/GridWindy-v0", N, evaluation=True))
    model = PPO("MlpPolicy", venv, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu").learn(48)
    mean, _ = evaluate_policy(model, venv, n_eval_episodes=3)
    assert mean < 0


def test_any_id_is_taken():
    venv = prefenvs.sb3_vec("prefenvs/Pendulum-v0", 2, budget=3)
    assert isinstance(venv, DummyVecEnv)
    assert prefenvs.feedback(venv).budget == 3


def test_rows_of_arrays_have_no_methods_of_their_own():
    venv = prefenvs.sb3_vec("prefenvs/GridWindy-v0", 2)
    assert isinstance(venv, BatchVecEnv)
    assert venv.get_attr("task_name", [0]) == ["GridWindy"]
    assert venv.env_is_wrapped(gym.Wrapper) == [False, False]
    for call in (lambda: venv.env_method("render"), lambda: venv.set_attr("gamma", 1)):
        with pytest.raises(AttributeError, match=r"See `\.batch`"):
            call()
