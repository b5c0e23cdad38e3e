import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from prefenvs.agents.text import advantages
from prefenvs.agents.text.advantages import GROUP_ADVANTAGES

GROUP = torch.tensor([1.0, 0.0, 0.5, 0.0], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("grpo", {"eps": 1e-4}, (1.305310, -0.783186, 0.261062, -0.783186)),
        ("grpo", {"eps": 1e-6}, (1.305580, -0.783348, 0.261116, -0.783348)),
        ("grpo_population", {"eps": 0.0}, (1.507557, -0.904534, 0.301511, -0.904534)),
        ("dr_grpo", {}, (0.625, -0.375, 0.125, -0.375)),
        ("rloo", {}, (0.833333, -0.5, 0.166667, -0.5)),
    ],
)
def test_a_group_of_four_has_the_advantages_worked_out_by_hand(name, options, expected):
    assert_allclose(GROUP_ADVANTAGES[name](GROUP, **options), expected, atol=6e-7)


@pytest.mark.parametrize("name", GROUP_ADVANTAGES)
def test_equal_rewards_have_no_advantage(name):
    assert_allclose(GROUP_ADVANTAGES[name](torch.full((3, 5), 0.7)), torch.zeros(3, 5), atol=1e-6)


@pytest.mark.parametrize("name", GROUP_ADVANTAGES)
def test_one_completion_is_no_group(name):
    with pytest.raises(ValueError, match="G >= 2"):
        GROUP_ADVANTAGES[name](torch.zeros(3, 1))


@pytest.mark.parametrize("name", GROUP_ADVANTAGES)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_advantages_sum_to_zero_and_do_not_see_an_offset_of_the_prompt(name, rewards, offset):
    group = torch.tensor([rewards], dtype=torch.float64)
    found = GROUP_ADVANTAGES[name](group)
    assert_allclose(found.sum(-1), [0.0], atol=1e-6)
    assert_allclose(GROUP_ADVANTAGES[name](group + offset), found, atol=1e-6)


def test_rloo_is_the_reward_less_the_mean_of_the_others():
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = torch.stack([rewards[:, [j for j in range(5) if j != i]].mean(-1) for i in range(5)], dim=-1)
    assert_allclose(advantages.rloo(rewards), rewards - others)


def test_token_rewards_are_the_penalty_and_the_score_at_the_last_token():
    logps = torch.tensor([[-1.0, -2.0, -3.0, float("-inf")], [-1.0, -1.0, 0.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[-1.5, -2.0, -2.0, float("-inf")], [-2.0, -1.0, 9.0, 9.0]])
    found = advantages.penalised_token_rewards(torch.tensor([10.0, 20.0]), logps, reference, MASK, beta=0.1)
    assert_allclose(found, [[-0.05, 0.0, 10.1, 0.0], [-0.1, 20.0, 0.0, 0.0]], rtol=1e-6)
    assert not found.requires_grad


def test_token_and_response_penalties_agree():
    rng = torch.Generator().manual_seed(0)
    logps, reference = (torch.randn(2, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    scores = torch.tensor([1.0, -1.0], dtype=torch.float64)
    tokens = advantages.penalised_token_rewards(scores, logps, reference, MASK, beta=0.3)
    whole = advantages.penalised_rewards(scores, (logps * MASK).sum(-1), (reference * MASK).sum(-1), beta=0.3)
    assert_allclose(tokens.sum(-1), whole)


def test_generalised_advantages_are_the_double_sum():
    rng = torch.Generator().manual_seed(1)
    rewards, values = (torch.randn(2, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    found, returns = advantages.token_gae(rewards, values, MASK, gamma=0.9, trace=0.8)
    for row, length in enumerate((3, 2)):
        for t in range(length):
            deltas = [
                rewards[row, k] + (0.9 * values[row, k + 1] if k + 1 < length else 0.0) - values[row, k]
                for k in range(t, length)
            ]
            assert_allclose(found[row, t], sum((0.9 * 0.8) ** i * delta for i, delta in enumerate(deltas)))
    assert_allclose(found[MASK == 0], 0.0)
    assert_allclose(returns, torch.where(MASK.bool(), found + values, 0.0))


def test_a_trace_of_one_gives_rewards_to_go_and_of_zero_one_step():
    rewards, values = torch.arange(8.0).reshape(2, 4), torch.ones(2, 4)
    full = torch.ones(2, 4)
    to_go = rewards.flip(-1).cumsum(-1).flip(-1)
    assert_allclose(advantages.token_gae(rewards, values, full, trace=1.0)[1], to_go)
    one_step = rewards + torch.tensor([1.0, 1, 1, 0]) - 1
    assert_allclose(advantages.token_gae(rewards, values, full, trace=0.0)[0], one_step)


def test_what_stands_at_padding_does_not_matter():
    rewards, values = torch.arange(8.0).reshape(2, 4), torch.ones(2, 4)
    spoilt = torch.where(MASK.bool(), rewards, float("nan")), torch.where(MASK.bool(), values, float("nan"))
    for clean, other in zip(
        advantages.token_gae(rewards, values, MASK), advantages.token_gae(*spoilt, MASK), strict=True
    ):
        assert_allclose(other, clean)


def test_reinforce_plus_plus_standardises_rewards_to_go_over_the_batch():
    rewards = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    found = advantages.reinforce_plus_plus(rewards, MASK)
    taken = found[MASK.bool()]  # rewards to go 1 1 1 3 3: mean 1.8, variance .96
    assert_allclose(taken, (torch.tensor([1.0, 1, 1, 3, 3]) - 1.8) / 0.96**0.5, rtol=1e-6)
    assert_allclose(found[~MASK.bool()], 0.0)


def test_advantages_stay_on_their_device_and_read_no_value():
    on_meta = torch.zeros(2, 4, device="meta")
    found = [advantage(on_meta) for advantage in GROUP_ADVANTAGES.values()]
    found += [advantages.reinforce_plus_plus(on_meta, on_meta), *advantages.token_gae(on_meta, on_meta, on_meta)]
    found += [advantages.penalised_token_rewards(on_meta[:, 0], on_meta, on_meta, on_meta, beta=0.1)]
    assert all(each.device.type == "meta" and each.shape == (2, 4) for each in found)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float64])
def test_masks_may_be_of_any_type(dtype):
    rng = torch.Generator().manual_seed(0)
    logps, reference = (torch.randn(2, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    mask = MASK.to(dtype)
    rewards = advantages.penalised_token_rewards(logps[:, 0], logps, reference, mask, beta=0.3)
    assert_allclose(rewards, advantages.penalised_token_rewards(logps[:, 0], logps, reference, MASK, beta=0.3))
    assert_allclose(advantages.token_gae(rewards, logps, mask)[0], advantages.token_gae(rewards, logps, MASK)[0])
    assert_allclose(advantages.reinforce_plus_plus(rewards, mask), advantages.reinforce_plus_plus(rewards, MASK))


def test_rewards_of_tokens_are_paid_where_they_are_earned_and_not_on_padding():
    logps = torch.zeros(2, MASK.shape[1])
    at_tokens = torch.arange(1.0, 1 + logps.numel()).view_as(logps)
    found = advantages.penalised_token_rewards(at_tokens, logps, logps, MASK, beta=0.1)
    assert_allclose(found, at_tokens * MASK)
