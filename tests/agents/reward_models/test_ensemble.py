import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prefenvs.agents.reward_models import PreferenceData, RewardEnsemble, bradley_terry_loss, fit
from prefenvs.agents.reward_models.training import accuracy
from prefenvs.segments import Label, Query, Segments, one_hot
from prefenvs.tasks import product

BOX, ACT = gym.spaces.Box(-np.inf, np.inf, (3,)), gym.spaces.Box(-1, 1, (2,))


def ensemble(members=3, seed=0, observations=BOX, actions=ACT, standardize=True):
    rng = torch.Generator().manual_seed(seed)
    return RewardEnsemble(observations, actions, members=members, hidden=(16,), standardize=standardize, rng=rng)


def segments(n, steps=6, seed=0, lengths=None):
    rng = np.random.default_rng(seed)
    mask = np.arange(steps) < (np.full(n, steps) if lengths is None else lengths)[:, None]
    return Segments(
        rng.normal(size=(n, steps + 1, 3)).astype(np.float32), rng.uniform(-1, 1, (n, steps, 2)).astype(np.float32),
        mask, np.zeros(n, bool), np.zeros(n, bool), np.zeros((n, 3), np.int64),
    )  # fmt: skip


def test_the_loss_of_one_query_by_hand():
    loss = bradley_terry_loss(torch.tensor([[2.0, 1.0], [5.0, 4.0]]), torch.tensor([[1.0, 0.0], [np.nan, np.nan]]))
    torch.testing.assert_close(loss, torch.tensor([0.31326169, 0.0]))  # log(1 + exp(-1)); a skip weighs nothing


def test_the_loss_ignores_what_both_segments_share_and_has_the_right_gradient():
    returns = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.softmax(returns.detach().flip(0), -1)
    torch.testing.assert_close(bradley_terry_loss(returns + 9, label), bradley_terry_loss(returns, label))
    assert torch.autograd.gradcheck(lambda x: bradley_terry_loss(x, label), (returns,))


@given(arrays(np.float64, (4, 3), elements=st.floats(-50, 50)), st.floats(-50, 50), st.permutations(range(4)))
def test_the_loss_does_not_depend_on_the_level_or_the_order(returns, shift, order):
    x, label = torch.tensor(returns), torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    loss = bradley_terry_loss(x, label)
    torch.testing.assert_close(bradley_terry_loss(x + shift, label), loss)
    torch.testing.assert_close(bradley_terry_loss(x[order], label[order]), loss[order])
    torch.testing.assert_close(bradley_terry_loss(x.flip(-1), label.flip(-1)), loss)
    assert (loss >= 0).all()


def test_a_tie_costs_log_2_at_least():
    # Equal returns and label (1/2, 1/2): -2 * 1/2 * log(1/2).
    tie = torch.tensor([[0.5, 0.5]])
    torch.testing.assert_close(bradley_terry_loss(torch.zeros(1, 2), tie), torch.tensor([math.log(2.0)]))
    assert bradley_terry_loss(torch.tensor([[1.0, 0.0]]), tie).item() > math.log(2.0)


def test_a_skipped_query_has_no_gradient():
    returns = torch.tensor([[2.0, 1.0]], requires_grad=True)
    bradley_terry_loss(returns, torch.full((1, 2), torch.nan)).sum().backward()
    assert not returns.grad.any()


def test_an_ensemble_equals_its_members_one_by_one():
    model = ensemble()
    obs, act = torch.randn(7, 3), torch.rand(7, 2)
    together = model.members(obs, act)
    for m in range(3):
        single = ensemble(members=1)
        with torch.no_grad():
            for ours, theirs in zip(single.parameters(), model.parameters(), strict=True):
                ours.copy_(theirs[m : m + 1])
        torch.testing.assert_close(single.reward(obs, act), together[m])
    torch.testing.assert_close(model.reward(obs, act), together.mean(0))


@pytest.mark.parametrize("shared", [True, False], ids=["one batch for all", "a batch a member"])
def test_members_one_by_one_equal_members_together(shared, monkeypatch):
    """Large batches on the CPU go through one network after the other."""
    model = RewardEnsemble(BOX, ACT, members=3, hidden=(64, 64), rng=torch.Generator().manual_seed(0))
    inputs = torch.randn(*(() if shared else (3,)), 300, 5, generator=torch.Generator().manual_seed(1))
    model.observe(inputs.reshape(-1, 5))
    found = []
    for onednn in (product._ONEDNN, None):
        monkeypatch.setattr(product, "_ONEDNN", onednn)
        rewards = model(inputs)
        found.append([rewards, *torch.autograd.grad(rewards.square().sum(), list(model.parameters()))])
    for one, together in zip(*found, strict=True):
        torch.testing.assert_close(one, together, rtol=1e-4, atol=1e-4)


def test_the_scale_divides_rewards_but_not_the_sums_that_are_compared():
    model, shown = ensemble(), segments(8).torch()
    obs, act, sums = torch.randn(7, 3), torch.rand(7, 2), model.segment_members(shown)
    rewards = model.reward(obs, act)
    model.scale.fill_(0.25)
    torch.testing.assert_close(model.reward(obs, act), 4.0 * rewards)
    torch.testing.assert_close(model.segment_members(shown), sums)


def test_padding_never_counts():
    model, lengths = ensemble(), np.array([3, 6])
    short = segments(2, lengths=lengths)
    sums = model.segment_members(short.torch())
    short.observations[0, 4:], short.actions[0, 3:] = 100.0, 1.0
    torch.testing.assert_close(model.segment_members(short.torch()), sums)
    by_hand = sum(model.reward(short.torch().observations[:1, t], short.torch().actions[:1, t]) for t in range(3))
    torch.testing.assert_close(sums.mean(0)[:1], by_hand)


def test_discrete_spaces_are_one_hot_and_images_are_scaled():
    model = ensemble(observations=gym.spaces.Discrete(5, start=2), actions=gym.spaces.Discrete(3))
    encoded = model.encode(torch.tensor([2, 6]), torch.tensor([0, 2]))
    assert encoded.tolist() == [[1, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0, 1]]
    pixels = ensemble(observations=gym.spaces.Box(0, 255, (2, 2, 1), np.uint8))
    image = torch.full((1, 2, 2, 1), 255, dtype=torch.uint8)
    assert pixels.encode(image, torch.zeros(1, 2)).tolist() == [[1, 1, 1, 1, 0, 0]]
    with pytest.raises(TypeError, match="Box and Discrete"):
        ensemble(observations=gym.spaces.MultiBinary(3))


def fitted(seed=0):
    model, data = ensemble(seed=seed), PreferenceData()
    query = Query(segments(600, seed=1))
    truth = (query.segments.observations[:, :-1, 0] + query.segments.actions[..., 1]).sum(1).reshape(-1, 2)
    winners = truth.argmax(1)
    winners[::50] = -1
    data.add(model, query, Label(one_hot(winners)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return model, data, fit(model, optimizer, data, rng=torch.Generator().manual_seed(seed), epochs=40)


def test_fitting_recovers_a_linear_reward_and_is_repeatable():
    model, data, report = fitted()
    assert len(data) == 294, "skipped queries are left out"
    assert report.held_out_accuracy > 0.8
    fresh = segments(100, seed=2)
    truth = fresh.observations[:, :-1, 0] + fresh.actions[..., 1]
    inputs = model.encode(torch.as_tensor(fresh.observations[:, :-1]), torch.as_tensor(fresh.actions))
    learned = model.forward(inputs.reshape(-1, 5)).detach().mean(0)
    assert np.corrcoef(learned, truth.ravel())[0, 1] > 0.9
    train, held = data.split()
    assert len(held) == 29
    assert set(train.tolist()).isdisjoint(held.tolist())
    rewards = model.forward(data.inputs.reshape(-1, 5)).mean(0)
    torch.testing.assert_close(model.scale, rewards.square().mean().sqrt())
    again, _, second = fitted()
    assert report == second
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_units_of_observations_do_not_matter_where_inputs_are_standardized():
    rewards = []
    for units, standardize in ((1.0, True), (1000.0, True), (1000.0, False)):
        model, data = ensemble(standardize=standardize), PreferenceData()
        query = Query(segments(40, seed=1))
        query.segments.observations[..., 1] = units * query.segments.observations[..., 1] + units
        data.add(model, query, Label(one_hot(np.arange(20) % 2)))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        fit(model, optimizer, data, rng=torch.Generator().manual_seed(0), epochs=3, stop_accuracy=2.0)
        rewards.append(model.segment_members(query.segments.torch()).mean(0).detach())
    torch.testing.assert_close(rewards[0], rewards[1], rtol=1e-3, atol=1e-3)
    assert (rewards[0] - rewards[2]).abs().max() > 0.1


def test_only_what_moves_is_standardized_and_neither_pixels_nor_discrete_values_are():
    model = ensemble()
    model.observe(torch.tensor([[1.0, 0, 5, 0, 0], [3.0, 0, 5, 0, 0]]))
    assert model.mean.tolist() == [2, 0, 5, 0, 0]
    torch.testing.assert_close(model.sd, torch.tensor([2**0.5, 1, 1, 1, 1]))
    for observations in (gym.spaces.Discrete(3), gym.spaces.Box(0, 255, (3,), np.uint8)):
        model = ensemble(observations=observations, actions=gym.spaces.Discrete(2))
        model.observe(torch.rand(9, 5))
        assert not model.mean.any()
        assert (model.sd == 1).all()


def test_data_keep_answers_in_order_and_hold_out_every_tenth():
    model, data = ensemble(), PreferenceData()
    first, second = np.array([0, -1, 1, 1]), np.full(20, 0)
    for seed, winners in enumerate((first, second)):
        data.add(model, Query(segments(2 * len(winners), seed=seed)), Label(one_hot(winners)))
    assert data.choice.tolist() == [[1, 0], [0, 1], [0, 1], *[[1, 0]] * 20]
    train, held = data.split()
    assert held.tolist() == [9, 19]
    assert sorted(train.tolist() + held.tolist()) == list(range(23))
    sums = model.segment_members(segments(8, seed=0).torch()).reshape(3, 4, 2)[:, [0, 2, 3]]
    torch.testing.assert_close(data.sums(model, torch.arange(3)), sums)
    orders = torch.tensor([[0, 1], [2, 0], [1, 1]])  # a row a member
    torch.testing.assert_close(data.sums(model, orders), sums[torch.arange(3)[:, None], orders])


def test_data_and_model_survive_a_round_trip():
    model, data, _ = fitted()
    copy = PreferenceData()
    copy.load_state(data.state(), torch.device("cpu"))
    for name in ("inputs", "mask", "choice"):
        assert torch.equal(getattr(copy, name), getattr(data, name))
    other = ensemble(seed=9)
    other.load_state_dict(model.state_dict())
    obs, act = torch.randn(7, 3), torch.rand(7, 2)
    assert torch.equal(other.reward(obs, act), model.reward(obs, act))
    assert other.trained


def test_accuracy_leaves_ties_out():
    sums = torch.tensor([[[2.0, 1.0], [2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]])
    choice = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    assert accuracy(sums, choice) == pytest.approx(2 / 3)
    assert np.isnan(accuracy(sums[:, 3:], choice[3:]))


def test_fitting_stops_once_the_answers_are_learned():
    model, data = ensemble(), PreferenceData()
    query = Query(segments(40))
    winners = model.segment_members(query.segments.torch()).mean(0).reshape(-1, 2).argmax(1).numpy()  # its own mind
    data.add(model, query, Label(one_hot(winners)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    assert fit(model, optimizer, data, rng=rng, epochs=50, stop_accuracy=0.6).epochs == 1
    assert fit(model, optimizer, data, rng=rng, epochs=5, stop_accuracy=1.1).epochs == 5


def test_fitting_without_answers_says_so():
    model = ensemble()
    with pytest.raises(ValueError, match="all were skipped"):
        fit(model, torch.optim.Adam(model.parameters()), PreferenceData(), rng=torch.Generator())


def test_a_fit_on_any_device_equals_the_cpus(device):
    rng = np.random.default_rng(0)
    query = Query(segments(40))
    label = Label(one_hot(rng.integers(2, size=20), 2))
    fits = []
    for place in ("cpu", device):
        model, data = ensemble().to(place), PreferenceData()
        data.add(model, query, label)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        fits.append((fit(model, optimizer, data, rng=torch.Generator().manual_seed(0), epochs=20, batch=8), model))
    (ours, mine), (theirs, other) = fits
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
    for name, tensor in mine.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name].cpu(), tensor, rtol=1e-3, atol=1e-4)
