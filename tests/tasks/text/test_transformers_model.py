"""A model of transformers behind the same protocol: it scores, samples, trains and loads as ours does."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch

from prefenvs.tasks import product
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import TransformersModel, completion_mask, transformers_model
from prefenvs.tasks.text.lm.pretraining import sft_loss

transformers = pytest.importorskip("transformers", reason="needs the text extra")

PROMPTS = torch.tensor([[0, 0, 3], [1, 2, 4], [0, 5, 5], [2, 2, 2]])


def gpt2(vocab_size=6, positions=12):
    config = transformers.GPT2Config(
        vocab_size=vocab_size, n_positions=positions, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0) if parameter.ndim > 1 else None
    return model


def llama(**settings):
    config = transformers.LlamaConfig(
        vocab_size=6,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        initializer_range=0.3,
        **settings,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(params=[gpt2, llama], ids=["gpt2", "llama"])
def model(request):
    return TransformersModel(request.param().train(), eos=0, pad=0)


def opt():
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "num_hidden_layers": 2}
    config = transformers.OPTConfig(vocab_size=6, num_attention_heads=2, max_position_embeddings=16, **sizes)
    torch.manual_seed(0)
    return transformers.OPTForCausalLM(config)


eos = pytest.mark.parametrize("eos", [0, 1], ids=["the end pads", "another token pads"])


@eos
def test_probabilities_of_all_completions_sum_to_one(model, eos):
    words = [token for token in range(6) if token not in (0, eos)]
    listed = torch.tensor([[eos, 0], *([word, last] for word in words for last in (eos, *words))])
    model.eos = eos
    n = len(listed)
    with torch.no_grad():
        scored = model.logprobs(PROMPTS.repeat_interleave(n, 0), listed.repeat(4, 1))
    np.testing.assert_allclose(scored.double().sum(1).view(4, n).exp().sum(1), 1.0, atol=1e-5)


@eos
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sampler_scores_as_the_learner_does_in_training_mode_too(model, temperature, eos):
    model.eos, prompts = eos, PROMPTS.repeat(10, 1)
    written = model.sample(prompts, 6, torch.Generator().manual_seed(1), temperature)
    scored = model.logprobs(prompts, written.tokens, temperature)
    torch.testing.assert_close(scored.detach(), written.logprobs, atol=5e-6, rtol=5e-6)
    assert torch.equal(written.mask, completion_mask(written.tokens, eos, 0))
    assert written.mask.any(1).all()


@pytest.mark.parametrize("make", [gpt2, partial(llama, attention_dropout=0.1), opt], ids=["gpt2", "llama", "opt"])
def test_no_kind_of_dropout_is_left_in_training_mode(make):
    """GPT-2's is of modules; Llama's, in its attention, and OPT's are calls of functions."""
    holder = torch.nn.ModuleList([TransformersModel(make().train(), eos=0, pad=0)]).train()
    completions = torch.randint(1, 6, (4, 6), generator=torch.Generator().manual_seed(0))
    first, second = (holder[0].logprobs(PROMPTS, completions) for _ in range(2))
    assert torch.equal(first, second)


def test_large_layers_sample_by_the_other_library_as_they_score_also_in_a_copy(model, monkeypatch):
    monkeypatch.setattr(product, "_WORTH", 0)
    called = []
    monkeypatch.setattr(transformers_model, "linear", lambda *given: called.append(given) or product.linear(*given))
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(0.9)
    for one in (model, copy):
        called.clear()
        written = one.sample(PROMPTS, 6, torch.Generator().manual_seed(1))
        used = {weight.data_ptr() for _, weight, _ in called}
        assert used
        assert used <= {parameter.data_ptr() for parameter in one.parameters()}
        torch.testing.assert_close(
            one.logprobs(PROMPTS, written.tokens).detach(), written.logprobs, atol=5e-6, rtol=5e-6
        )


def test_it_scores_as_the_model_itself_did():
    original, tokens = gpt2().eval(), torch.tensor([[3, 1, 4, 2, 5], [1, 1, 2, 3, 4]])
    with torch.no_grad():
        before = original(tokens).logits[:, 1:-1]
        after = TransformersModel(original, eos=0, pad=0).logits(tokens[:, :2], tokens[:, 2:])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_hidden_states_give_the_logits(model):
    completions = torch.tensor([[1, 2, 0]] * 4)
    with torch.no_grad():
        hidden = model.hidden(PROMPTS, completions)
        assert hidden.shape == (4, 4, 16)
        logits = model.model.get_output_embeddings()(hidden[:, :-1])
        torch.testing.assert_close(logits, model.logits(PROMPTS, completions), atol=1e-5, rtol=1e-5)


def test_a_gpt2_trains_on_demonstrations():
    language = language_of("TextEnum")
    model = TransformersModel(gpt2(language.vocab_size, 6), eos=0, pad=0)
    ids, tokens = language.demonstrate(512, np.random.default_rng(0))
    prompts, tokens = torch.from_numpy(language.prompt_tokens[ids]), torch.from_numpy(tokens)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = sft_loss(model, prompts, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


def test_it_loads_from_a_folder_without_a_network_and_says_when_the_hub_would_be_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    original = gpt2()
    original.save_pretrained(tmp_path)
    loaded = TransformersModel.load(tmp_path)
    assert (loaded.eos, loaded.pad, loaded.vocab_size, loaded.width) == (0, 0, 6, 16)
    ours = TransformersModel(original, eos=0, pad=0)
    completions = torch.tensor([[1, 2, 0]] * 4)
    with torch.no_grad():
        torch.testing.assert_close(loaded.logits(PROMPTS, completions), ours.logits(PROMPTS, completions))
    with pytest.raises(FileNotFoundError, match="the hub would be needed"):
        TransformersModel.load("gpt2")


def test_with_lora_only_small_matrices_train(tmp_path):
    pytest.importorskip("peft", reason="needs the text extra")
    gpt2().save_pretrained(tmp_path)
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    model, plain = TransformersModel.load(tmp_path, lora=lora), TransformersModel.load(tmp_path)
    completions = torch.tensor([[1, 2, 0]] * 4)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(PROMPTS, completions), plain.logits(PROMPTS, completions))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    written = model.sample(PROMPTS, 4, torch.Generator().manual_seed(0))
    sft_loss(model, PROMPTS, written.tokens).backward()


def test_more_tokens_than_the_tokenizer_has_are_never_written():
    model = TransformersModel(gpt2(vocab_size=9), eos=0, pad=0, vocab_size=6)
    written = model.sample(PROMPTS.repeat(100, 1), 6, torch.Generator().manual_seed(0))
    assert int(written.tokens.max()) == 5
    assert model.logits(PROMPTS, torch.ones(4, 2, dtype=torch.int64)).shape[-1] == 6
