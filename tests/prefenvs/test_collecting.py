from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import prefenvs


@pytest.mark.parametrize("mode", [None, "sync"])
def test_what_was_played_is_kept_and_can_be_asked_about(mode):
    envs = gym.make_vec("prefenvs/HalfCheetah-v0", num_envs=3, vectorization_mode=mode, budget=5)
    rng, seen = np.random.default_rng(0), []

    def act(observations):
        seen.append(observations)
        return rng.uniform(-1, 1, (3, 6)).astype(np.float32)

    store = prefenvs.collect(envs, act, 30, seed=7)
    segments = store.sample(10, 12, rng)
    stream, _, first = segments.ids.T
    np.testing.assert_array_equal(segments.observations[:, 0], np.stack(seen)[first, stream])
    label = prefenvs.feedback(envs).ask(prefenvs.Query(segments))
    assert label.choice.shape == (5, 2)
    np.testing.assert_array_equal(seen[0], envs.reset(seed=7)[0])
    envs.close()


@pytest.mark.parametrize("batch", [None, "sync"])
@pytest.mark.parametrize("name", ["InvertedPendulum", "GridDelivery"])
def test_episodes_that_terminate_are_kept_whole_in_every_autoreset_mode(name, batch):
    whole = {}
    for mode in AutoresetMode:
        settings = {"autoreset_mode": mode} if batch is None else {"vector_kwargs": {"autoreset_mode": mode}}
        envs = gym.make_vec(f"prefenvs/{name}-v0", 2, batch, max_episode_steps=30, **settings)
        act = partial(push, envs.single_action_space)
        store = prefenvs.collect(envs, act, 120, seed=0)
        segments = store.sample(2000, 30, np.random.default_rng(0))
        judged = prefenvs.feedback(envs)._judge(segments)
        np.testing.assert_array_equal(judged.observations, segments.observations)
        np.testing.assert_array_equal(judged.terminated, segments.terminated)
        facts = np.column_stack([segments.ids, segments.lengths, segments.terminated])
        whole[mode] = {tuple(row) for row in facts.tolist() if row[1] < 3 and row[2] == 0}
        envs.close()
    assert len(whole[AutoresetMode.NEXT_STEP]) == 6
    assert any(row[-1] for row in whole[AutoresetMode.NEXT_STEP])
    assert whole[AutoresetMode.SAME_STEP] == whole[AutoresetMode.DISABLED] == whole[AutoresetMode.NEXT_STEP]


def push(space, observations):
    """An action that depends on the observation alone, so that episodes are the same whenever they begin."""
    if isinstance(space, gym.spaces.Discrete):
        return (observations * 7 + 1) % space.n
    return np.full((len(observations), *space.shape), 1.0, np.float32)
