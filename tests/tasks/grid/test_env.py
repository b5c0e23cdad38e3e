import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from prefenvs.tasks.grid import GRID_TASKS
from prefenvs.tasks.grid.delivery import GridDelivery
from prefenvs.tasks.grid.random_mdp import GridRandom, GridRandomStochastic
from prefenvs.tasks.grid.scores import make_task, random_return_moments
from prefenvs.tasks.grid.solvers import undiscounted_optimum
from prefenvs.tasks.task import Task

over_the_registry = pytest.mark.parametrize("spec", GRID_TASKS, ids=lambda spec: spec.name)
UP, DOWN, LEFT, RIGHT = range(4)


def rollout(env, actions):
    """The steps of one episode after the other; each is what `step` gave, with factors and success."""
    steps = []
    for action in actions:
        steps.append((*env.step(action), env.reward_factors(), env.success()))
        if steps[-1][2]:
            steps.append(env.reset())
    return steps


@over_the_registry
def test_gymnasium_accepts_it(spec):
    module, name = spec.entry_point.split(":")
    registered = gym.envs.registration.EnvSpec(
        spec.id.split("/")[1], entry_point=spec.entry_point, kwargs=dict(spec.kwargs), max_episode_steps=spec.horizon
    )
    check_env(gym.make(registered).unwrapped)
    assert isinstance(make_task(spec), Task)
    assert isinstance(make_task(spec), getattr(sys.modules[module], name))


@over_the_registry
def test_the_seed_decides_everything(spec):
    actions = np.random.default_rng(0).integers(4, size=300)
    one, same, other = make_task(spec), make_task(spec), make_task(spec)
    starts = [env.reset(seed=seed) for env, seed in ((one, 3), (same, 3), (other, 4))]
    assert starts[0] == starts[1]
    steps = rollout(one, actions)
    assert steps == rollout(same, actions)
    assert steps != rollout(other, actions)


@over_the_registry
def test_factors_combine_to_the_reward_and_no_info_tells_it(spec):
    env = make_task(spec)
    env.reset(seed=0)
    assert tuple(env.reward_factors()) == spec.factors
    assert not any(env.reward_factors().values())
    rewards, factors = [], []
    for action in np.random.default_rng(1).integers(4, size=2000):
        state, reward, terminated, truncated, info = env.step(action)
        assert info == {}
        assert not truncated
        assert isinstance(state, np.int64)
        rewards.append(reward)
        factors.append(env.reward_factors())
        assert tuple(factors[-1]) == spec.factors
        if terminated:
            _, info = env.reset()
            assert info == {}
    columns = {name: np.array([f[name] for f in factors]).reshape(2, -1) for name in spec.factors}
    np.testing.assert_array_equal(env.combine_factors(columns), np.reshape(rewards, (2, -1)))
    assert float(env.combine_factors(factors[0])) == rewards[0]


@over_the_registry
def test_a_restored_state_replays_bit_equal_on_another_instance(spec):
    actions = np.random.default_rng(2).integers(4, size=200)
    env, twin = make_task(spec), make_task(spec)
    env.reset(seed=0)
    rollout(env, actions[:50])
    state, factors = env.get_state(), env.reward_factors()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())
    expected = rollout(env, actions[50:])
    env.set_state(state)
    twin.set_state(state)
    assert twin.reward_factors() == factors
    assert rollout(env, actions[50:]) == expected == rollout(twin, actions[50:])


@over_the_registry
def test_scores_are_what_the_command_prints(spec):
    mdp = make_task(spec).mdp
    assert random_return_moments(mdp, spec.horizon) == pytest.approx(
        (spec.random_score.mean, spec.random_score.sd), abs=5e-5
    )
    assert undiscounted_optimum(mdp, spec.horizon) == pytest.approx(spec.reference_score.mean, abs=5e-5)
    assert spec.deterministic == mdp.deterministic
    assert spec.has_success


@over_the_registry
def test_sampled_random_episodes_agree_with_the_exact_score(spec):
    # 400 episodes; a mean further than 5 standard errors away, or a deviation 25% off, is a wrong recursion.
    env, rng, returns = make_task(spec), np.random.default_rng(0), np.zeros(400)
    for episode in range(returns.size):
        env.reset(seed=episode)
        for action in rng.integers(4, size=spec.horizon):
            _, reward, terminated, _, _ = env.step(action)
            returns[episode] += reward
            if terminated:
                break
    mean, sd = random_return_moments(env.mdp, spec.horizon)
    assert abs(returns.mean() - mean) < 5 * sd / 20
    assert returns.std() == pytest.approx(sd, rel=0.25)


def test_drawn_transitions_follow_the_mdp():
    env = GridRandomStochastic()
    env.reset(seed=0)
    entries = np.argwhere(env.mdp.transitions[..., 25:] > 0)
    state, action, twin = entries[0]
    before = env.get_state()
    outcomes = []
    for _ in range(1000):
        env.set_state(before | {"transition": np.array([-1, -1, state]), "rng": env.get_state()["rng"]})
        outcomes.append(int(env.step(action)[0]))
    assert set(outcomes) == {int(env.world.cell_of_state[25 + twin]), 25 + int(twin)}
    assert abs(np.mean(np.array(outcomes) >= 25) - 0.5) < 0.08  # 5 standard errors


def test_the_goal_is_success_and_ends_the_episode():
    env = GridDelivery()
    state = env.reset(seed=0)[0]
    assert not env.success()
    env.set_state(env.get_state() | {"transition": np.array([-1, -1, 10])})  # below the goal
    state, reward, terminated, _, _ = env.step(UP)
    assert (int(state), reward, terminated, env.success()) == (0, 50.0, True, True)
    assert env.reward_factors() == {"goal": 50.0, "sheep": 0.0, "mud": 0.0, "roadblock": 0.0, "coin": 0.0, "gas": 0.0}
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(UP)


def test_misuse_is_refused_and_changes_nothing():
    env = GridDelivery()
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(UP)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match="action=4 is not known"):
        env.step(4)
    with pytest.raises(ValueError, match="expected 3 numbers from get_state"):
        env.set_state(before | {"transition": np.array([-1, -1, 100])})
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="render_mode='human' is not known"):
        GridDelivery(render_mode="human")


def test_another_map_seed_is_another_map():
    assert GridRandom(map_seed=1).world.rows != GridRandom(map_seed=2).world.rows
    assert GridRandom(map_seed=1).world.rows == GridRandom(map_seed=1).world.rows


def test_text_marks_the_agent():
    env = GridDelivery(render_mode="ansi")
    state = env.reset(seed=0)[0]
    lines = env.render().split("\n")
    assert len(lines) == 10
    assert lines[state // 10][3 * (state % 10)] == "["
    assert env.render().count("[") == 1


@over_the_registry
def test_pixels_show_the_agent_where_it_is(spec):
    module, name = spec.entry_point.split(":")
    env = getattr(sys.modules[module], name)(**spec.kwargs, render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded, match="before render"):
        env.render()
    cell = int(env.world.cell_of_state[env.reset(seed=0)[0]])
    image, (height, width) = env.render(), env.world.shape
    assert image.dtype == np.uint8
    assert image.shape == (32 * height, 32 * width, 3)
    blue = (image == (30, 96, 210)).all(axis=-1).reshape(height, 32, width, 32).any(axis=(1, 3))
    np.testing.assert_array_equal(np.flatnonzero(blue), [cell])


def test_the_registry_needs_no_simulator():
    code = (
        "import sys, prefenvs.tasks.grid\n"
        "heavy = {'torch', 'mujoco', 'scipy', 'prefenvs.tasks.grid.env'} & set(sys.modules)\n"
        "bare = {'tasks', 'agents'} & set(sys.modules)\n"
        "assert not heavy | bare, heavy | bare"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
