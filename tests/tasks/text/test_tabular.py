"""A table of logits as a language model."""

import pytest
import torch

from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.enumerable import TextBandit, TextEnum
from prefenvs.tasks.text.lm import Tabular


def made(task, **settings):
    language = task.language
    return Tabular.of(language, **settings)


@pytest.mark.parametrize("make", [TextEnum, TextBandit])
def test_probabilities_of_all_completions_sum_to_1(make):
    task = make()
    prompts, listed = torch.from_numpy(task.language.prompt_tokens), torch.from_numpy(task.completions())
    model = made(task, seed=1)
    logps = model.logprobs(prompts.repeat_interleave(len(listed), 0), listed.repeat(len(prompts), 1)).sum(-1)
    torch.testing.assert_close(logps.reshape(len(prompts), -1).exp().sum(1), torch.ones(len(prompts)))


@pytest.mark.parametrize("eos", [0, 1], ids=["the end pads", "another token pads"])
def test_sampling_and_scoring_give_the_same_bits(eos):
    task = TextEnum()
    prompts, model = torch.from_numpy(task.language.prompt_tokens).repeat(50, 1), made(task, eos=eos)
    written = model.sample(prompts, 4, torch.Generator().manual_seed(0))
    assert torch.equal(written.logprobs, model.logprobs(prompts, written.tokens))
    assert written.mask.any(1).all()
    padded = torch.nn.functional.pad(prompts, (3, 0))
    assert torch.equal(model.logprobs(padded, written.tokens), written.logprobs)


def test_every_beginning_of_every_prompt_has_a_hidden_vector_of_its_own():
    task = TextEnum()
    model = made(task)
    prompts = torch.from_numpy(task.language.prompt_tokens)
    every = torch.cartesian_prod(*[torch.arange(4)] * 4)
    hidden = model.hidden(prompts.repeat_interleave(len(every), 0), every.repeat(len(prompts), 1))
    assert hidden.shape == (8 * 256, 5, model.width)
    assert torch.equal(hidden.sum(-1), torch.ones(8 * 256, 5))
    assert hidden.argmax(-1).unique().tolist() == list(range(model.width))


def test_what_cannot_be_listed_and_unknown_prompts_are_refused():
    language = language_of("TextEnum")
    with pytest.raises(ValueError, match=r"too many to list\. Use a Decoder"):
        Tabular(language.prompt_tokens, 50, 8)
    with pytest.raises(ValueError, match="none of those"):
        made(TextEnum()).logits(torch.tensor([[0, 0]]), torch.zeros(1, 4, dtype=torch.int64))
