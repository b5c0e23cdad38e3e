import gymnasium as gym
import numpy as np
import pytest
import torch

from prefenvs.agents.reward_models import PreferenceData, RewardEnsemble, bradley_terry_loss, fit
from prefenvs.segments import Label, Query, Segments, one_hot

BOX, ACT = gym.spaces.Box(-np.inf, np.inf, (3,)), gym.spaces.Box(-1, 1, (2,))


def ensemble(members=3, seed=0, observations=BOX, actions=ACT):
    return RewardEnsemble(observations, actions, members=members, hidden=(16,), rng=torch.Generator().manual_seed(seed))


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


def test_padding_never_counts():
    model, lengths = ensemble(), np.array([3, 6])
    short = segments(2, lengths=lengths)
    sums = model.segment(short.torch())
    short.observations[0, 4:], short.actions[0, 3:] = 100.0, 1.0
    torch.testing.assert_close(model.segment(short.torch()), sums)


def test_preferences_are_antisymmetric_and_the_loss_is_the_mean_over_members():
    model, query = ensemble(), Query(segments(8))
    logits = model.prefer(query)
    torch.testing.assert_close(logits, -logits.transpose(1, 2))
    label = Label(one_hot(np.array([0, 1, 1, -1])))
    sums = model.segment_members(query.segments.torch()).reshape(3, 4, 2)
    target = torch.tensor(label.choice, dtype=torch.float32)
    by_hand = torch.stack([bradley_terry_loss(sums[m], target) for m in range(3)]).mean(0)
    torch.testing.assert_close(model.loss(query, label), by_hand)


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
    assert report.held_out_accuracy > 0.9
    train, held = data.split()
    assert len(held) == 29
    assert set(train.tolist()).isdisjoint(held.tolist())
    rewards = model.forward(data.inputs.reshape(-1, 5)).mean(0)
    torch.testing.assert_close(model.scale, rewards.square().mean().sqrt())
    again, _, second = fitted()
    assert report == second
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_fitting_without_answers_says_so():
    model = ensemble()
    with pytest.raises(ValueError, match="all were skipped"):
        fit(model, torch.optim.Adam(model.parameters()), PreferenceData(), rng=torch.Generator())
