"""What every control task promises, checked on one pair of instances a task."""

import importlib
import json
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from prefenvs.tasks.control import CONTROL_TASKS
from prefenvs.tasks.control.scores import SCORES, make_task, random_returns
from prefenvs.tasks.task import Task

SEED, STEPS = 3, 90
STATES_AT = (0, 50, 57)  # steps: at the reset, and in the midst of an episode
RESET_AT = 70  # an episode is cut here, so that what follows depends on the generator
CLASSIC = {
    "CartPole": "CartPole-v1",
    "MountainCar": "MountainCar-v0",
    "MountainCarContinuous": "MountainCarContinuous-v0",
    "Acrobot": "Acrobot-v1",
    "Pendulum": "Pendulum-v1",
}


def has_extra(spec):
    return spec.extra != "dmc" or importlib.util.find_spec("dm_control") is not None


@pytest.fixture(scope="module", params=CONTROL_TASKS, ids=lambda spec: spec.name)
def spec(request):
    if not has_extra(request.param):
        pytest.skip('needs pip install "prefenvs[dmc]"')
    return request.param


@pytest.fixture(scope="module")
def task(spec):
    task = make_task(spec)
    yield task
    task.close()


@pytest.fixture(scope="module")
def actions(task):
    task.action_space.seed(SEED)
    return [task.action_space.sample() for _ in range(STEPS)]


def play(env, actions, start=0):
    """What `env` shows from step `start` on, as things that == compares bit for bit."""
    seen = []
    for step in range(start, STEPS):
        observation, reward, terminated, truncated, _ = env.step(actions[step])
        seen.append((observation.dtype, observation.tobytes(), reward, terminated, truncated))
        if isinstance(env, Task):
            seen.append((env.reward_factors(), env.success()))
        if terminated or step == RESET_AT:
            seen.append(env.reset()[0].tobytes())
    return seen


class Upstream:
    """The environment as its authors ship it."""

    def __init__(self, spec):
        if spec.extra == "dmc":
            suite = pytest.importorskip("dm_control.suite")
            self.env = suite.load(spec.kwargs["domain"], spec.kwargs["task"], task_kwargs={"random": SEED})
        else:
            self.env = gym.make(CLASSIC.get(spec.name, f"{spec.name}-v5"), disable_env_checker=True).unwrapped

    def reset(self, seed=None):
        if isinstance(self.env, gym.Env):
            return self.env.reset(seed=seed)
        return self.flat(self.env.reset()), {}

    def step(self, action):
        if isinstance(self.env, gym.Env):
            return self.env.step(action)
        step = self.env.step(action)
        return self.flat(step), step.reward, step.last(), False, {}

    def flat(self, step):
        return np.concatenate([np.ravel(value) for value in step.observation.values()])


def test_the_task_keeps_to_the_contract_and_to_its_spec(spec, task):
    task.reset(seed=SEED)
    assert isinstance(task, Task)
    assert (task.success() is not None) == spec.has_success
    task.step(task.action_space.sample())
    assert tuple(task.reward_factors()) == spec.factors


def test_gymnasiums_check_env_passes(task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(task, skip_render_check=True, skip_close_check=True)


def test_every_step_is_bit_equal_to_the_environment_of_its_authors(spec, task, actions):
    upstream = Upstream(spec)
    ours, theirs = task.reset(seed=SEED)[0], upstream.reset(seed=SEED)[0]
    assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())
    assert [row for row in play(task, actions) if not isinstance(row[0], dict)] == play(upstream, actions)


def test_the_factors_combine_to_the_true_reward(spec, task, actions):
    task.reset(seed=SEED)
    rewards, rows = [], []
    for action in actions:
        _, reward, terminated, _, _ = task.step(action)
        rewards.append(reward)
        rows.append(list(task.reward_factors().values()))
        if terminated:
            task.reset()
    factors = dict(zip(spec.factors, np.array(rows).T.reshape(len(spec.factors), STEPS // 2, 2), strict=True))
    combined = task.combine_factors(factors)
    assert combined.shape == (STEPS // 2, 2)
    np.testing.assert_allclose(combined.ravel(), rewards, rtol=1e-12, atol=1e-10)


def test_before_the_first_step_there_is_no_last_reward(task):
    task.reset(seed=SEED)
    with pytest.raises(RuntimeError, match="no step was taken"):
        task.reward_factors()


def test_a_restored_state_continues_bit_equal_here_and_in_a_fresh_instance(spec, task, actions):
    expected, states = {}, {}
    for at in STATES_AT:
        task.reset(seed=SEED)
        for step in range(at):
            if task.step(actions[step])[2]:
                task.reset()
        states[at] = task.get_state()
        expected[at] = play(task, actions, at)
    for at, state in states.items():
        kept = {name: array.copy() for name, array in state.items()}
        fresh = make_task(spec)
        for env in (task, fresh):
            env.set_state(state)
            again = env.get_state()
            assert {name: array.tobytes() for name, array in again.items()} == {
                name: array.tobytes() for name, array in kept.items()
            }
            assert play(env, actions, at) == expected[at]
        # Playing on has not reached into the snapshot.
        assert all(np.array_equal(state[name], kept[name], equal_nan=True) for name in kept if kept[name].size)
        fresh.close()


def test_a_state_holds_plain_arrays_only(task):
    task.reset(seed=SEED)
    for array in task.get_state().values():
        assert isinstance(array, np.ndarray)
        assert not array.dtype.hasobject


def test_the_last_factors_and_success_are_restored_too(spec, task, actions):
    task.reset(seed=SEED)
    task.step(actions[0])
    state, factors, success = task.get_state(), task.reward_factors(), task.success()
    task.step(actions[1])
    task.set_state(state)
    assert task.reward_factors() == factors
    assert task.success() == success


def test_there_are_28_tasks_of_different_names():
    assert len({spec.name for spec in CONTROL_TASKS}) == len(CONTROL_TASKS) == 28


def test_horizons_are_gymnasiums_own():
    for spec in CONTROL_TASKS:
        if spec.extra is None:
            assert spec.horizon == gym.spec(CLASSIC.get(spec.name, f"{spec.name}-v5")).max_episode_steps
        else:
            assert spec.horizon == 1000


def test_reading_the_registry_imports_no_simulator():
    code = "import sys, prefenvs.tasks.control; print(sorted({'mujoco', 'dm_control', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_error_without_dm_control_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "prefenvs.tasks.control.dmc", raising=False)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ImportError, match=r'pip install "prefenvs\[dmc\]"'):
        importlib.import_module("prefenvs.tasks.control.dmc")


@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_the_shipped_random_score_is_what_its_command_measures(name):
    found = json.loads(SCORES.read_text())
    spec = next(spec for spec in CONTROL_TASKS if spec.name == name)
    returns = random_returns(spec, episodes=100)
    assert found["source"].endswith("--episodes 100")
    assert spec.random_score.mean == pytest.approx(returns.mean(), rel=1e-6)
    assert spec.random_score.sd == pytest.approx(returns.std(ddof=1), rel=1e-6)


def test_every_task_has_a_random_and_a_better_reference_score():
    for spec in CONTROL_TASKS:
        assert spec.reference_score.mean > spec.random_score.mean
        assert spec.reference_score.source
