import numpy as np
import pytest

from prefenvs.tasks.grid.random_mdp import random_lottery_grid, random_sparse_mdp
from prefenvs.tasks.grid.sampling import random_segments


def test_steps_follow_the_law_of_the_problem():
    mdp = random_sparse_mdp(np.random.default_rng(0), 6, 2, successors=3)
    states, actions, mask = random_segments(mdp, 40_000, 2, np.random.default_rng(1))
    assert mask.all()
    for t in range(2):
        counts = np.zeros(mdp.transitions.shape)
        np.add.at(counts, (states[:, t], actions[:, t], states[:, t + 1]), 1)
        visits = counts.sum(-1, keepdims=True)
        assert not counts[mdp.transitions == 0].any()
        error = np.abs(counts / visits - mdp.transitions)
        assert (error <= 4.5 * np.sqrt(mdp.transitions * (1 - mdp.transitions) / visits)).all()
    np.testing.assert_allclose(np.bincount(states[:, 0]) / 40_000, mdp.start, atol=0.01)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_segment_ends_with_its_episode(steps):
    mdp = random_lottery_grid(np.random.default_rng(0)).mdp
    states, _, mask = random_segments(mdp, 2000, steps, np.random.default_rng(0))
    assert mask[:, 0].all()
    np.testing.assert_array_equal(mask[:, 1:], ~np.logical_or.accumulate(mdp.terminal[states[:, 1:-1]], axis=1))
    assert mdp.terminal[states[:, 1]].any()
