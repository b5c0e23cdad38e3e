import gymnasium as gym
import numpy as np
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env

from prefenvs.agents import QuantileDQN
from prefenvs.agents.distributional.exploration import LONGEST, RepeatedActions

FALSE = np.zeros(1, dtype=bool)
SMALL = {"learning_starts": 40, "buffer_size": 1000, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


def test_durations_follow_the_capped_zeta_law_and_actions_are_uniform():
    repeated = RepeatedActions(np.random.default_rng(0))
    greedy, actions, durations = np.array([-1]), [], []
    for _ in range(3000):  # one exploratory action each; epsilon 0 afterwards, so that it ends with a greedy action
        took = [repeated.mix(greedy, 4, 1.0, FALSE)[0]]
        while (action := repeated.mix(greedy, 4, 0.0, FALSE)[0]) >= 0:
            took.append(action)
        assert set(took) == {took[0]}
        actions.append(took[0])
        durations.append(len(took))
    n = np.arange(1, LONGEST)
    law = 6 / np.pi**2 / n**2  # zeta(2) = pi^2 / 6
    bins = [*law[:7], law[7:20].sum(), law[20:].sum(), 1 - law.sum()]  # 1 to 7, 8 to 20, 21 to 99, the cap
    edges = [*range(1, 9), 21, LONGEST, LONGEST + 1]
    joint = np.histogram2d(actions, durations, bins=[np.arange(5), edges])[0]
    expected = np.outer(np.full(4, 1 / 4), bins) * 3000
    assert joint.sum() == 3000
    assert stats.chisquare(joint.ravel(), expected.ravel()).pvalue > 0.01


def test_epsilon_is_how_often_an_exploratory_action_begins_in_each_environment_alone():
    repeated = RepeatedActions(np.random.default_rng(1))
    began = repeated.mix(np.full(20_000, -1), 3, 0.3, np.ones(20_000, dtype=bool)) >= 0
    assert abs(began.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 20_000)
    np.testing.assert_array_equal(repeated.mix(np.full(20_000, -1), 3, 0.0, np.ones(20_000, dtype=bool)), -1)


def test_a_repeated_action_ends_with_its_episode():
    repeated = RepeatedActions(np.random.default_rng(2))
    begins = np.arange(2000) % 2 == 0
    first = repeated.mix(np.full(2000, -1), 4, 1.0, ~begins)
    second = repeated.mix(np.full(2000, -1), 4, 0.0, begins)
    np.testing.assert_array_equal(second[begins], -1)
    assert (second[~begins] == first[~begins]).sum() > 300  # 1 - 6 / pi^2 of 1000 last longer than a step


def learner(seed=0, **changes):
    venv = make_vec_env("prefenvs/GridLedge-v0", 3, env_kwargs={"evaluation": True, "max_episode_steps": 7})
    return QuantileDQN("MlpPolicy", venv, seed=seed, **{**SMALL, **changes})


def taken(model):
    return model.replay_buffer.actions[: model.replay_buffer.pos, :, 0].copy()


def test_the_learner_collects_with_it_by_its_seed_and_forgets_it_at_the_end_of_an_episode():
    ours = taken(learner().learn(600))
    np.testing.assert_array_equal(ours, taken(learner().learn(600)))
    assert not np.array_equal(ours, taken(learner(seed=1).learn(600)))
    model = learner(exploration_initial_eps=1.0, exploration_final_eps=1.0).learn(600)
    same = taken(model)[1:] == taken(model)[:-1]
    ends = model.replay_buffer.dones[: model.replay_buffer.pos - 1].astype(bool)
    assert ends.sum() > 60
    assert same[~ends].mean() > 0.5  # repeated actions
    assert same[ends].mean() < 0.45  # a new draw of 4


def test_without_it_actions_are_those_of_epsilon_greedy():
    plain = taken(learner(repeat_exploration=False, exploration_initial_eps=1.0, exploration_final_eps=1.0).learn(600))
    assert (plain[1:] == plain[:-1]).mean() < 0.35


def test_the_deterministic_choice_neither_draws_nor_explores():
    model = learner().learn(120)
    batch = {"observation": np.arange(49), "stock": np.zeros((49, 1), np.float32)}
    before = model._repeated._rng.bit_generator.state
    actions = model.predict(batch, deterministic=True)[0]
    assert model._repeated._rng.bit_generator.state == before
    np.testing.assert_array_equal(actions, model.policy.predict(batch, deterministic=True)[0])
    np.testing.assert_array_equal(actions, model.predict(batch, deterministic=True)[0])
    assert gym.spaces.Discrete(4).contains(actions[0])
