"""Language models: one path for sampling and scoring, exact against enumeration and against transformers."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.enumerable import TextEnum, all_completions
from prefenvs.tasks.text.lm import (
    Decoder,
    as_gpt2,
    completion_mask,
    in_parts,
    pretrain,
    sample_in_parts,
    sampling,
    single_row,
)
from prefenvs.tasks.text.lm.pretraining import sft_loss

SMALL = {"layers": 2, "width": 16, "heads": 2}


@pytest.fixture
def model():
    """A model whose logits are far from uniform."""
    decoder = Decoder(6, 12, **SMALL)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(5.0) if parameter.ndim > 1 else None
    return decoder


PROMPTS = torch.tensor([[0, 0, 3], [1, 2, 4], [0, 5, 5], [2, 2, 2]])


def completions_that_end_with(eos, vocab_size, steps):
    """Every completion of at most `steps` tokens, padded with 0, which is no word of them unless it is `eos`."""
    listed = all_completions(vocab_size - eos, steps)  # 0 ends and pads, as it stays where eos is 0
    first = (listed == 0) & ((listed == 0).cumsum(1) == 1)
    return torch.from_numpy(listed if eos == 0 else np.where(first, eos, np.where(listed == 0, 0, listed + 1)))


eos = pytest.mark.parametrize("eos", [0, 1], ids=["the end pads", "another token pads"])


@eos
def test_probabilities_of_all_completions_sum_to_one(model, eos):
    model.eos, listed = eos, completions_that_end_with(eos, 6, 3)
    n = len(listed)
    prompts = PROMPTS.repeat_interleave(n, 0)
    with torch.no_grad():
        total = model.logprobs(prompts, listed.repeat(4, 1)).double().sum(1).view(4, n).exp().sum(1)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_log_probabilities_are_those_of_reading_a_token_at_a_time(model):
    rng = torch.Generator().manual_seed(0)
    completions = torch.randint(0, 6, (4, 5), generator=rng)
    with torch.no_grad():
        scored = model.logprobs(PROMPTS, completions)
        for row in range(4):
            context, ended = PROMPTS[row][PROMPTS[row].ne(0).cumsum(0) > 0], False
            for t, token in enumerate(completions[row].tolist()):
                empty = torch.empty(1, 0, dtype=torch.int64)
                logits = model.hidden(context[None], empty)[0, -1] @ model.words.T
                expected = 0.0 if ended else float(logits.log_softmax(-1)[token])
                assert float(scored[row, t]) == pytest.approx(expected, abs=2e-5)
                ended = ended or token == 0
                context = torch.cat([context, torch.tensor([token])])


@eos
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_the_sampler_scores_as_the_learner_does(model, temperature, eos):
    model.eos, prompts = eos, PROMPTS.repeat(50, 1)
    written = model.sample(prompts, 6, torch.Generator().manual_seed(1), temperature)
    scored = model.logprobs(prompts, written.tokens, temperature)
    torch.testing.assert_close(scored.detach(), written.logprobs, atol=2e-6, rtol=2e-6)
    assert torch.equal(written.mask, completion_mask(written.tokens, eos, 0))
    assert (written.logprobs[~written.mask] == 0).all()
    assert written.mask.any(1).all()
    assert not written.mask.all()


@pytest.mark.parametrize("prompts", [[[0, 0, 0], [0, 0, 4]], [[3], [5]]], ids=["one all padding", "of one token"])
def test_the_shortest_prompts_are_sampled_as_they_are_scored(model, prompts):
    prompts = torch.tensor(prompts)
    written = model.sample(prompts, 6, torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.logprobs(prompts, written.tokens).detach(), written.logprobs, atol=2e-6, rtol=2e-6)


@eos
@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("prompt", [[3], [1, 2, 4], [0, 0, 5, 2]], ids=str)
def test_one_sequence_alone_is_read_as_in_a_batch(model, prompt, temperature, eos, monkeypatch):
    """A single row on the CPU takes the path of `single_row`, all others that of the blocks."""
    model.eos = eos
    with torch.no_grad():
        for block in model.blocks:
            for norm in (block.attention_norm, block.mlp_norm):  # so that gains and biases matter
                norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
                norm.bias.normal_(generator=torch.Generator().manual_seed(3))
            for layer in (block.attention_in, block.attention_out, block.mlp_in, block.mlp_out):
                layer.bias.normal_(generator=torch.Generator().manual_seed(4))
    prompts = torch.tensor([prompt])
    for seed in range(20):
        alone = model.sample(prompts, 8, torch.Generator().manual_seed(seed), temperature)
        assert alone.mask.any(), "a completion has at least its end"
        torch.testing.assert_close(
            alone.logprobs, model.logprobs(prompts, alone.tokens, temperature).detach(), atol=1e-5, rtol=1e-5
        )
        with monkeypatch.context() as patched:
            patched.setattr(single_row, "serves", lambda *_: False)
            in_blocks = model.sample(prompts, 8, torch.Generator().manual_seed(seed), temperature)
        assert torch.equal(alone.tokens, in_blocks.tokens)
        torch.testing.assert_close(alone.logprobs, in_blocks.logprobs, atol=1e-5, rtol=1e-5)


def test_a_single_row_of_doubles_is_read_by_torch(model):
    written = model.double().sample(PROMPTS[1:2], 6, torch.Generator().manual_seed(0))
    assert not single_row.serves(model, 1)
    torch.testing.assert_close(
        model.logprobs(PROMPTS[1:2], written.tokens).detach().float(), written.logprobs, atol=1e-5, rtol=1e-5
    )


def test_samples_follow_the_probabilities(model):
    # A joint chi-square test of 43 completions; a model 5% off in one common completion is found.
    from scipy.stats import chisquare

    listed = torch.from_numpy(all_completions(6, 2))
    n = 20_000
    with torch.no_grad():
        p = model.logprobs(PROMPTS[:1].expand(len(listed), -1), listed).double().sum(1).exp().numpy()
    written = model.sample(PROMPTS[:1].expand(n, -1), 2, torch.Generator().manual_seed(0)).tokens.numpy()
    code = {tuple(row): i for i, row in enumerate(listed.tolist())}
    counts = np.bincount([code[tuple(row)] for row in written.tolist()], minlength=len(listed))
    common = p * n > 5

    def p_value(law):
        expected = law[common] * n
        return chisquare(counts[common], expected / expected.sum() * counts[common].sum()).pvalue

    assert p_value(p) > 1e-4
    wrong = p.copy()
    wrong[p.argmax()] *= 1.2
    assert p_value(wrong / wrong.sum()) < 1e-4


def test_padding_on_the_left_changes_nothing(model):
    completions = torch.tensor([[3, 1, 0]])
    bare, padded = torch.tensor([[4, 2]]), torch.tensor([[0, 0, 0, 4, 2]])
    with torch.no_grad():
        torch.testing.assert_close(model.logits(bare, completions), model.logits(padded, completions))
    one, other = (model.sample(p, 5, torch.Generator().manual_seed(3)) for p in (bare, padded))
    assert torch.equal(one.tokens, other.tokens)


def test_temperature_zero_takes_the_likeliest_token(model):
    written = model.sample(PROMPTS, 4, torch.Generator().manual_seed(0), 0.0)
    likeliest = model.logits(PROMPTS, written.tokens).argmax(-1)
    assert torch.equal(torch.where(written.mask, likeliest, 0), written.tokens)
    assert (written.logprobs == 0).all()
    with pytest.raises(ValueError, match="temperature=-1"):
        model.sample(PROMPTS, 4, torch.Generator(), -1.0)


def test_more_tokens_than_it_can_read_are_refused(model):
    with pytest.raises(ValueError, match="have 13 tokens, expected at most context=12"):
        model.sample(PROMPTS, 10, torch.Generator())
    with pytest.raises(ValueError, match="context=12"):
        model.logprobs(PROMPTS, torch.ones(4, 11, dtype=torch.int64))


def test_one_sample_does_not_depend_on_when_another_ends(model):
    rng = torch.Generator().manual_seed(0)
    first = model.sample(PROMPTS, 8, rng)
    state = rng.get_state()
    again = torch.Generator().manual_seed(0)
    assert torch.equal(model.sample(PROMPTS, 8, again).tokens, first.tokens)
    assert torch.equal(again.get_state(), state)
    before = torch.get_rng_state()
    model.sample(PROMPTS, 8, rng)
    Decoder(6, 12, **SMALL)
    assert torch.equal(torch.get_rng_state(), before), "nothing draws from torch's global generator"


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_written_and_scored_in_parts_are_the_same_completions(model, rows):
    prompts, rngs = PROMPTS.repeat(4, 1), [torch.Generator().manual_seed(1) for _ in range(2)]
    whole = model.sample(prompts, 6, rngs[0])
    parts = sample_in_parts(model, prompts, 6, rngs[1], rows=rows)
    assert torch.equal(parts.tokens, whole.tokens)
    assert torch.equal(parts.mask, whole.mask)
    torch.testing.assert_close(parts.logprobs, whole.logprobs, atol=1e-5, rtol=1e-5)
    assert torch.equal(rngs[0].get_state(), rngs[1].get_state())
    scored = in_parts(model.logprobs, rows, prompts, whole.tokens)
    torch.testing.assert_close(scored, model.logprobs(prompts, whole.tokens), atol=1e-5, rtol=1e-5)


def test_how_often_it_is_looked_whether_all_have_ended_changes_nothing(model, monkeypatch):
    """On a GPU each look waits for the device, so there are fewer."""
    read = []
    reader = Decoder._reader

    def counted(*arguments):
        one = reader(*arguments)
        return lambda token, at: (read.append(at), one(token, at))[1]

    monkeypatch.setattr(Decoder, "_reader", counted)
    often = model.sample(PROMPTS, 9, torch.Generator().manual_seed(3))
    first, _ = len(read), read.clear()
    monkeypatch.setitem(sampling.LOOK_EVERY, "cpu", 8)
    seldom = model.sample(PROMPTS, 9, torch.Generator().manual_seed(3))
    assert first < len(read) == 8
    for name, value in vars(often).items():
        assert torch.equal(value, getattr(seldom, name)), name


def test_it_is_gpt2(model):
    pytest.importorskip("transformers", reason="needs the text extra")
    theirs, tokens = as_gpt2(model), torch.tensor([[3, 1, 4, 2, 5], [1, 1, 2, 3, 4]])
    with torch.no_grad():
        ours = model.logits(tokens[:, :2], torch.cat([tokens[:, 2:], tokens[:, :1]], 1))
        torch.testing.assert_close(ours, theirs(tokens).logits[:, 1:], atol=1e-5, rtol=1e-5)


def test_pretraining_learns_the_demonstrations_and_is_cached_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFENVS_CACHE", str(tmp_path))
    task = TextEnum()
    arguments = {"steps": 150, "layers": 1, "width": 16, "heads": 2}
    model = pretrain(task, **arguments)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    again = pretrain("prefenvs/TextEnum-v0", **arguments)
    assert path.stat().st_mtime_ns == written
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    pretrain(task, **arguments | {"seed": 1, "steps": 1})
    pretrain(task, **arguments | {"steps": 1})
    assert len(list(tmp_path.iterdir())) == 3
    ids, tokens = language_of(task).demonstrate(2000, np.random.default_rng(9))
    prompts, tokens = torch.from_numpy(task.language.prompt_tokens[ids]), torch.from_numpy(tokens)
    with torch.no_grad():
        losses = [float(sft_loss(m, prompts, tokens)) for m in (Decoder(4, 6, layers=1, width=16, heads=2), model)]
    assert losses[1] < losses[0] - 0.03


def test_making_an_environment_loads_no_torch():
    code = (
        "import sys, gymnasium as gym, prefenvs\n"
        "env = gym.make('prefenvs/TextEnum-v0', view='completion')\n"
        "env.reset(seed=0), env.step(env.action_space.sample()), prefenvs.feedback(env)\n"
        "gym.make_vec('prefenvs/TextEnum-v0', num_envs=2)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_on_any_device_a_model_scores_as_on_the_cpu_and_as_it_samples(model, device):
    completions = torch.randint(0, 6, (4, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.logprobs(PROMPTS, completions)
        model.to(device)
        torch.testing.assert_close(model.logprobs(PROMPTS.to(device), completions.to(device)).cpu(), expected)
        written = model.sample(PROMPTS.repeat(50, 1).to(device), 6, torch.Generator(device).manual_seed(1))
        scored = model.logprobs(PROMPTS.repeat(50, 1).to(device), written.tokens)
    torch.testing.assert_close(scored, written.logprobs, atol=2e-5, rtol=2e-5)
