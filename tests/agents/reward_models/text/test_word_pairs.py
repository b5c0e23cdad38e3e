import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import erf

from prefenvs.agents.reward_models.text import TrunkEnsemble, WordPairs, WordPairsReward
from prefenvs.tasks.text.lm import Decoder

PROMPTS = torch.tensor([[0, 2, 4], [1, 3, 5]])
TEXTS = torch.tensor([[4, 2, 2, 0], [3, 1, 6, 5]])


def gelu(x):
    return x * (1 + erf(x / 2**0.5)) / 2


def test_the_stream_is_the_sum_over_pairs_of_words_taken_one_at_a_time():
    trunk = WordPairs(7, width=8, seed=1)
    words, before, copied, mix = (p.detach().double().numpy() for p in trunk.parameters())
    found = trunk.hidden(PROMPTS, TEXTS).detach().numpy()
    assert found.shape == (2, 5, 8)
    for row, (prompt, text) in enumerate(zip(PROMPTS.tolist(), TEXTS.tolist(), strict=True)):
        summed, last = np.zeros(8), prompt[-1]
        assert_allclose(found[row, 0], gelu(summed) @ mix, atol=1e-6)
        for t, word in enumerate(text):
            if word != 0:
                summed = summed + gelu(words[word] + before[last] + (word in prompt) * copied[0])
            assert_allclose(found[row, t + 1], gelu(summed) @ mix, atol=1e-5)
            last = word


def test_padding_of_prompts_and_completions_says_nothing():
    trunk = WordPairs(7, width=8)
    wide = torch.nn.functional.pad(PROMPTS, (3, 0))
    long = torch.nn.functional.pad(TEXTS, (0, 2))
    assert torch.equal(trunk.hidden(wide, TEXTS), trunk.hidden(PROMPTS, TEXTS))
    assert torch.equal(trunk.hidden(PROMPTS, long)[:, :5], trunk.hidden(PROMPTS, TEXTS))
    assert torch.equal(trunk.hidden(PROMPTS, long)[:, 5], trunk.hidden(PROMPTS, long)[:, 4])


@pytest.mark.parametrize("members", [1, 3])
def test_members_have_trunks_of_their_own_and_score_as_each_would_alone(members):
    rng = torch.Generator().manual_seed(0)
    model = TrunkEnsemble([WordPairs(7, seed=seed) for seed in range(members)], rng=rng)
    scores = model.members(PROMPTS, TEXTS)
    assert scores.shape == (members, 2)
    streams = model.trunks["trunk/words"]
    assert len({tuple(each.flatten().tolist()) for each in streams}) == members
    assert_allclose(
        scores[0].detach(),
        (WordPairs(7, seed=0).hidden(PROMPTS, TEXTS)[[0, 1], [4, 4]] @ model.head[0]).detach(),
        atol=1e-5,
    )


def test_the_reward_model_has_the_words_of_a_language_model_and_draws_all_its_weights():
    def made(model, seed):
        return WordPairsReward(model, rng=torch.Generator().manual_seed(seed), members=2, width=8).state_dict()

    first, other = (Decoder(7, 8, layers=1, width=16, heads=2, seed=seed) for seed in (0, 1))
    torch.testing.assert_close(made(first, 3), made(other, 3), rtol=0, atol=0)
    words = made(first, 3)["trunks.trunk/words"]
    assert words.shape == (2, 7, 8)
    assert len({tuple(each.flatten().tolist()) for each in (*words, *made(first, 4)["trunks.trunk/words"])}) == 4
