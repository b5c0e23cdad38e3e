import gymnasium as gym
import numpy as np
import pytest

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
