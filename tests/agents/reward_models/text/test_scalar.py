import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid, pad

import prefenvs
from prefenvs import Label, Query, Segments, one_hot
from prefenvs.agents.reward_models import bradley_terry_loss, centring_penalty, fit
from prefenvs.agents.reward_models.text import BradleyTerryReward, TextPreferences, TrunkEnsemble
from prefenvs.agents.reward_models.training import length_accuracy
from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS
from prefenvs.collecting import step_ends
from prefenvs.making import make_task
from prefenvs.metrics.correlation import spearman
from prefenvs.queries import pairs_within
from prefenvs.tasks import TASKS
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.enumerable import TextEnum
from prefenvs.tasks.text.lm import Decoder, pretrain
from prefenvs.text_dataset import completion_segments

LANGUAGE = language_of("TextEnum")
PROMPTS = torch.tensor([[0, 3], [1, 2], [2, 2], [0, 1], [3, 1], [1, 1]])
COMPLETIONS = torch.tensor([[1, 2, 0, 0], [3, 3, 3, 3], [0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 1, 0], [3, 2, 1, 1]])


def language_model(seed=0, **changes):
    """A Decoder whose streams differ much between texts."""
    model = Decoder(4, 12, **{"layers": 1, "width": 16, "heads": 2, "seed": seed} | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0) if parameter.ndim > 1 else None
    return model


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


KINDS = {
    "one head": lambda: BradleyTerryReward(language_model(), rng=rng()),
    "three heads": lambda: BradleyTerryReward(language_model(), rng=rng(), members=3),
    "three trunks": lambda: TrunkEnsemble([language_model(seed) for seed in range(3)], rng=rng()),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def segments(prompts=PROMPTS, completions=COMPLETIONS):
    return completion_segments(prompts.numpy(), completions.numpy(), LANGUAGE)


def test_the_loss_with_a_margin_and_the_penalty_by_hand():
    scores, label = torch.tensor([[1.2, 0.5], [0.5, 1.2], [3.0, 4.0]]), torch.tensor([[1.0, 0], [1, 0], [np.nan] * 2])
    margin = torch.tensor([0.3, 0.3, 0.3])
    # -log s(1.2 - 0.5 - 0.3) = log(1 + exp(-0.4)) and log(1 + exp(1.0))
    torch.testing.assert_close(bradley_terry_loss(scores, label, margin), torch.tensor([0.51301525, 1.31326169, 0.0]))
    torch.testing.assert_close(bradley_terry_loss(scores, label, 0 * margin), bradley_terry_loss(scores, label))
    torch.testing.assert_close(centring_penalty(scores, label), torch.tensor([2.89, 2.89, 0.0]))
    tie = torch.tensor([[0.5, 0.5]])
    by_hand = -(logsigmoid(torch.tensor(0.4)) + logsigmoid(torch.tensor(-1.0))) / 2
    torch.testing.assert_close(bradley_terry_loss(scores[:1], tie, margin[:1]), by_hand[None])


@every_kind
def test_padding_never_counts(kind):
    model = KINDS[kind]()
    expected = model.members(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(model.members(pad(PROMPTS, (2, 0)), COMPLETIONS), expected)
    ended = (COMPLETIONS == 0).any(1)  # where one token ends and pads, more columns would end what was cut
    torch.testing.assert_close(model.members(PROMPTS[ended], pad(COMPLETIONS[ended], (0, 3))), expected[:, ended])
    noise = torch.where(model.mask(COMPLETIONS), COMPLETIONS, 3)  # what follows the end is not read
    torch.testing.assert_close(model.members(PROMPTS, noise), expected)
    assert expected.std(1).min() > 0.1


def test_a_padding_token_of_its_own_leaves_a_cut_completion_cut():
    model = BradleyTerryReward(language_model(pad=3), rng=rng())
    cut = torch.tensor([[1, 2, 3, 3], [1, 2, 0, 3], [3, 3, 3, 3]])
    scores = model.score(PROMPTS[:3], cut)
    torch.testing.assert_close(model.score(PROMPTS[:3], pad(cut, (0, 3), value=3)), scores)
    torch.testing.assert_close(model.score(PROMPTS[:1], cut[:1, :2]), scores[:1])
    assert model.mask(cut).sum(1).tolist() == [2, 3, 0]
    assert abs(scores[0] - scores[1]) > 0.01


@every_kind
def test_scores_are_of_each_completion_by_itself(kind):
    model = KINDS[kind]()
    together = model.members(PROMPTS, COMPLETIONS)
    alone = [model.members(PROMPTS[i : i + 1], COMPLETIONS[i : i + 1]) for i in range(len(PROMPTS))]
    torch.testing.assert_close(torch.cat(alone, 1), together)
    torch.testing.assert_close(model.score(PROMPTS, COMPLETIONS), together.mean(0))


def test_separate_trunks_equal_single_models_one_by_one_also_on_batches_of_their_own():
    trunks = [language_model(seed) for seed in range(3)]
    model = TrunkEnsemble(trunks, rng=rng())
    orders = torch.tensor([[0, 1, 2], [3, 4, 5], [5, 0, 1]])
    together, own = model.members(PROMPTS, COMPLETIONS), model.raw_scores(PROMPTS[orders], COMPLETIONS[orders])
    for m, trunk in enumerate(trunks):
        single = BradleyTerryReward(trunk, rng=rng())
        with torch.no_grad():
            single.head.copy_(model.head[m : m + 1])
        torch.testing.assert_close(single.score(PROMPTS, COMPLETIONS), together[m])
        torch.testing.assert_close(single.score(PROMPTS[orders[m]], COMPLETIONS[orders[m]]), own[m])


def test_an_ensemble_of_one_is_the_single_model_through_training():
    reports, scores = [], []
    for kind in (BradleyTerryReward, TrunkEnsemble):
        model, data = kind(language_model(), rng=rng(), members=1), TextPreferences()
        query, label = questions(TextEnum(), 60, np.random.default_rng(0))
        data.add(model, query, label)
        reports.append(train(model, data, epochs=2))
        scores.append(model.score(PROMPTS, COMPLETIONS).detach())
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)
    assert reports[0].loss == pytest.approx(reports[1].loss, abs=1e-4)


def test_identical_members_agree_whatever_the_aggregate():
    model = BradleyTerryReward(language_model(), rng=rng(), members=3)
    with torch.no_grad():
        model.head.copy_(model.head[:1].clone())
    members = model.members(PROMPTS, COMPLETIONS)
    for name, options in (("worst_case", {}), ("uncertainty_weighted", {"unbiased": False}), ("mean", {})):
        torch.testing.assert_close(REWARD_TRANSFORMS[name](members, **options), model.score(PROMPTS, COMPLETIONS))


@every_kind
def test_preferences_are_antisymmetric_and_the_loss_is_that_of_its_parts(kind):
    model = KINDS[kind]()
    query, swapped = Query(segments()), Query(segments()[[1, 0, 3, 2, 5, 4]])
    label = Label(one_hot(np.array([0, 1, -1])))
    logits = model.prefer(query)
    torch.testing.assert_close(logits, -logits.mT)
    torch.testing.assert_close(model.prefer(swapped), logits.flip(1, 2))
    scores = model.raw_scores(PROMPTS, COMPLETIONS).reshape(-1, 3, 2)
    apart = torch.stack([scores[:, 0, 0] - scores[:, 0, 1], scores[:, 1, 1] - scores[:, 1, 0]])
    expected = torch.cat([-logsigmoid(apart).mean(1), torch.zeros(1)])
    torch.testing.assert_close(model.loss(query, label), expected)
    torch.testing.assert_close(model.loss(swapped, Label(label.choice[:, ::-1])), expected)


def test_a_margin_comes_from_the_strength_of_the_answer_and_centring_adds_its_penalty():
    model = BradleyTerryReward(language_model(), rng=rng(), margin=0.5, centring=0.01)
    query, choice = Query(segments()), one_hot(np.array([0, 1, 1]))
    label = Label(choice, strength=np.array([2.0, 0.0, 1.0]))
    scores, target = model.score(PROMPTS, COMPLETIONS).reshape(3, 2), torch.tensor(choice, dtype=torch.float32)
    expected = bradley_terry_loss(scores, target, torch.tensor([1.0, 0.0, 0.5])) + 0.01 * scores.sum(1).square()
    torch.testing.assert_close(model.loss(query, label), expected)
    with pytest.raises(ValueError, match="this label has none"):
        model.loss(query, Label(choice))


@every_kind
def test_a_skipped_query_has_no_gradient_and_leaves_no_row(kind):
    model, query, label = KINDS[kind](), Query(segments()), Label(one_hot(np.full(3, -1)))
    model.centring = 1.0
    model.loss(query, label).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    data = TextPreferences()
    data.add(model, query, label)
    assert len(data) == 0
    with pytest.raises(ValueError, match="all were skipped"):
        train(model, data)


@every_kind
def test_centring_shifts_each_member_to_mean_zero_and_changes_no_preference(kind):
    model, query = KINDS[kind](), Query(segments())
    logits, before = model.prefer(query), model.members(PROMPTS, COMPLETIONS)
    model.centre(PROMPTS, COMPLETIONS, batch=4)
    torch.testing.assert_close(model.members(PROMPTS, COMPLETIONS), before - before.mean(1, keepdim=True))
    model.standardize(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(model.members(PROMPTS, COMPLETIONS).std(1), torch.ones(len(before)))
    torch.testing.assert_close(model.prefer(query), logits)


def test_the_language_model_it_starts_from_stays_as_it_is():
    trunk = language_model()
    before = [p.clone() for p in trunk.parameters()]
    for kind in (BradleyTerryReward, TrunkEnsemble):
        model, data = kind(trunk, rng=rng(), members=2), TextPreferences()
        data.add(model, *questions(TextEnum(), 30, np.random.default_rng(0)))
        train(model, data, epochs=1)
    assert all(torch.equal(one, other) for one, other in zip(before, trunk.parameters(), strict=True))
    with pytest.raises(ValueError, match="0 members"):
        TrunkEnsemble([], rng=rng())


@pytest.mark.parametrize("kind", [BradleyTerryReward, TrunkEnsemble])
def test_a_frozen_reference_thaws_in_its_copy_and_what_was_frozen_in_part_stays(kind):
    frozen = language_model().requires_grad_(False)
    assert all(p.requires_grad for p in kind(frozen, rng=rng(), members=2).parameters())
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.norm.requires_grad_(True)
    learns = [p.requires_grad for p in kind(frozen, rng=rng(), members=2).parameters()]
    assert sum(learns) == 4  # weights and biases of the norm and of the heads


@pytest.mark.parametrize("kind", [BradleyTerryReward, TrunkEnsemble])
def test_a_model_of_transformers_is_a_trunk(kind):
    transformers = pytest.importorskip("transformers", reason="needs the text extra")
    from prefenvs.tasks.text.lm import TransformersModel

    config = transformers.GPT2Config(
        vocab_size=4, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = kind(TransformersModel(transformers.GPT2LMHeadModel(config), eos=0, pad=0), rng=rng(), members=2)
    expected = model.members(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(model.members(pad(PROMPTS, (2, 0)), COMPLETIONS), expected)
    model.loss(Query(segments()), Label(one_hot(np.array([0, 1, 1])))).sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lm_head" not in name)


def questions(task, n, random):
    """N pairs of random completions of a prompt, answered by an error-free teacher."""
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=2 * n, view="completion")
    ids = np.repeat(random.choice(task.prompts("train"), n), 2)
    prefenvs.feedback(envs)
    before, _ = envs.reset(seed=0, options={"prompt_id": ids})
    listed = task.completions()
    actions = listed[random.integers(len(listed), size=2 * n)]
    after, _, terminated, truncated, infos = envs.step(actions)
    shown = Segments.of_step(before, actions, after, terminated, truncated, infos["segment_id"], "TextEnum")
    pairs = pairs_within(np.repeat(np.arange(n), 2))
    query = Query(shown[pairs.ravel()])
    return query, prefenvs.feedback(envs).ask(query)


def train(model, data, epochs=5, seed=0, learning_rate=3e-3):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    return fit(model, optimizer, data, rng=rng(seed), epochs=epochs, stop_accuracy=1.1)


class Table(torch.nn.Module):
    """A language model whose stream is a table of all prefixes: a reward model on it can be any function of them."""

    eos = pad = 0
    width = 8

    def __init__(self):
        super().__init__()
        self.rows = torch.nn.Embedding(4**6, 8)
        torch.nn.init.normal_(self.rows.weight, generator=rng())

    def hidden(self, prompts, completions):
        codes = [torch.cat([prompts[:, -2:], completions[:, :t]], 1) for t in range(completions.shape[1] + 1)]
        codes = [pad(code, (0, 6 - code.shape[1])) for code in codes]
        return self.rows((torch.stack(codes, 1) * 4 ** torch.arange(6)).sum(-1))


def pairs_of_all(task, n, random):
    """N pairs of any completions of a training prompt as a query, with their true rewards (n, 2)."""
    table, listed = task.reward_table(), task.completions()
    prompts, chosen = random.choice(task.prompts("train"), n), random.integers(len(listed), size=(n, 2))
    shown = torch.from_numpy(task.language.prompt_tokens[prompts.repeat(2)])
    return Query(segments(shown, torch.from_numpy(listed[chosen.ravel()]))), table[prompts[:, None], chosen]


@pytest.mark.parametrize(
    ("kind", "n", "least_rank"), [("law", 15_000, 0.99), ("sampled", 40_000, 0.95), ("best", 15_000, 0.95)]
)
def test_many_labels_recover_the_differences_of_the_true_rewards(kind, n, least_rank):
    task, random = TextEnum(), np.random.default_rng(0)
    query, rewards = pairs_of_all(task, n, random)
    law = 1 / (1 + np.exp(rewards[:, ::-1] - rewards))
    first = {
        "law": law[:, 0],
        "sampled": random.random(len(law)) < law[:, 0],
        "best": (np.sign(law[:, 0] - 0.5) + 1) / 2,
    }
    label = Label(np.stack([first[kind], 1 - first[kind]], 1).astype(float), soft=kind == "law")
    model, data = BradleyTerryReward(Table(), rng=rng()), TextPreferences()
    data.add(model, query, label)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    report = fit(model, optimizer, data, rng=rng(), epochs=8, batch=1000, stop_accuracy=1.1)
    prompts, listed = task.prompts("train"), torch.from_numpy(task.completions())
    shown = torch.from_numpy(task.language.prompt_tokens[prompts])
    with torch.no_grad():
        learned = model.score(shown.repeat_interleave(len(listed), 0), listed.repeat(len(prompts), 1))
    learned, gold = learned.view(len(prompts), -1).numpy(), task.reward_table()[prompts]
    ranks = [spearman(*pair) for pair in zip(learned, gold, strict=True)]
    assert min(ranks) > least_rank
    if kind != "best":  # Bradley-Terry is the teacher's own law, so differences come out in its unit
        centred = [table - table.mean(1, keepdims=True) for table in (learned, gold)]
        assert (centred[0] * centred[1]).sum() / (centred[1] ** 2).sum() == pytest.approx(1.0, abs=0.1)
    if kind == "best":
        assert report.held_out_accuracy > 0.95


@pytest.mark.slow
def test_a_decoder_learns_what_reviews_are_worth_and_not_by_their_length():
    task, random = make_task(TASKS["TextSentiment"]), np.random.default_rng(0)
    language = task.language
    ids, tokens = language.demonstrate(30_000, random)
    order = np.argsort(ids, kind="stable")
    first = random.permutation(np.flatnonzero(np.diff(ids[order]) == 0))[:1500]  # neighbours share a prompt
    rows = order[np.stack([first, first + 1], 1)].ravel()
    rewards = task.rewards(ids[rows], tokens[rows]).reshape(-1, 2)
    winners = np.where(rewards[:, 0] == rewards[:, 1], -1, rewards.argmax(1))
    query = Query(completion_segments(language.prompt_tokens[ids[rows]], tokens[rows], language))
    model = BradleyTerryReward(pretrain(language, cache=False, steps=200, width=64), rng=rng())
    data = TextPreferences(held_out_every=5)
    data.add(model, query, Label(one_hot(winners)))
    report = train(model, data, epochs=4, learning_rate=1e-3)
    assert report.held_out_accuracy > max(0.7, report.length_accuracy + 0.2)


def test_fits_repeat_and_report_what_length_alone_would_score():
    reports = []
    for _ in range(2):
        model, data = BradleyTerryReward(language_model(), rng=rng(), members=2), TextPreferences()
        data.add(model, *questions(TextEnum(), 200, np.random.default_rng(1)))
        reports.append((train(model, data, epochs=1), model.head.detach()))
    assert reports[0][0] == reports[1][0]
    assert torch.equal(reports[0][1], reports[1][1])
    held = data.split()[1]
    longest = data.lengths[held].argmax(1) == data.choice[held].argmax(1)
    even = data.lengths[held, 0] == data.lengths[held, 1]
    expected = torch.where(even, 0.5, longest.float()).mean()
    assert reports[0][0].length_accuracy == pytest.approx(float(expected))
    assert model.trained
    torch.testing.assert_close(model.level, model.raw_scores(
        data.prompts.flatten(0, 1), data.completions.flatten(0, 1)).mean(1).detach())  # fmt: skip


def test_length_alone_scores_what_it_deserves():
    lengths = torch.tensor([[3, 1], [1, 3], [2, 2], [5, 1]])
    choice = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert length_accuracy(lengths, choice) == pytest.approx((1 + 0 + 0.5) / 3)
    assert np.isnan(length_accuracy(lengths[3:], choice[3:]))


def test_prompts_of_different_widths_are_held_together_and_survive_a_round_trip():
    model, data = KINDS["one head"](), TextPreferences()
    label = Label(one_hot(np.array([0, 1, 1])))
    data.add(model, Query(segments()), label)
    data.add(model, Query(segments(pad(PROMPTS, (2, 0)))), label)
    with pytest.raises(ValueError, match="room for 3 tokens, those held for 4"):
        data.add(model, Query(segments(completions=COMPLETIONS[:, :3])), label)
    assert data.prompts.shape[:2] == (6, 2)
    sums = data.sums(model, torch.arange(6))
    torch.testing.assert_close(sums[:, :3], sums[:, 3:])
    torch.testing.assert_close(sums[0, :3].flatten(), model.score(PROMPTS, COMPLETIONS))
    copy = TextPreferences()
    copy.load_state(data.state(), torch.device("cpu"))
    torch.testing.assert_close(copy.sums(model, torch.arange(6)), sums)


def test_both_views_of_a_completion_and_tensors_are_read_alike():
    model = KINDS["one head"]()
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=4, view="token", autoreset_mode="SameStep")
    store = prefenvs.SegmentStore(envs.single_observation_space, envs.single_action_space, 4)
    prefenvs.feedback(envs)
    observations, _ = envs.reset(seed=0)
    actions = np.array([1, 2, 3, 1])
    for t in range(4):
        after, _, terminated, truncated, infos = envs.step(actions)
        ends, ids = step_ends(after, infos)
        store.add(observations, actions, ends, terminated, truncated, ids)
        observations = after
        assert terminated.all() == (t == 3)
    windows = store.sample(20, 4, np.random.default_rng(0))
    windows = windows[windows.ids[:, 2] == 0]  # the others begin within the completion
    assert len(windows) > 1
    scores = model.segment(windows)
    torch.testing.assert_close(model.segment(windows.torch()), scores)
    shown = torch.from_numpy(windows.observations["tokens"][:, 0, :2])
    torch.testing.assert_close(model.score(shown, torch.from_numpy(windows.actions)), scores)
