import numpy as np

from prefenvs.metrics import REWARD_METRICS, RewardComparison, Transitions


def walk(rng, n=1024):
    """A noisy linear walk in three dimensions."""
    states = rng.standard_normal((n, 3))
    actions = rng.standard_normal((n, 1))
    after = 0.9 * states + 0.1 * actions
    return Transitions(states, actions, after, np.zeros(n, bool))


def test_unrelated_rewards_are_neither_near_nor_opposite():
    # Orthogonal canonical rewards have the distance sqrt(1 / 2).
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 1024))
    held = RewardComparison(walk(rng), noise[0], noise[1], gamma=0.99)
    assert abs(REWARD_METRICS["starc"](held) - np.sqrt(0.5)) < 0.05
    assert abs(REWARD_METRICS["pearson"](held)) < 0.1


def test_a_potential_is_seen_by_correlations_but_not_by_starc():
    rng = np.random.default_rng(1)
    steps = walk(rng)
    true = np.sin(steps.observations[:, 0]) * steps.actions[:, 0]
    shaped = 2 * true + 0.9 * 30 * steps.next_observations[:, 1] - 30 * steps.observations[:, 1]
    held = RewardComparison(steps, true, shaped, gamma=0.9)
    assert REWARD_METRICS["starc"](held) < 1e-6
    assert REWARD_METRICS["val"](held) < 1e-6
    assert REWARD_METRICS["spearman"](held) < 0.3
