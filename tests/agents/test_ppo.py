"""Our PPO gives the numbers of Stable-Baselines3's."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env

from prefenvs.agents.fused import numpy_kernels
from prefenvs.agents.ppo import PPO, covered_parts
from tests.agents.changes import learn_changed, loads_state, moves_weights

NET = {"net_arch": [16, 16]}


@pytest.fixture(params=["numpy", "torch"])
def kernels(request, monkeypatch):
    """Small networks on the CPU run in numpy; without a size that numpy is given, in torch, as large ones do."""
    if request.param == "torch":
        monkeypatch.setattr(numpy_kernels, "_MOST", 0)
    return request.param


def pair(env="Pendulum-v1", rollouts=2, **arguments):
    """SB3's PPO and ours after the same rollouts and updates, with the hyperparameters of a small run."""
    settings = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "seed": 0, "device": "cpu", "policy_kwargs": NET}
    settings |= arguments
    return [
        cls("MlpPolicy", make_vec_env(env, 2, seed=0), **settings).learn(64 * rollouts)
        for cls in (stable_baselines3.PPO, PPO)
    ]


def assert_same(models, atol):
    theirs, ours = models
    for name, tensor in theirs.policy.state_dict().items():
        torch.testing.assert_close(ours.policy.state_dict()[name], tensor, rtol=1e-4, atol=atol)
    moments = [model.policy.optimizer.state_dict()["state"] for model in models]
    for place, values in moments[0].items():
        for name, tensor in values.items():
            torch.testing.assert_close(moments[1][place][name].to(tensor.device), tensor, rtol=1e-3, atol=atol)
    assert set(ours.logger.name_to_value) == set(theirs.logger.name_to_value)
    for name, value in theirs.logger.name_to_value.items():
        if name.startswith("train/"):
            assert ours.logger.name_to_value[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    np.testing.assert_allclose(ours.rollout_buffer.advantages, theirs.rollout_buffer.advantages, rtol=1e-3, atol=1e-4)


CASES = {
    "defaults": {},
    "discrete actions": {"env": "CartPole-v1"},
    "entropy bonus": {"ent_coef": 0.1},
    "entropy bonus, discrete": {"env": "CartPole-v1", "ent_coef": 0.1},
    "clipped values": {"clip_range_vf": 0.05, "learning_rate": 3e-3},
    "small clip and norm": {"clip_range": 0.02, "max_grad_norm": 0.01, "learning_rate": 3e-3},
    "stops by KL": {"target_kl": 1e-4, "learning_rate": 3e-3},
    "unequal batches, raw advantages": {"batch_size": 24, "normalize_advantage": False},
    "relu, two shapes": {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [16, 8]}, "activation_fn": torch.nn.ReLU}},
    "no hidden layer": {"policy_kwargs": {"net_arch": []}},
    "schedules": {"learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.1 + 0.1 * left},
}


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_short_run_equals_sb3s(case, kernels):
    models = pair(**case)
    assert covered_parts(models[1]) is not None
    assert models[1]._update.array(torch.zeros(1)).__class__.__module__ == kernels
    assert_same(models, atol=1e-5)
    assert models[1]._n_updates == models[0]._n_updates


NOT_COVERED = {
    "gSDE": {"use_sde": True},
    "RMSprop": {"policy_kwargs": {**NET, "optimizer_class": torch.optim.RMSprop}},
    "another activation": {"policy_kwargs": {**NET, "activation_fn": torch.nn.ELU}},
}


@pytest.mark.parametrize("case", NOT_COVERED.values(), ids=NOT_COVERED.keys())
def test_what_is_not_covered_is_sb3s_own_update_bit_for_bit(case):
    models = pair(**case)
    assert covered_parts(models[1]) is None
    assert_same(models, atol=0)


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_the_first_rollout_is_sb3s(env, kernels):
    theirs, ours = (model.rollout_buffer for model in pair(env, rollouts=1, n_epochs=1))
    exactly = {"rtol": 0, "atol": 0}  # in torch both multiply by the same calls
    for name in ("observations", "actions", "rewards", "episode_starts", "values"):
        close = exactly if kernels == "torch" or name == "episode_starts" else {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), **close)
    np.testing.assert_allclose(ours.log_probs, theirs.log_probs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_acting_equals_the_policys_own(env, deterministic, kernels):
    model = pair(env, rollouts=1)[1]
    obs = torch.from_numpy(np.stack([model.observation_space.sample() for _ in range(20)]))
    torch.manual_seed(0)
    expected = model.policy(obs, deterministic)
    torch.manual_seed(0)
    found = model._update.act(obs, deterministic)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    again = [part.clone() for part in found]
    model._update.act(obs + 1)
    for before, after in zip(again, found, strict=True):
        assert torch.equal(before, after), "a later call wrote over what an earlier one returned"


def test_an_error_amid_a_rollout_leaves_the_policy_as_it_was():
    def fail(_locals, _globals):
        assert "clipped_actions" in _locals
        raise RuntimeError("stop here")

    model = PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(RuntimeError, match="stop here"):
        model.learn(8, callback=fail)
    assert "forward" not in vars(model.policy)


def test_several_discrete_actions_and_dict_observations_are_left_to_sb3():
    class Env(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.MultiDiscrete([2, 3])

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    model = PPO("MlpPolicy", Env(), n_steps=8, batch_size=8, n_epochs=1, device="cpu").learn(8)
    assert covered_parts(model) is None
    assert model._n_updates == 1


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_gradients_equal_autograds(env, kernels):
    model = pair(env, 1, n_epochs=1, batch_size=64, max_grad_norm=1e9, learning_rate=0.0, ent_coef=0.1)[1]
    ours = [parameter.grad.clone() for parameter in model.policy.parameters()]
    np.random.seed(0)
    (batch,) = model.rollout_buffer.get(64)
    actions = batch.actions.long().flatten() if env == "CartPole-v1" else batch.actions
    values, log_prob, entropy = model.policy.evaluate_actions(batch.observations, actions)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    ratio = (log_prob - batch.old_log_prob).exp()
    policy_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2)).mean()
    model.policy.zero_grad()
    (policy_loss - 0.1 * entropy.mean() + 0.5 * (values.flatten() - batch.returns).square().mean()).backward()
    for parameter, gradient in zip(model.policy.parameters(), ours, strict=True):
        scale = max(1.0, float(parameter.grad.abs().max()))
        torch.testing.assert_close(gradient / scale, parameter.grad / scale, rtol=1e-5, atol=1e-5)


def test_a_saved_model_predicts_the_same(tmp_path):
    model = pair(rollouts=1)[1]
    model.save(tmp_path / "model")
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for cls in (PPO, stable_baselines3.PPO):
        loaded = cls.load(tmp_path / "model", device="cpu")
        ours, theirs = (m.predict(observations, deterministic=True)[0] for m in (model, loaded))
        np.testing.assert_array_equal(ours, theirs)


def test_kernels_follow_the_size_of_the_minibatches():
    model = pair(rollouts=1)[1]
    assert isinstance(model._covering_update().array(torch.zeros(1)), np.ndarray)
    model.batch_size = 2**18
    assert isinstance(model._covering_update().array(torch.zeros(1)), torch.Tensor)


@pytest.mark.gpu
@pytest.mark.filterwarnings(
    "ignore:You have specified a mini-batch size", "ignore:You are trying to run PPO on the GPU"
)
@pytest.mark.parametrize("replayed", [False, True], ids=["launched", "replayed"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_short_run_on_a_gpu_equals_sb3s(case, replayed, cuda, monkeypatch):
    monkeypatch.setattr(PPO, "cuda_graphs", replayed)
    models = pair(rollouts=3, **case, device=cuda)
    recorded = models[1].logger.name_to_value.pop("train/graph_seconds", 0.0)
    assert (recorded > 0) == replayed
    assert_same(models, atol=1e-4)


def test_a_copy_made_after_learning_learns_on_alone():
    model = pair(rollouts=1)[1]
    twin = copy.deepcopy(model)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    twin.learn(64, reset_num_timesteps=False)
    assert all(torch.equal(*both) for both in zip(before, model.policy.parameters(), strict=True))
    assert not all(torch.equal(*both) for both in zip(before, twin.policy.parameters(), strict=True))


def replaces_a_layer(model):
    model.policy.mlp_extractor.policy_net[2] = torch.nn.Linear(16, 16)
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), lr=3e-4, eps=1e-5)


def halves_weights(model):
    with torch.no_grad():
        for param in model.policy.parameters():
            param *= 0.5


def hooks(name):
    """Adds a hook that doubles what a part of the policy reads."""
    return lambda model: getattr(model.policy, name).register_forward_pre_hook(lambda module, given: given[0] * 2)


def acts_otherwise(model):
    model.policy.forward = lambda obs, deterministic=False: type(model.policy).forward(model.policy, obs * 0, True)


CHANGES = {
    "layer": replaces_a_layer,
    "activation": lambda model: model.policy.mlp_extractor.policy_net.__setitem__(1, torch.nn.ReLU()),
    "weights": halves_weights,
    "memory of the weights": moves_weights,
    "frozen": lambda model: model.policy.mlp_extractor.value_net[0].requires_grad_(False),
    "state": lambda model: loads_state(model.policy.optimizer),
    "no state": lambda model: model.policy.optimizer.state.clear(),
    "optimiser": lambda model: setattr(model.policy, "optimizer", torch.optim.SGD(model.policy.parameters(), 1e-3)),
    "setting": lambda model: model.policy.optimizer.param_groups[0].update(betas=(0.5, 0.9)),
    "sign": lambda model: model.policy.optimizer.param_groups[0].update(maximize=True),
    "gradients": lambda model: model.policy.zero_grad(set_to_none=True),
    "policy": lambda model: model.set_parameters(model.get_parameters()),
    "coefficients": lambda model: vars(model).update(vf_coef=1.0, ent_coef=0.1, max_grad_norm=0.01, target_kl=0.01),
    "hook of the extractor": hooks("mlp_extractor"),
    "hook of the flattening": hooks("features_extractor"),
    "hook of the head": hooks("action_net"),
    "way to act": acts_otherwise,
    "nothing": lambda model: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("moment", ["_on_rollout_start", "_on_rollout_end", "train"])
def test_what_is_changed_between_rollouts_is_noticed(change, moment, kernels):
    models = pair(rollouts=1)
    learn_changed(models, change, moment, after=64, steps=192)
    theirs, ours = (model.rollout_buffer.actions for model in models)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    weights = [model.policy.state_dict() for model in models]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=1e-4)
