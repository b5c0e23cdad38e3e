import numpy as np
import pytest
import torch

from prefenvs.agents.text.exact import completion_probabilities, tree_logprobs
from prefenvs.tasks.text.enumerable import TextBandit, TextEnum, all_completions
from prefenvs.tasks.text.lm import Tabular


@pytest.mark.parametrize(("vocab_size", "steps"), [(2, 3), (3, 3), (4, 2), (30, 1)])
def test_a_tree_of_logits_gives_each_completion_the_product_of_its_steps(vocab_size, steps):
    words = vocab_size - 1
    beginnings = [
        tuple(int(d) + 1 for d in np.unravel_index(i, (words,) * t)) if t else ()
        for t in range(steps)
        for i in range(words**t)
    ]
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, len(beginnings), vocab_size, generator=rng, dtype=torch.float64)
    found = tree_logprobs(logits, steps)
    for column, completion in enumerate(all_completions(vocab_size, steps).tolist()):
        expected, logps = torch.zeros(2, 3, dtype=torch.float64), logits.log_softmax(-1)
        for t, token in enumerate(completion):
            expected = expected + logps[..., beginnings.index(tuple(completion[:t])), token]
            if token == 0:
                break
        torch.testing.assert_close(found[..., column], expected)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("make", [TextEnum, TextBandit])
def test_a_tree_is_a_tabular_language_model(make):
    task = make()
    language = task.language
    model = Tabular(language.prompt_tokens, language.vocab_size, language.max_new_tokens, seed=1)
    size, steps = language.vocab_size, language.max_new_tokens
    codes = []  # the beginnings without an end among those of the table
    for t in range(steps):
        tokens = np.indices((size,) * t).reshape(t, -1).T if t else np.zeros((1, 0), int)
        codes += [model.offsets[t] + i for i in np.flatnonzero((tokens != 0).all(1)).tolist()]
    found = tree_logprobs(model.table.detach().double()[:, codes], steps)
    np.testing.assert_allclose(found.exp().numpy(), completion_probabilities(model, task), atol=1e-6)
