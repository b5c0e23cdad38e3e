import torch
from numpy.testing import assert_allclose

from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext, RunningRewards

CENTRED = ("centre", "par", "slow_then_fast", "centred_tanh", "centred_polynomial", "lsc")
UNCENTRED = ("identity", "sigmoid", "tanh", "polynomial")


def against(*references):
    return RewardContext(references=torch.tensor([references], dtype=torch.float64))


def par(reward, *references, slope=1.0):
    return REWARD_TRANSFORMS["par"](torch.tensor([reward], dtype=torch.float64), against(*references), slope=slope)


def test_golden_values_of_par():
    assert_allclose(par(0.7, 0.7), [0.5], atol=0)
    assert_allclose(par(1.7, 0.7), [0.731059], atol=6e-7)
    assert_allclose(par(1.2, 0.5, 1.0), [0.609011], atol=6e-7)


def test_a_constant_added_to_a_prompt_s_rewards_changes_nothing_once_centred():
    rewards = torch.tensor([0.3], dtype=torch.float64)
    for name in CENTRED:
        moved = REWARD_TRANSFORMS[name](rewards + 5, against(5.1, 4.4))
        assert_allclose(moved, REWARD_TRANSFORMS[name](rewards, against(0.1, -0.6)), atol=1e-12)
    for name in UNCENTRED:
        assert abs(REWARD_TRANSFORMS[name](rewards + 5) - REWARD_TRANSFORMS[name](rewards)) > 0.1


def test_with_a_bradley_terry_reward_it_is_the_chance_to_beat_a_reference():
    rng = torch.Generator().manual_seed(0)
    reward, references = torch.randn(6, generator=rng).double(), torch.randn(6, 10, generator=rng).double()
    chance = (reward[:, None].exp() / (reward[:, None].exp() + references.exp())).mean(-1)
    assert_allclose(REWARD_TRANSFORMS["par"](reward, RewardContext(references=references)), chance)


def test_the_ten_shapings_of_the_comparison_are_there_by_name():
    rewards = torch.linspace(-2, 2, 8, dtype=torch.float64)
    context = RewardContext(rewards.roll(1).unsqueeze(-1), RunningRewards.of(rewards))
    names = ("identity", "mean_std", "clip", "min_max", "lsc", "par", "centred_tanh", "tanh", "centred_polynomial")
    found = {name: REWARD_TRANSFORMS[name](rewards, context) for name in (*names, "polynomial", "slow_then_fast")}
    found["saturate"] = REWARD_TRANSFORMS["saturate"](rewards, context, ceiling=1.0)
    assert len({tuple(shaped.tolist()) for shaped in found.values()}) == len(found)
