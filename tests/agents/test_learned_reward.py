"""Rewards that learners train on are the model's, in the environment's units."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import prefenvs
from prefenvs.agents import LearnedReward, PreferenceCallback, PreferenceConfig, RewardEnsemble, RewardReplayBuffer
from prefenvs.agents.learned_reward import predict_rewards
from prefenvs.agents.reward_models import PreferenceData
from prefenvs.agents.reward_models.step_model import StepRewardModel

BOX = gym.spaces.Box(-np.inf, np.inf, (3,))
FEW = PreferenceConfig(queries=10, sessions=1, first_session=100, segment_steps=8, hidden=(8,), reward_epochs=2)
PENDULUM = gym.spaces.Box(-2.0, 2.0, (1,))  # torque in N m; SB3 stores it scaled to [-1, 1]


def reward_model(observations=BOX, actions=PENDULUM, trained=True):
    model = RewardEnsemble(observations, actions, members=2, hidden=(8,), rng=torch.Generator().manual_seed(0))
    model.trained.fill_(trained)
    model.scale.fill_(0.5)
    return model


def fill(buffer, steps, seed=0):
    """Add random steps; returns the observations (steps, E, 3) and stored actions (steps, E, 1)."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(steps + 1, buffer.n_envs, 3)).astype(np.float32)
    actions = rng.uniform(-1, 1, (steps, buffer.n_envs, 1)).astype(np.float32)
    for t in range(steps):
        zeros = np.zeros(buffer.n_envs)
        buffer.add(observations[t], observations[t + 1], actions[t], zeros, zeros, [{}] * buffer.n_envs)
    return observations[:-1], actions


def step_by_step(model, observations, actions):
    """(steps, E) rewards by one call of the model a step, of stored actions."""
    rewards = np.zeros(actions.shape[:2])
    for t, row in np.ndindex(*rewards.shape):
        torque = torch.tensor(2.0 * actions[t, row])[None]
        rewards[t, row] = model.reward(torch.tensor(observations[t, row])[None], torch.as_tensor(torque)).item()
    return rewards


def test_a_learned_reward_is_the_models_reward_of_the_step():
    venv = make_vec_env("prefenvs/Pendulum-v0", 3)
    model = reward_model(venv.observation_space, venv.action_space, trained=False)
    env, rng = LearnedReward(venv, model), np.random.default_rng(0)
    before = env.reset()
    actions = rng.uniform(-2, 2, (3, 1)).astype(np.float32)
    assert not env.step(actions)[1].any(), "0 until the model is trained"
    model.trained.fill_(True)
    before = env.reset()
    for _ in range(205):  # past the end of the episodes, after 200 steps, where the observation is a reset's
        actions = rng.uniform(-2, 2, (3, 1)).astype(np.float32)
        after, rewards, _, _ = env.step(actions)
        expected = model.reward(torch.tensor(before), torch.tensor(actions)).detach()
        np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-6)
        before = after


class Speed(StepRewardModel):
    """Rewards what a step changed of the first number that is seen."""

    device, trained = torch.device("cpu"), True

    def members(self, obs, act, next_obs=None):
        return (next_obs - obs)[:, 0][None]


def test_a_model_whose_reward_leaves_out_what_a_step_led_to_is_refused():
    class TwoArguments(torch.nn.Module):
        def reward(self, obs, act):
            return obs.sum(-1)

    with pytest.raises(TypeError, match=r"TwoArguments.reward takes other arguments.*next_obs=None"):
        LearnedReward(make_vec_env("Pendulum-v1", 1), TwoArguments())


def test_a_reward_of_what_a_step_led_to_sees_the_terminal_observation_and_not_the_resets():
    venv = make_vec_env("prefenvs/CartPole-v0", 2)
    env, rng, ends = LearnedReward(venv, Speed()), np.random.default_rng(0), 0
    before = env.reset()
    for _ in range(80):
        after, rewards, dones, infos = env.step(rng.integers(2, size=2))
        led_to = [
            info["terminal_observation"] if over else row for row, over, info in zip(after, dones, infos, strict=True)
        ]
        np.testing.assert_allclose(rewards, (np.stack(led_to) - before)[:, 0], rtol=1e-6)
        before, ends = after, ends + dones.sum()
    assert ends


@pytest.mark.parametrize("steps", [5, 30], ids=["part", "wrapped around"])
def test_a_replay_buffer_rewards_steps_by_what_they_led_to(steps):
    buffer = RewardReplayBuffer(20, BOX, PENDULUM, n_envs=2, device="cpu")  # 10 steps a row
    fill(buffer, steps)
    buffer.relabel(Speed())
    led = buffer.next_observations - buffer.observations
    np.testing.assert_array_equal(buffer.rewards, led[..., 0])
    fill(buffer, 3, seed=1)  # rewarded as they come
    np.testing.assert_array_equal(buffer.rewards, (buffer.next_observations - buffer.observations)[..., 0])


def test_a_fit_reads_what_steps_led_to_in_segments():
    class Following(Linear):
        def encode(self, obs, act, next_obs=None):
            return super().encode(next_obs, act)

    envs, rng = gym.make_vec("prefenvs/CartPole-v0", num_envs=2), np.random.default_rng(0)
    segments = prefenvs.collect(envs, lambda seen: rng.integers(2, size=2), 60, seed=0).sample(6, 8, rng)
    query, data = prefenvs.Query(segments), PreferenceData()
    data.add(Following(), query, prefenvs.feedback(envs).ask(query))
    expected = Linear().encode(torch.tensor(segments.observations[:, 1:]), torch.tensor(segments.actions))
    torch.testing.assert_close(data.inputs.flatten(0, 1), expected)


def test_predictions_do_not_depend_on_the_chunk():
    model, rng = reward_model(), np.random.default_rng(0)
    observations, actions = rng.normal(size=(10, 3)).astype(np.float32), rng.normal(size=(10, 1)).astype(np.float32)
    whole = predict_rewards(model, observations, actions)
    np.testing.assert_allclose(predict_rewards(model, observations, actions, chunk=3), whole, atol=1e-6)


@pytest.mark.parametrize("steps", [20, 70], ids=["part", "wrapped around"])
def test_relabelling_equals_the_model_step_by_step_on_the_environments_actions(steps):
    buffer, model = RewardReplayBuffer(100, BOX, PENDULUM, n_envs=2, device="cpu"), reward_model()  # 50 steps a row
    observations, actions = fill(buffer, steps)
    assert not buffer.rewards.any()
    buffer.relabel(model)
    slots = np.arange(steps)[-50:] % 50
    np.testing.assert_allclose(
        buffer.rewards[slots], step_by_step(model, observations, actions)[-50:], rtol=1e-4, atol=1e-6
    )
    assert not buffer.rewards[steps:].any(), "empty places stay empty"


def test_steps_added_after_relabelling_are_rewarded_by_the_model():
    buffer, model = RewardReplayBuffer(200, BOX, PENDULUM, n_envs=2, device="cpu"), reward_model()
    fill(buffer, 5)
    buffer.relabel(model)
    observations, actions = fill(buffer, 5, seed=1)
    expected = step_by_step(model, observations, actions)
    np.testing.assert_allclose(buffer.rewards[5:10], expected, rtol=1e-4, atol=1e-6)


def test_exploration_is_rewarded_by_the_distance_to_the_fifth_neighbour_over_its_running_deviation():
    buffer = RewardReplayBuffer(60, BOX, PENDULUM, n_envs=2, device="cpu", k_nearest=5)
    fill(buffer, 30)
    buffer.explore = True
    seen = buffer.observations.reshape(-1, 3)
    met = []
    for seed in (0, 1, 2):
        np.random.seed(seed)  # SB3 draws the environment of each sample from numpy's global generator
        batch = buffer._get_samples(np.arange(8) + seed)
        apart = np.linalg.norm(batch.observations.numpy()[:, None] - seen[None], axis=-1)
        fifth = np.sort(apart, 1)[:, 5]  # column 0 is the observation itself
        met += fifth.tolist()
        np.testing.assert_allclose(batch.rewards[:, 0], fifth / np.std(met), rtol=1e-3)
    buffer.relabel(reward_model())
    assert not buffer.explore, "a trained model ends exploration"


def test_discrete_actions_and_observations_are_relabelled():
    states, moves = gym.spaces.Discrete(4), gym.spaces.Discrete(3)
    buffer = RewardReplayBuffer(12, states, moves, n_envs=2, device="cpu")
    model, rng = reward_model(states, moves), np.random.default_rng(0)
    at, chosen = rng.integers(4, size=(6, 2)), rng.integers(3, size=(6, 2))
    for state, move in zip(at, chosen, strict=True):
        buffer.add(state, state, move, np.zeros(2), np.zeros(2), [{}, {}])
    buffer.relabel(model)
    expected = model.reward(torch.tensor(at.reshape(-1)), torch.tensor(chosen.reshape(-1))).detach().reshape(6, 2)
    np.testing.assert_allclose(buffer.rewards, expected, rtol=1e-5)


def test_dqn_learns_from_preferences():
    env = gym.make("prefenvs/CartPole-v0", budget=10)
    asked = PreferenceCallback(prefenvs.feedback(env), FEW, seed=0)
    model = DQN("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, buffer_size=500, seed=0, device="cpu")
    model.learn(150, callback=asked)
    buffer = model.replay_buffer
    expected = predict_rewards(asked.reward_model, buffer.observations[:150, 0], buffer.actions[:150, 0, 0])
    np.testing.assert_allclose(buffer.rewards[:150, 0], expected, atol=1e-5)


def test_a_reward_model_of_ones_own_is_trained_on_the_learners_device(device):
    env = gym.make("prefenvs/CartPole-v0", budget=10)
    config = PreferenceConfig(queries=10, sessions=1, first_session=100, segment_steps=8, reward_epochs=2)
    own = reward_model(env.observation_space, env.action_space)
    asked = PreferenceCallback(prefenvs.feedback(env), config, seed=0, reward_model=own)
    model = DQN("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, buffer_size=500, seed=0, device=device)
    model.learn(150, callback=asked)
    assert own.trained
    assert own.device.type == device


def test_a_reward_model_of_ones_own_is_brought_to_a_device():
    env = gym.make("prefenvs/CartPole-v0", budget=10)
    own = reward_model(env.observation_space, env.action_space)
    asked = PreferenceCallback(prefenvs.feedback(env), PreferenceConfig(), seed=0, reward_model=own)
    assert asked.build(env.observation_space, env.action_space, 1, "meta") is own
    assert own.device.type == "meta"


class Linear(StepRewardModel):
    """A reward model of one's own: linear in observation and action."""

    device, orders = torch.device("cpu"), 1

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4 + 2, 1)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    def encode(self, obs, act, next_obs=None):
        return torch.cat([obs.float(), torch.nn.functional.one_hot(act.long(), 2).float()], -1)

    def observe(self, inputs):
        pass

    def forward(self, inputs):
        return self.linear(inputs).reshape(1, -1) if inputs.dim() == 2 else self.linear(inputs)[..., 0]

    def members(self, obs, act, next_obs=None):
        return self(self.encode(obs, act)) / self.scale

    def segment_members(self, segments):
        rewards = self.linear(self.encode(segments.observations[:, :-1], segments.actions))[..., 0]
        return (rewards * segments.mask).sum(-1)[None]


@pytest.mark.parametrize("strategy", ["uniform", "disagreement"])
def test_a_reward_model_of_ones_own_is_trained(strategy):
    env = gym.make("prefenvs/CartPole-v0", budget=10)
    config = dataclasses.replace(FEW, sessions=2, last_session=140, strategy=strategy)
    asked = PreferenceCallback(prefenvs.feedback(env), config, seed=0, reward_model=Linear())
    model = DQN("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, buffer_size=500, seed=0, device="cpu")
    model.learn(200, callback=asked)
    assert asked.feedback.asked == 10
    assert asked.reward_model.trained
    assert asked.reward_model.scale != 1
    assert model.replay_buffer.rewards[:200].all()


class WithoutMost(StepRewardModel):
    device = torch.device("cpu")
    trained = False

    def members(self, obs, act, next_obs=None):
        return obs.sum(-1)[None]


def test_a_reward_model_that_cannot_be_trained_is_refused_with_what_it_lacks():
    feedback = prefenvs.feedback(gym.make("prefenvs/CartPole-v0", budget=10))
    with pytest.raises(TypeError, match="WithoutMost cannot be trained from preferences") as refused:
        PreferenceCallback(feedback, FEW, seed=0, reward_model=WithoutMost())
    lacking = [line.strip().split(":")[0] for line in str(refused.value).splitlines()[1:]]
    assert lacking == ["segment_members", "encode", "observe", "forward", "orders", "scale", "trained"]


@pytest.mark.parametrize("name", ["encode", "members", "reward"])
def test_a_model_that_leaves_out_what_a_step_led_to_is_refused_with_what_it_lacks(name):
    own = type("Earlier", (Linear,), {name: lambda model, obs, act: getattr(Linear, name)(model, obs, act)})
    feedback = prefenvs.feedback(gym.make("prefenvs/CartPole-v0", budget=10))
    with pytest.raises(TypeError, match=rf"It lacks\n  {name}: {name}\(obs, act, next_obs=None\)"):
        PreferenceCallback(feedback, FEW, seed=0, reward_model=own())


def test_ppo_learns_from_preferences_in_an_environment_with_the_callbacks_reward():
    venv = make_vec_env("prefenvs/CartPole-v0", 2, env_kwargs={"budget": 10})
    asked = PreferenceCallback(prefenvs.feedback(venv), FEW, seed=0)
    rewarded = LearnedReward(venv, asked.build(venv.observation_space, venv.action_space, 2, "cpu"))
    model = PPO("MlpPolicy", VecNormalize(rewarded, norm_obs=False), n_steps=64, seed=0, device="cpu").learn(
        256, callback=asked
    )
    assert asked.feedback.asked == 10
    assert model.rollout_buffer.rewards.all()


@pytest.mark.parametrize(
    ("algorithm", "task", "other"),
    [(PPO, "CartPole", False), (PPO, "CartPole", True), (SAC, "Pendulum", False)],
    ids=["PPO alone", "PPO with another reward model", "SAC with SB3's replay buffer"],
)
def test_nothing_is_asked_for_an_algorithm_that_would_not_learn_from_it(algorithm, task, other):
    venv = make_vec_env(f"prefenvs/{task}-v0", 1, env_kwargs={"budget": 10})
    asked = PreferenceCallback(prefenvs.feedback(venv), FEW, seed=0)
    if other:
        venv = LearnedReward(venv, reward_model(venv.observation_space, venv.action_space))
    with pytest.raises(ValueError, match=f"{algorithm.__name__} would not learn from the answers"):
        algorithm("MlpPolicy", venv, seed=0, device="cpu").learn(150, callback=asked)
    assert asked.feedback.asked == 0
