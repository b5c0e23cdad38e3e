"""Our SAC gives the numbers of Stable-Baselines3's."""

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.sac.policies import SACPolicy

from prefenvs.agents.fused import numpy_kernels, torch_kernels
from prefenvs.agents.replay import FIELDS, TensorReplayBuffer
from prefenvs.agents.sac import SAC, covered_parts
from tests.agents.changes import learn_changed, loads_state, moves_weights

NET = {"net_arch": [16, 16]}


def pair(env="Pendulum-v1", steps=64, **arguments):
    """SB3's SAC and ours after the same random steps."""
    settings = {"learning_starts": 1000, "batch_size": 32, "buffer_size": 500, "seed": 0, "device": "cpu"}
    settings |= {"policy_kwargs": NET, **arguments}
    return [
        cls("MlpPolicy", env() if callable(env) else env, **settings).learn(steps)
        for cls in (stable_baselines3.SAC, SAC)
    ]


def numbers(model):
    """Weights, temperature and the state of the optimisers by name."""
    found = {f"policy/{name}": tensor for name, tensor in model.policy.state_dict().items()}
    optimizers = {"actor": model.actor.optimizer, "critic": model.critic.optimizer}
    if model.ent_coef_optimizer is not None:
        found["log_ent_coef"] = model.log_ent_coef.detach()
        optimizers["ent_coef"] = model.ent_coef_optimizer
    for owner, optimizer in optimizers.items():
        for place, values in optimizer.state_dict()["state"].items():
            found |= {f"{owner}/{place}/{name}": tensor for name, tensor in values.items()}
    return found


def train_both(models, updates, calls=1):
    for model in models:
        torch.manual_seed(1)
        np.random.seed(1)
        for _ in range(calls):
            model.train(updates, 32)


def assert_same(models, atol):
    theirs, ours = (numbers(model) for model in models)
    assert theirs.keys() == ours.keys()
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=1e-4, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


def with_ends():
    """Episodes of 15 steps that end for good, or are cut after 10."""

    class Ends(gym.Wrapper):
        count = 0

        def step(self, action):
            obs, reward, _, truncated, info = self.env.step(action)
            self.count += 1
            return obs, reward, self.count % 15 == 0, truncated, info

    return gym.wrappers.TimeLimit(Ends(gym.make("Pendulum-v1")), 10)


CASES = {
    "defaults": {},
    "targets every second update": {"target_update_interval": 2},
    "fixed temperature": {"ent_coef": 0.2},
    "first temperature": {"ent_coef": "auto_0.1", "target_entropy": -0.5},
    "tau and gamma": {"tau": 0.3, "gamma": 0.5},
    "terminal and cut episodes": {"env": with_ends},
    "tanh": {"policy_kwargs": {**NET, "activation_fn": torch.nn.Tanh}},
    "products by oneDNN": {"policy_kwargs": {"net_arch": [256, 256]}},
    "three layers, one layer": {"policy_kwargs": {"net_arch": {"pi": [16, 8, 8], "qf": [16]}}},
    "weight decay": {"policy_kwargs": {**NET, "optimizer_kwargs": {"weight_decay": 0.1, "eps": 1e-4}}},
    "two environments": {"env": lambda: DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2)},
    "learning rate that falls": {"learning_rate": lambda left: 1e-3 * left},
    "SB3's buffer": {"replay_buffer_class": ReplayBuffer},
    "three-step returns": {"replay_buffer_class": NStepReplayBuffer, "replay_buffer_kwargs": {"n_steps": 3}},
    "normalised": {"env": lambda: VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_update_and_fifty_equal_sb3s(case):
    models = pair(**case)
    assert covered_parts(models[1]) is not None
    train_both(models, 1)
    assert_same(models, atol=1e-6)
    train_both(models, 49)
    assert_same(models, atol=1e-4)
    assert models[1]._n_updates == models[0]._n_updates == 50


def test_a_whole_short_run_equals_sb3s():
    models = pair(steps=120, learning_starts=40)
    assert_same(models, atol=1e-4)
    np.testing.assert_allclose(models[1].replay_buffer.actions[:120], models[0].replay_buffer.actions[:120], atol=1e-4)
    assert set(models[1].logger.name_to_value) == set(models[0].logger.name_to_value)
    for name in ("actor_loss", "critic_loss", "ent_coef", "ent_coef_loss"):
        ours, theirs = (model.logger.name_to_value[f"train/{name}"] for model in reversed(models))
        assert ours == pytest.approx(theirs, rel=1e-3)


class OwnPolicy(SACPolicy):
    """A user's policy with layers that are not plain."""

    def make_actor(self, features_extractor=None):
        actor = super().make_actor(features_extractor)
        actor.latent_pi.append(torch.nn.LayerNorm(16))
        return actor.to(self.device)


NOT_COVERED = {
    "gSDE": {"use_sde": True},
    "one critic": {"policy_kwargs": {**NET, "n_critics": 1}},
    "three critics": {"policy_kwargs": {**NET, "n_critics": 3}},
    "another optimiser": {"policy_kwargs": {**NET, "optimizer_class": torch.optim.SGD}},
    "AMSGrad": {"policy_kwargs": {**NET, "optimizer_kwargs": {"amsgrad": True}}},
    "another activation": {"policy_kwargs": {**NET, "activation_fn": torch.nn.ELU}},
    "no hidden layer": {"policy_kwargs": {"net_arch": []}},
}


@pytest.mark.parametrize("case", NOT_COVERED.values(), ids=NOT_COVERED.keys())
def test_what_is_not_covered_is_sb3s_own_update_bit_for_bit(case):
    models = pair(**case)
    assert covered_parts(models[1]) is None
    train_both(models, 3)
    assert_same(models, atol=0)


def test_a_policy_of_the_users_own_is_not_covered():
    model = SAC(OwnPolicy, "Pendulum-v1", policy_kwargs=NET, learning_starts=20, batch_size=8, device="cpu").learn(25)
    assert covered_parts(model) is None
    assert model._n_updates == 5


@pytest.mark.parametrize("space", ["dict", "image"])
def test_dict_and_image_observations_are_left_to_sb3(space):
    image = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)

    class Env(gym.Env):
        observation_space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,))}) if space == "dict" else image
        action_space = gym.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    policy = "MultiInputPolicy" if space == "dict" else "CnnPolicy"
    model = SAC(policy, Env(), policy_kwargs=NET, learning_starts=4, batch_size=4, buffer_size=50, device="cpu").learn(
        6
    )
    assert covered_parts(model) is None
    assert isinstance(model.replay_buffer, TensorReplayBuffer) == (space == "image")
    assert model._n_updates == 2


def test_freezing_a_layer_or_replacing_the_optimiser_is_noticed():
    _, model = pair()
    model.train(1, 32)
    before = model.actor.latent_pi[0].weight.clone()
    model.actor.latent_pi[0].weight.requires_grad_(False)
    model.train(1, 32)
    torch.testing.assert_close(model.actor.latent_pi[0].weight, before, rtol=0, atol=0)
    model.actor.latent_pi[0].weight.requires_grad_(True)
    model.critic.optimizer = torch.optim.Adam(model.critic.parameters(), lr=0.1)
    model.train(1, 32)
    assert model.critic.optimizer.state, "the new optimiser is the one that steps"


def replaces_a_layer(model):
    model.actor.latent_pi[2] = torch.nn.Linear(16, 16)
    model.policy.actor.optimizer = model.actor.optimizer = torch.optim.Adam(model.actor.parameters(), lr=3e-4)


def forgets_a_layers_state(model):
    model.critic.optimizer.state[model.critic.qf1[0].weight] = {}


def replaces_a_critics_layer(model):
    model.critic.qf1[0] = torch.nn.Linear(4, 16)
    model.critic.optimizer = torch.optim.Adam(model.critic.parameters(), lr=3e-4)


def forgets_a_mean(model):
    state = model.critic.optimizer.state[model.critic.qf0[0].weight]
    state["exp_avg"] = torch.zeros_like(state["exp_avg"])


def clips_a_gradient(model):
    model.critic.qf0[0].weight.register_hook(lambda grad: grad.clamp(-0.01, 0.01))


def replaces_the_optimiser(model):
    model.critic.optimizer = torch.optim.SGD(model.critic.parameters(), lr=1e-3)


CHANGES = {
    "layer": replaces_a_layer,
    "layer of a critic": replaces_a_critics_layer,
    "layer without bias": lambda model: setattr(model.actor, "mu", torch.nn.Linear(16, 1, bias=False)),
    "activation": lambda model: model.actor.latent_pi.__setitem__(1, torch.nn.Tanh()),
    "memory of the weights": moves_weights,
    "frozen": lambda model: model.actor.latent_pi[0].requires_grad_(False),
    "state": lambda model: loads_state(model.critic.optimizer),
    "state of a layer": forgets_a_layers_state,
    "mean of a gradient": forgets_a_mean,
    "optimiser": replaces_the_optimiser,
    "setting": lambda model: model.critic.optimizer.param_groups[0].update(betas=(0.5, 0.9)),
    "sign": lambda model: model.critic.optimizer.param_groups[0].update(maximize=True),
    "gradients": lambda model: model.policy.zero_grad(set_to_none=True),
    "gradient of the temperature": lambda model: model.ent_coef_optimizer.zero_grad(set_to_none=True),
    "policy": lambda model: model.set_parameters(model.get_parameters()),
    "target entropy": lambda model: setattr(model, "target_entropy", -3.0),
    "hook of the actor": lambda model: model.actor.register_forward_hook(lambda m, given, action: action * 0.5),
    "hook of a layer": lambda model: model.actor.latent_pi[0].register_forward_hook(lambda m, given, out: out + 1),
    "hook of a gradient": clips_a_gradient,
    "prediction": lambda model: setattr(model, "predict", lambda obs, **named: (np.full((len(obs), 1), 0.5), None)),
    "nothing": lambda model: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize(
    ("moment", "train_freq"), [("_on_rollout_start", 1), ("_on_step", 8), ("_on_rollout_end", 1), ("train", 8)]
)
def test_what_is_changed_while_learning_is_noticed(change, moment, train_freq):
    models = pair(steps=20, learning_starts=40, train_freq=train_freq)
    learn_changed(models, change, moment, after=50, steps=70)
    theirs, ours = (model.replay_buffer.actions[:90] for model in models)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    weights = [model.policy.state_dict() for model in models]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-4, atol=1e-4)


ACTING = {
    "numpy": {},
    "torch": {
        "env": lambda: DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 3),
        "policy_kwargs": {"net_arch": [512] * 2},
    },
    "tanh": {"env": with_ends, "policy_kwargs": {**NET, "activation_fn": torch.nn.Tanh}},
    "normalised": {"env": lambda: VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))},
    "noise": {"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.3))},
}


@pytest.mark.parametrize("spread", [0.0, 30.0], ids=["", "clipped"])
@pytest.mark.parametrize("name", ACTING)
def test_acting_equals_sb3s(name, spread):
    models = pair(steps=4, **ACTING[name])
    for model in models:
        with torch.no_grad():
            model.actor.log_std.bias += spread
        torch.manual_seed(3)
        np.random.seed(3)
        model.learning_starts, model.gradient_steps = 0, 0
        model.learn(60, reset_num_timesteps=False)
    theirs, ours = (model.replay_buffer for model in models)
    assert len(np.unique(theirs.actions[: theirs.pos])) > (50 if spread == 0 else 20)
    for field in ("actions", "observations", "rewards"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), atol=1e-4)
    kernels = {"torch": torch_kernels, "noise": None}.get(name, numpy_kernels)
    assert (None if kernels is None else models[1]._acting.parts[-1]) is kernels


@pytest.mark.parametrize("owner", ["policy", "model"])
def test_a_way_to_act_of_the_users_own_is_kept(owner):
    class Still(SACPolicy if owner == "policy" else SAC):
        def predict(self, observation, *arguments, **named):
            return np.full((len(observation), 1), 0.5, np.float32), None

    policy, cls = (Still, SAC) if owner == "policy" else ("MlpPolicy", Still)
    model = cls(policy, "Pendulum-v1", policy_kwargs=NET, learning_starts=4, batch_size=8, device="cpu").learn(12)
    assert (model.replay_buffer.actions[5:12] == 0.25).all()
    assert covered_parts(model) is not None


def test_nan_is_refused_as_sb3_refuses_it():
    class Nan(gym.Wrapper):
        def step(self, action):
            obs, _, *rest = self.env.step(action)
            return obs, float("nan"), *rest

    for cls in (stable_baselines3.SAC, SAC):
        model = cls("MlpPolicy", Nan(gym.make("Pendulum-v1")), policy_kwargs=NET, learning_starts=4, device="cpu")
        with pytest.raises(ValueError, match="nan"):
            model.learn(20)


def test_a_copy_goes_on_by_itself_and_no_update_is_sb3s():
    model = pair()[1]
    model.train(1, 32)
    other = copy.deepcopy(model)
    train_both([model, other], 2)
    assert_same([model, other], atol=0)
    assert other._update.model is other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the mean of no losses
        model.train(0, 32)
    assert model._n_updates == 3


def test_a_saved_model_goes_on_as_one_that_was_not(tmp_path):
    _, model = pair()
    train_both([model], 3)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    for cls in (SAC, stable_baselines3.SAC):  # either reads what ours wrote
        loaded = cls.load(tmp_path / "model", env=model.get_env(), device="cpu")
        loaded.load_replay_buffer(tmp_path / "buffer")
        again = SAC.load(tmp_path / "model", env=model.get_env(), device="cpu")
        again.load_replay_buffer(tmp_path / "buffer")
        for each in (loaded, again):
            each.set_logger(model.logger)
        train_both([loaded, again], 5)
        assert_same([loaded, again], atol=1e-5)


@pytest.mark.parametrize("name", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_an_update_on_a_gpu_equals_the_cpus(name, request):
    models = [pair()[1], pair(device=request.getfixturevalue(name))[1]]
    models[1].policy.load_state_dict(models[0].policy.state_dict())
    models[1].cuda_graphs = False  # no recording can hold the CPU's numbers
    for name in FIELDS:
        models[1].replay_buffer.fields[name].copy_(models[0].replay_buffer.fields[name])
    noise = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # the devices' generators differ, so both get the CPU's numbers
        patch.setattr(torch.Tensor, "normal_", lambda x: x.copy_(torch.randn(x.shape, generator=noise)))
        for model in models:
            noise.manual_seed(0)
            train_both([model], 5)
    theirs, ours = (numbers(model) for model in models)
    for name in theirs:
        torch.testing.assert_close(ours[name].cpu(), theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_replayed_updates_on_a_gpu_equal_launched_ones(case, cuda):
    models = [pair(**{**case, "device": cuda})[1] for _ in range(2)]
    models[0].cuda_graphs = False
    for model in models:
        for updates in (1, 6, 3):
            train_both([model], updates)
            model._current_progress_remaining -= 0.2  # another learning rate, for the recording in use
        model.tau = 0.5  # another recording
        train_both([model], 6)
    assert_same(models, atol=1e-5)
    recorded = [model.logger.name_to_value.get("train/graph_seconds", 0.0) for model in models]
    assert recorded[0] == 0.0 < recorded[1]


@pytest.mark.gpu
def test_a_replayed_run_on_a_gpu_equals_a_launched_one(cuda):
    models = [pair(learning_starts=20, device=cuda, steps=21)[1] for _ in range(2)]
    models[0].cuda_graphs = False
    for model in models:
        model.set_random_seed(3)
        model.learn(60, reset_num_timesteps=False)
        model.actor.load_state_dict({name: tensor / 2 for name, tensor in model.actor.state_dict().items()})
        model.learn(20, reset_num_timesteps=False)
    assert models[1]._acting._captured.seconds > 0
    assert_same(models, atol=1e-4)
