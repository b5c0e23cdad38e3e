"""What every reward model of text promises, and what each kind promises by itself."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid, pad

from prefenvs import Label, Query, one_hot
from prefenvs.agents.reward_models import fit
from prefenvs.agents.reward_models.text import (
    TEXT_REWARD_MODELS,
    ImplicitReward,
    PairwisePreference,
    ProcessReward,
    TextPreferences,
    at_step_ends,
    load_reward_model,
    save_reward_model,
    step_ends,
)
from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
from prefenvs.error import DamagedFile, RunMismatch
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import Decoder
from prefenvs.text_dataset import completion_segments

OPTIONS = {"process": {"separators": (2,)}, "bradley_terry": {"members": 2}, "trunk_ensemble": {"members": 2}}
LANGUAGE = language_of("TextEnum")
PROMPTS = torch.tensor([[0, 3], [1, 2], [2, 2], [0, 1], [3, 1], [1, 1]])
COMPLETIONS = torch.tensor([[1, 2, 0, 0], [3, 3, 3, 3], [0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 1, 0], [3, 2, 1, 1]])
over_the_registry = pytest.mark.parametrize("name", TEXT_REWARD_MODELS)


def language_model(seed=0, **changes):
    model = Decoder(4, 12, **{"layers": 1, "width": 16, "heads": 2, "seed": seed} | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0) if parameter.ndim > 1 else None
    return model


def make(name, trunk=None, seed=0):
    model = TEXT_REWARD_MODELS[name](
        trunk or language_model(), rng=torch.Generator().manual_seed(seed), **OPTIONS.get(name, {})
    )
    if name == "implicit":  # of a policy that has moved
        with torch.no_grad():
            for parameter in model.policy.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def segments(prompts=PROMPTS, completions=COMPLETIONS):
    return completion_segments(prompts.numpy(), completions.numpy(), LANGUAGE)


@over_the_registry
def test_it_has_what_it_says_it_supports(name):
    model = make(name)
    assert all(callable(getattr(model, part)) for part in model.supports)
    query = Query(segments())
    assert model.prefer(query).shape == (3, 2, 2)
    assert model.loss(query, Label(one_hot(np.array([0, 1, 1])))).shape == (3,)
    if "score" in model.supports:
        members = model.members(PROMPTS, COMPLETIONS)
        torch.testing.assert_close(members.mean(0), model.score(PROMPTS, COMPLETIONS))
        torch.testing.assert_close(model.segment(query.segments), model.score(PROMPTS, COMPLETIONS))


@over_the_registry
def test_preferences_of_pairs_and_triples_are_antisymmetric(name):
    model = make(name)
    for k in (2, 3):
        logits = model.prefer(Query(segments(), k=k))
        assert torch.equal(logits, -logits.mT)
        assert logits.abs().max() > 1e-3


@over_the_registry
def test_swapping_a_question_swaps_the_answer_and_keeps_the_loss(name):
    model, choice = make(name), one_hot(np.array([0, 1, 1]))
    query, swapped = Query(segments()), Query(segments()[[1, 0, 3, 2, 5, 4]])
    torch.testing.assert_close(model.prefer(swapped), model.prefer(query).mT)
    loss = model.loss(query, Label(choice))
    torch.testing.assert_close(model.loss(swapped, Label(choice[:, ::-1])), loss)
    if name in ("pairwise", "implicit", "process"):  # of one member, so the loss is that of its own preference
        won = model.prefer(query)[torch.arange(3), [0, 1, 1], [1, 0, 0]]
        torch.testing.assert_close(loss, -logsigmoid(won))


@over_the_registry
def test_padding_never_counts(name):
    model, ended = make(name), (COMPLETIONS == 0).any(1).numpy()
    logits = model.prefer(Query(segments()[ended], k=4))
    wider = segments(pad(PROMPTS, (2, 0)), pad(COMPLETIONS, (0, 2)))[ended]
    torch.testing.assert_close(model.prefer(Query(wider, k=4)), logits)
    after = torch.where(model.mask(COMPLETIONS), COMPLETIONS, 2)  # a separator of steps too
    if "score" in model.supports:
        torch.testing.assert_close(model.score(PROMPTS, after), model.score(PROMPTS, COMPLETIONS))
    else:
        scores = [model.compare(PROMPTS, texts, COMPLETIONS.flip(0)) for texts in (after, COMPLETIONS)]
        torch.testing.assert_close(*scores)


@over_the_registry
def test_a_skipped_query_weighs_nothing(name):
    model = make(name)
    loss = model.loss(Query(segments()), Label(one_hot(np.array([-1, 0, -1]))))
    assert loss[[0, 2]].tolist() == [0, 0]
    assert loss[1] > 0
    model.loss(Query(segments()), Label(one_hot(np.full(3, -1)))).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@over_the_registry
def test_fitting_lowers_the_loss_and_repeats(name):
    losses = []
    for _ in range(2):
        model, data = make(name), TextPreferences(held_out_every=10)
        query, label = Query(segments()), Label(one_hot(np.array([1, 0, 0])))
        data.add(model, query, label)
        before = float(model.loss(query, label).mean().detach())
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-2)
        rng = torch.Generator().manual_seed(0)
        report = fit(model, optimizer, data, rng=rng, epochs=20, batch=2, stop_accuracy=1.1)
        losses.append(float(model.loss(query, label).mean().detach()))
        assert losses[-1] < before
        assert report.accuracy == 1.0
        assert model.trained
        if model.free_level:
            everything = model.members(PROMPTS, COMPLETIONS).mean(1)
            torch.testing.assert_close(everything, torch.zeros(len(everything)), atol=1e-5, rtol=0)
    assert losses[0] == losses[1]


@over_the_registry
def test_save_then_load_is_identity(name, tmp_path):
    model, query = make(name), Query(segments())
    if model.free_level:
        model.standardize(PROMPTS, COMPLETIONS)
    model.margin = 0.25
    save_reward_model(model, tmp_path / "folder" / "reward.safetensors")
    half_frozen = language_model(7)
    half_frozen.blocks.requires_grad_(False)
    before = {name: weight.clone() for name, weight in half_frozen.state_dict().items()}
    for trunk in (None, half_frozen):
        loaded = load_reward_model(tmp_path / "folder" / "reward.safetensors", trunk)
        assert (type(loaded), loaded.options, loaded.margin) == (type(model), model.options, 0.25)
        assert torch.equal(loaded.prefer(query), model.prefer(query))
        if "score" in model.supports:
            assert torch.equal(loaded.score(PROMPTS, COMPLETIONS), model.score(PROMPTS, COMPLETIONS))
    assert all(torch.equal(weight, before[name]) for name, weight in half_frozen.state_dict().items())
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["reward.safetensors"]


def test_files_that_are_no_reward_model_say_so(tmp_path, monkeypatch):
    path = tmp_path / "reward.safetensors"
    save_reward_model(make("bradley_terry"), path)
    with pytest.raises(RunMismatch, match="do not fit this Decoder"):
        load_reward_model(path, Decoder(4, 12, layers=2, width=16, heads=2))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DamagedFile, match="left as it is"):
        load_reward_model(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DamagedFile, match="'prefenvs'"):
        load_reward_model(path)
    facts = {"model": "bradly_terry", "options": {}, "trunk": {"kind": "GPT2"}}
    save_file({"a": torch.zeros(1)}, path, {"prefenvs": json.dumps(facts)})
    with pytest.raises(ValueError, match="Did you mean 'bradley_terry'"):
        load_reward_model(path)
    save_file({"a": torch.zeros(1)}, path, {"prefenvs": json.dumps(facts | {"model": "bradley_terry"})})
    with pytest.raises(ValueError, match="made from a GPT2"):
        load_reward_model(path)
    with pytest.raises(FileNotFoundError):
        load_reward_model(tmp_path / "nothing")
    monkeypatch.delitem(TEXT_REWARD_MODELS, "pairwise")
    with pytest.raises(ValueError, match="has no name to be saved under"):
        save_reward_model(PairwisePreference(language_model(), rng=torch.Generator()), path)
    assert load_file(path)["a"].tolist() == [0]


def test_a_completion_is_never_preferred_to_itself_and_compare_is_prefer():
    model = make("pairwise")
    assert not model.compare(PROMPTS, COMPLETIONS, COMPLETIONS).any()
    query = Query(segments(PROMPTS.repeat_interleave(2, 0)[:6], COMPLETIONS))
    direct = model.compare(PROMPTS[:3], COMPLETIONS[::2], COMPLETIONS[1::2])
    torch.testing.assert_close(model.prefer(query)[:, 0, 1], direct)


def test_only_the_pairwise_model_learns_a_cycle():
    # a over b, b over c, c over a: Bradley-Terry can do no better than a coin, log 2.
    prompts, abc = torch.tensor([[1, 1]]).expand(6, 2), torch.tensor([[1, 0], [2, 0], [2, 0], [3, 0], [3, 0], [1, 0]])
    query, label = Query(segments(prompts, abc)), Label(one_hot(np.array([0, 0, 0])))
    found = {}
    for name in ("pairwise", "bradley_terry"):
        model = make(name)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60):
            loss = model.loss(query, label).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[name] = loss.item()
    assert found["pairwise"] < 0.1
    assert found["bradley_terry"] > np.log(2) - 1e-4


def test_the_implicit_reward_sums_over_tokens_and_its_loss_is_dpo():
    model = make("implicit")
    tokens = model.token_rewards(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(tokens.sum(1), model.score(PROMPTS, COMPLETIONS))
    assert not tokens[~model.mask(COMPLETIONS)].any()
    by_hand = (model.policy.logprobs(PROMPTS, COMPLETIONS) - model.reference.logprobs(PROMPTS, COMPLETIONS)).sum(1)
    torch.testing.assert_close(model.score(PROMPTS, COMPLETIONS), 0.1 * by_hand)
    chosen, rejected = [0, 3, 5], [1, 2, 4]
    logps = [m.logprobs(PROMPTS, COMPLETIONS).sum(1) for m in (model.policy, model.reference)]
    pairs = PairLogps(*(logp[rows] for logp in logps for rows in (chosen, rejected)))
    query, label = Query(segments()), Label(one_hot(np.array([0, 1, 1])))
    torch.testing.assert_close(model.loss(query, label), PAIR_LOSSES["dpo"](pairs, beta=0.1))
    model.loss(query, label).sum().backward()
    assert all(p.grad is None for p in model.reference.parameters())


def test_an_implicit_reward_is_zero_before_training_and_keeps_a_reference_of_its_own():
    policy, reference = language_model(0), language_model(1)
    untrained = ImplicitReward(policy, rng=torch.Generator()).score(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(untrained, torch.zeros(6), atol=1e-6, rtol=0)
    model = ImplicitReward(policy, rng=torch.Generator(), reference=reference, beta=2.0)
    apart = policy.logprobs(PROMPTS, COMPLETIONS) - reference.logprobs(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(model.token_rewards(PROMPTS, COMPLETIONS), 2.0 * apart)


def test_steps_end_at_separators_and_with_the_completion():
    completions = torch.tensor(
        [[3, 2, 1, 2, 0, 0], [3, 3, 1, 0, 0, 0], [1, 2, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2]]
    )
    expected = [[1, 3, -1], [3, -1, -1], [1, 5, -1], [0, -1, -1]]
    assert step_ends(completions[:4], (2,), 0, 0)[:, :3].tolist() == [row[:2] for row in expected]
    assert step_ends(completions[4:], (2,), 0, 0).tolist() == [list(range(6))]
    assert step_ends(completions[1:2], (2, 3), 0, 0).tolist() == [[0, 1, 3]]
    assert step_ends(torch.tensor([[9, 9]]), (2,), 0, 9).shape == (1, 0)
    placed = at_step_ends(torch.tensor([[5.0, 6.0], [7.0, 8.0]]), torch.tensor([[1, 3], [2, -1]]), 4)
    assert placed.tolist() == [[0, 5, 0, 6], [0, 0, 7, 0]]


def test_a_process_reward_is_the_log_probability_that_all_steps_are_right():
    model = make("process")
    quality, ends = model.steps(PROMPTS, COMPLETIONS)
    assert ends.tolist() == [[1, -1], [3, -1], [0, -1], [0, -1], [3, -1], [1, 3]]
    assert (quality[ends < 0] == 1).all()
    torch.testing.assert_close(quality.prod(1).log(), model.score(PROMPTS, COMPLETIONS))
    tokens = model.token_rewards(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(tokens.sum(1), model.score(PROMPTS, COMPLETIONS))
    torch.testing.assert_close(tokens[5, [1, 3]].exp(), quality[5])
    # A step is judged by what is written up to its end.
    other = COMPLETIONS[5:].clone()
    other[0, 2:] = torch.tensor([3, 0])
    torch.testing.assert_close(model.steps(PROMPTS[5:], other)[0][0, 0], quality[5, 0])


def test_the_loss_of_labelled_steps_by_hand():
    model = make("process")
    quality, _ = model.steps(PROMPTS, COMPLETIONS)
    correct = torch.full((6, 2), torch.nan)
    correct[5] = torch.tensor([1.0, 0.0])
    correct[0, 0] = 0.5
    loss = model.step_loss(PROMPTS, COMPLETIONS, correct)
    a, b = quality[5]
    torch.testing.assert_close(loss[5], -(a.log() + (1 - b).log()))
    torch.testing.assert_close(loss[0], -(quality[0, 0].log() + (1 - quality[0, 0]).log()) / 2)
    assert loss[1:5].tolist() == [0] * 4
    loss.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"expected \(n, K\) = \(6, 2\)"):
        model.step_loss(PROMPTS, COMPLETIONS, correct[:, :1])


def test_labelled_steps_are_learned():
    # Steps with the word 3 in them are wrong.
    rng = torch.Generator().manual_seed(0)
    completions = torch.randint(1, 4, (64, 4), generator=rng)
    prompts = torch.ones(64, 2, dtype=torch.int64)
    ends = step_ends(completions, (2,), 0, 0)
    begins = torch.nn.functional.pad(ends + 1, (1, 0))[:, :-1]
    correct = torch.tensor(
        [[float(3 not in row[a : b + 1]) for a, b in zip(*spans, strict=True)]
         for row, *spans in zip(completions.tolist(), begins.tolist(), ends.tolist(), strict=True)]
    )  # fmt: skip
    model = ProcessReward(language_model(layers=2), rng=rng, separators=(2,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.step_loss(prompts, completions, correct).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quality, _ = model.steps(prompts, completions)
    right = ((quality > 0.5) == (correct > 0.5))[ends >= 0].float().mean()
    assert right > 0.9
