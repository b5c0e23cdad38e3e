import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env

from prefenvs.agents import PEBBLE, QuantileDQN, StockWrapper
from prefenvs.agents.distributional import CVaR, ExpectedUtility, Shortfall, Target
from prefenvs.agents.distributional.quantile_dqn import StockExtractor, quantile_loss
from prefenvs.error import DamagedFile, RunMismatch
from prefenvs.tasks.grid.ledge import ledge_world

FAST = {
    "learning_rate": 2e-3,
    "learning_starts": 100,
    "train_freq": 2,
    "target_update_interval": 100,
    "exploration_fraction": 0.5,
    "exploration_final_eps": 0.3,
    "buffer_size": 10_000,
    "policy_kwargs": {"net_arch": [32]},
    "device": "cpu",
}


class Lottery(gym.Env):
    """Reward 0 or 2 with probability 1/2, then safe (0) or gamble (+2 or -1). The observation forgets the first."""

    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return 0, {}

    def step(self, action):
        self.step_number += 1
        won = self.np_random.random() < 0.5
        if self.step_number == 1:
            return 1, 2.0 * won, False, False, {}
        return 1, float(action * (2.0 if won else -1.0)), True, False, {}


def choice(model, stock):
    observation = {"observation": np.array(1), "stock": np.array([stock], np.float32)}
    return int(model.predict(observation, deterministic=True)[0])


@pytest.mark.slow
def test_it_learns_to_gamble_only_after_bad_luck_and_which_threshold_is_best():
    stocks = (-4.0, -3.0, -2.0, -1.0, 0.0)
    model = QuantileDQN("MlpPolicy", Lottery(), functional=CVaR(0.75), stocks=stocks, quantiles=16, seed=0, **FAST)
    model.learn(6000)
    assert model.initial_stock(np.int64(0)) == -2.0
    assert choice(model, -2.0) == 1  # after 0
    assert choice(model, 0.0) == 0  # after 2
    batch = {"observation": torch.zeros(5, dtype=torch.long), "stock": torch.tensor(stocks)[:, None]}
    with torch.no_grad():
        objective = CVaR(0.75).by_b(-np.array(stocks), model.q_net.worth(batch).amax(1).numpy())
    # Exact ones, see card 23. One quantile of 16 anywhere between the outcomes -1 and 2 shifts them by 3 / 16 / 0.75.
    np.testing.assert_allclose(objective, [2 / 3, 2 / 3, 1.0, 1 / 3, 0.0], rtol=0, atol=0.25)
    quantiles = model.q_net({"observation": torch.tensor([1]), "stock": torch.tensor([[-2.0]])})
    assert quantiles.shape == (1, 2, 16)
    outcomes = quantiles[0, 1].sort().values.detach()
    assert outcomes[:4].mean() == pytest.approx(-1.0, abs=0.1)
    assert outcomes[-4:].mean() == pytest.approx(2.0, abs=0.1)


def test_the_mean_gambles_whatever_the_stock():
    model = QuantileDQN("MlpPolicy", Lottery(), stocks=(-2.0, 0.0), quantiles=16, seed=0, **FAST).learn(1500)
    assert [choice(model, stock) for stock in (-2.0, 0.0)] == [1, 1]


def test_the_loss_is_the_hand_computed_one():
    # Levels 1/4 and 3/4. Gaps of target 1 are 1 and -2, times 1/4 and |3/4 - 1|; either weight is 4 / 3.
    loss = quantile_loss(torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0]]))
    torch.testing.assert_close(loss, torch.tensor([(0.25 * 1.0 + 0.25 * 2.0) * 4 / 3]))
    torch.testing.assert_close(quantile_loss(torch.ones(2, 3), torch.ones(2, 5)), torch.zeros(2))


def test_the_loss_by_sorting_is_that_of_all_pairs_with_its_gradient():
    rng = torch.Generator().manual_seed(0)
    predicted = torch.randn(5, 7, generator=rng, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 9, generator=rng, dtype=torch.float64)
    gaps = target[:, None, :] - predicted[:, :, None]  # (5, 7, 9)
    levels = (torch.arange(7)[:, None] + 0.5) / 7
    weights = 1 / (4 * levels * (1 - levels))
    pairs = (weights * (levels - (gaps < 0).double()) * gaps).mean(2).sum(1)
    loss = quantile_loss(predicted, target)
    torch.testing.assert_close(loss, pairs, rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(value.sum(), predicted)[0] for value in (loss, pairs))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_loss_is_least_at_the_quantiles():
    target = torch.tensor([[0.0, 1.0, 2.0, 10.0]])
    predicted = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([predicted], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        quantile_loss(predicted, target).sum().backward()
        optimizer.step()
    torch.testing.assert_close(predicted.detach(), target, atol=0.1, rtol=0)


def test_no_quantile_is_slow_to_leave_where_no_target_is():
    for place, side in ((-1.0, -1), (1.0, 1)):
        predicted = torch.full((1, 16), place, requires_grad=True)
        quantile_loss(predicted, torch.zeros(1, 5)).sum().backward()
        assert (side * predicted.grad >= 0.25).all()


def test_features_tell_neighbouring_stocks_apart_and_each_state_has_its_own():
    space = gym.spaces.Dict({"observation": gym.spaces.Discrete(2), "stock": gym.spaces.Box(-np.inf, np.inf, (1,))})
    stocks, state = torch.arange(-16.0, 17.0)[:, None], torch.eye(2)[1].expand(33, 2)
    features = StockExtractor(space, stock_scale=16.0)({"observation": state, "stock": stocks}).unflatten(1, (3, -1))
    assert features.shape == (33, 3, 2 + 2 * 6)  # 1 and the states, times 1, c / scale and the sines
    torch.testing.assert_close(features[0, :, 0], torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(features[:, 2, 1], stocks[:, 0] / 16)
    torch.testing.assert_close(features, features[:, :1] * torch.tensor([1.0, 0.0, 1.0])[:, None])
    distances = torch.cdist(features[:, 2], features[:, 2]) + 9 * torch.eye(33)
    assert distances.min() > 0.5


def test_features_of_images_are_those_of_sb3_times_those_of_the_stock():
    space = {"observation": gym.spaces.Box(0, 255, (3, 36, 36), np.uint8), "stock": gym.spaces.Box(-9, 9, (1,))}
    extractor = StockExtractor(gym.spaces.Dict(space), stock_scale=1.0)
    features = extractor({"observation": torch.rand(2, 3, 36, 36), "stock": torch.tensor([[1.0], [2.0]])})
    assert features.shape == (2, extractor.features_dim) == (2, (1 + 256) * (2 + 2 * 6))


@pytest.mark.parametrize("relabel", [(), (5.0, 6.0, 7.0)])
def test_targets_use_the_stock_after_the_reward_divided_by_gamma(relabel):
    model = QuantileDQN(
        "MlpPolicy",
        Lottery(),
        functional="target",
        stocks=(1.0, -3.0),
        gamma=0.5,
        relabel_stocks=relabel,
        seed=0,
        **FAST,
    )
    model.learn(60)
    data = model.replay_buffer.sample(32)
    kept = data.dones[:, 0] == 0
    stocks, after = data.observations["stock"], data.next_observations["stock"]
    torch.testing.assert_close(after[kept], ((stocks + data.rewards) / 0.5)[kept])
    seen = []
    for network in (model.q_net_target, model.q_net):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["stock"]))
    _, target = model._prediction_and_target(data)
    then, given = seen
    torch.testing.assert_close(then[kept], ((given + data.rewards) / 0.5)[kept])
    assert set(given.flatten().tolist()) == set(relabel or stocks.flatten().tolist())
    assert relabel or torch.equal(given, stocks)
    torch.testing.assert_close(target[~kept], data.rewards[~kept].expand(-1, 64))


def test_it_is_the_same_after_saving_and_loading(tmp_path):
    env = gym.make("prefenvs/GridLedge-v0", evaluation=True)
    made = {"functional": {"name": "cvar", "tau": 0.25}, "stocks": range(-3, 4), "quantiles": 8, "seed": 0}
    model = QuantileDQN("MlpPolicy", env, **made, **FAST).learn(300)
    model.save(tmp_path / "agent")
    loaded = QuantileDQN.load(tmp_path / "agent", env, device="cpu")
    batch = {"observation": np.arange(49), "stock": np.linspace(-9, 9, 49, dtype=np.float32)[:, None]}
    ours, theirs = (m.predict(batch, deterministic=True)[0] for m in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)
    assert loaded.functional == CVaR(0.25)
    assert loaded.stocks == model.stocks
    assert loaded.exploration_final_eps == 0.3
    assert loaded.initial_stock(np.int64(35)) == model.initial_stock(np.int64(35))
    loaded.learn(120)
    with pytest.raises(RunMismatch, match=r"this environment has others"):
        QuantileDQN.load(tmp_path / "agent", Lottery())
    with pytest.raises(RunMismatch, match=r"load it with QuantileDQN.load"):
        PEBBLE.load(tmp_path / "agent", env)
    with pytest.raises(ValueError, match="needs env="):
        QuantileDQN.load(tmp_path / "agent")
    (tmp_path / "agent.zip").write_bytes(b"no zip")
    with pytest.raises(DamagedFile):
        QuantileDQN.load(tmp_path / "agent", env)


def test_the_seed_decides_what_is_learned():
    def weights(seed):
        model = QuantileDQN("MlpPolicy", Lottery(), functional="target", stocks=(-1.0, 0.0, 1.0), seed=seed, **FAST)
        return torch.cat([p.flatten() for p in model.learn(300).policy.parameters()])

    torch.testing.assert_close(weights(1), weights(1), rtol=0, atol=0)
    assert not torch.equal(weights(1), weights(2))


def test_it_runs_on_cartpole_with_several_environments_and_is_played_with_the_wrapper(tmp_path):
    venv = make_vec_env("CartPole-v1", 2, seed=0)
    model = QuantileDQN(
        "MlpPolicy", venv, functional=Shortfall(), stocks=(-100.0,), seed=0, tensorboard_log=str(tmp_path), **FAST
    )
    model.learn(400)
    assert list(tmp_path.rglob("events*"))
    env = StockWrapper(gym.make("CartPole-v1"), model.gamma, initial_stock=model.initial_stock)
    observation, _ = env.reset(seed=0)
    assert observation["stock"] == [-100.0]
    action, _ = model.predict(observation, deterministic=True)
    assert env.action_space.contains(action.item())


def test_what_it_cannot_learn_is_refused():
    with pytest.raises(ValueError, match=r"not indifferent to mixtures.*expected utility"):
        QuantileDQN("MlpPolicy", Lottery(), functional="mean_variance")
    with pytest.raises(ValueError, match=r"not indifferent to gamma"):
        QuantileDQN("MlpPolicy", Lottery(), functional=ExpectedUtility(torch.tanh), gamma=0.9)
    with pytest.raises(ValueError, match=r"stock can be made of it"):
        QuantileDQN("MlpPolicy", gym.make("prefenvs/CartPole-v0", budget=1))
    with pytest.raises(ValueError, match=r"Homeostasis.*vector"):
        QuantileDQN("MlpPolicy", Lottery(), functional="homeostasis")
    with pytest.raises(ValueError, match="stocks is empty"):
        QuantileDQN("MlpPolicy", Lottery(), stocks=())
    model = QuantileDQN("MlpPolicy", Lottery(), functional=Target(), stocks=(0.0, 1.0), device="cpu")
    with pytest.raises(ValueError, match="leaves the initial stock to you"):
        model.initial_stock(0)


def test_a_function_of_ones_own_is_learned_for_but_not_saved(tmp_path):
    model = QuantileDQN("MlpPolicy", Lottery(), functional=ExpectedUtility(lambda x: -(x**2)), **FAST).learn(150)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        model.save(tmp_path / "agent")
    assert not list(tmp_path.iterdir())


def test_its_exact_laws_are_of_its_greedy_policy_from_the_stock_that_it_chooses():
    env, mdp = gym.make("prefenvs/GridLedge-v0", evaluation=True), ledge_world().mdp
    model = QuantileDQN("MlpPolicy", env, functional=CVaR(0.25), stocks=(-1.0, 0.0, 1.0), quantiles=4, seed=0, **FAST)
    solution = model.solution(mdp, 5)
    start = int(mdp.start.argmax())
    stock = model.initial_stock(start)
    assert solution.graph.initial.tolist() == [stock]
    observation = {"observation": np.array(start), "stock": np.array([stock], np.float32)}
    assert solution.action(0, start, stock) == int(model.predict(observation, deterministic=True)[0])
    values, probabilities = solution.return_law()
    assert probabilities.sum() == pytest.approx(1.0)
    assert values.min() >= -5 * 6


def test_it_learns_on_any_device(device):
    model = QuantileDQN(
        "MlpPolicy", Lottery(), functional=CVaR(0.75), quantiles=8, seed=0, **{**FAST, "device": device}
    )
    before = [parameter.clone() for parameter in model.q_net.parameters()]
    model.learn(400)
    for now, then in zip(model.q_net.parameters(), before, strict=True):
        assert now.device.type == device
        assert now.isfinite().all()
        assert not torch.equal(now, then)
