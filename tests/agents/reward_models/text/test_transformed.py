import pytest
import torch
from torch.nn.functional import pad

from prefenvs.agents.reward_models.text import (
    BradleyTerryReward,
    PairwisePreference,
    ProcessReward,
    References,
    TransformedReward,
    TransformedSteps,
    TrunkEnsemble,
    WinRate,
)
from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext, RunningRewards
from prefenvs.tasks.text.lm import Decoder

PROMPTS = torch.tensor([[0, 3], [1, 2], [2, 2]])
COMPLETIONS = torch.tensor([[1, 2, 0, 0], [3, 3, 3, 3], [0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 1, 0], [3, 2, 1, 1]])
SHOWN = PROMPTS.repeat_interleave(2, 0)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def language_model(seed=0):
    model = Decoder(4, 12, layers=1, width=16, heads=2, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0) if parameter.ndim > 1 else None
    return model


REFERENCES = References.sample(language_model(), PROMPTS, 4, 4, rng())


def reference_rewards(model, aggregate=lambda members: members.mean(0)):
    with torch.no_grad():
        members = model.members(PROMPTS.repeat_interleave(4, 0), REFERENCES.completions.flatten(0, 1))
    return aggregate(members).view(3, 4)


@pytest.mark.parametrize("name", ["identity", "par", "lsc", "centre", "tanh", "mean_std", "min_max", "clip"])
def test_every_shaping_is_that_of_the_registry_on_the_model_s_rewards(name):
    model = BradleyTerryReward(language_model(), rng=rng(), members=3)
    reward = TransformedReward(model, name, references=REFERENCES, batch=2)
    rewards = model.score(SHOWN, COMPLETIONS).detach()
    running = RunningRewards.of(rewards[:4])
    references = reference_rewards(model).repeat_interleave(2, 0)
    first = REWARD_TRANSFORMS[name](rewards[:4], RewardContext(references[:4], running))
    torch.testing.assert_close(reward(SHOWN[:4], COMPLETIONS[:4]), first)
    second = REWARD_TRANSFORMS[name](rewards[4:], RewardContext(references[4:], running.updated(rewards[4:])))
    torch.testing.assert_close(reward(SHOWN[4:], COMPLETIONS[4:]), second)


def test_members_are_aggregated_before_shaping_and_references_alike():
    model = TrunkEnsemble([language_model(seed) for seed in range(3)], rng=rng())
    reward = TransformedReward(model, "par", aggregate="worst_case", references=REFERENCES)
    worst = model.members(SHOWN, COMPLETIONS).amin(0)
    compared = reference_rewards(model, lambda members: members.amin(0)).repeat_interleave(2, 0)
    by_hand = (worst[:, None] - compared).sigmoid().mean(1)
    torch.testing.assert_close(reward(SHOWN, COMPLETIONS), by_hand.detach())
    options = {"weight": 2.0, "unbiased": True}
    reward = TransformedReward(model, aggregate="uncertainty_weighted", aggregate_options=options)
    members = model.members(SHOWN, COMPLETIONS)
    torch.testing.assert_close(reward(SHOWN, COMPLETIONS), (members.mean(0) - 2.0 * members.var(0)).detach())


def test_par_of_a_reference_itself_is_one_half_and_a_shift_of_the_model_changes_nothing():
    model = BradleyTerryReward(language_model(), rng=rng())
    one = References(PROMPTS, COMPLETIONS[:3, None])
    reward = TransformedReward(model, "par", references=one)
    torch.testing.assert_close(reward(PROMPTS, COMPLETIONS[:3]), torch.full((3,), 0.5))
    before = reward(SHOWN, COMPLETIONS)
    with torch.no_grad():
        model.bias += 3.0
    torch.testing.assert_close(TransformedReward(model, "par", references=one)(SHOWN, COMPLETIONS), before)


def test_references_are_found_however_prompts_are_padded_and_missing_ones_are_named():
    model = BradleyTerryReward(language_model(), rng=rng())
    reward = TransformedReward(model, "centre", references=REFERENCES)
    torch.testing.assert_close(reward(pad(SHOWN, (3, 0)), COMPLETIONS), reward(SHOWN, COMPLETIONS))
    assert REFERENCES.rows(PROMPTS[[2, 0]]).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"no reference completions of the prompt \[3, 3\]"):
        reward(torch.tensor([[3, 3]]), COMPLETIONS[:1])
    with pytest.raises(ValueError, match="reads rewards of reference responses"):
        TransformedReward(model, "par")(SHOWN, COMPLETIONS)


def test_names_and_models_that_do_not_fit_are_refused():
    model = BradleyTerryReward(language_model(), rng=rng())
    with pytest.raises(ValueError, match="Did you mean 'par'"):
        TransformedReward(model, "parr")
    with pytest.raises(ValueError, match="transform='worst_case' is not known"):
        TransformedReward(model, "worst_case")
    with pytest.raises(ValueError, match="aggregate='tanh' is not known"):
        TransformedReward(model, aggregate="tanh")
    with pytest.raises(ValueError, match="Use WinRate"):
        TransformedReward(PairwisePreference(language_model(), rng=rng()))
    with pytest.raises(ValueError, match="Expected one of: clip_steps, delta_steps, log_steps"):
        TransformedSteps(ProcessReward(language_model(), rng=rng(), separators=(2,)), "par")


def test_transformed_steps_lie_at_their_last_tokens_and_padding_earns_nothing():
    model = ProcessReward(language_model(), rng=rng(), separators=(2,))
    quality, ends = model.steps(SHOWN, COMPLETIONS)
    clipped = TransformedSteps(model, "clip_steps", threshold=0.9)(SHOWN, COMPLETIONS)
    delta = TransformedSteps(model, "delta_steps")(SHOWN, COMPLETIONS)
    a, b = quality[5].tolist()
    assert ends[5].tolist() == [1, 3]
    torch.testing.assert_close(clipped[5], torch.tensor([0, min(a - 0.9, 0), 0, min(b - 0.9, 0)]))
    torch.testing.assert_close(delta[5], torch.tensor([0, a, 0, 0]))
    assert not delta[:5].any(), "of a single step nothing is left"
    torch.testing.assert_close(clipped[1].sum(), (quality[1, 0] - 0.9).clamp(max=0).detach())


def test_the_win_rate_is_the_mean_over_references_and_of_a_reward_model_it_is_par():
    model = PairwisePreference(language_model(), rng=rng())
    reward = WinRate(model, REFERENCES)
    others = REFERENCES.completions.repeat_interleave(2, 0).unbind(1)
    by_hand = torch.stack([model.compare(SHOWN, COMPLETIONS, other).sigmoid() for other in others]).mean(0)
    torch.testing.assert_close(reward(SHOWN, COMPLETIONS), by_hand.detach())
    own = WinRate(model, References(PROMPTS, COMPLETIONS[:3, None]))
    torch.testing.assert_close(own(PROMPTS, COMPLETIONS[:3]), torch.full((3,), 0.5))
