"""Rewards and answers that are tables over all completions of a task."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from prefenvs.agents.reward_models.text import BradleyTerryReward
from prefenvs.agents.text.direct import DirectAlignment
from prefenvs.agents.text.exact import (
    ExactCurve,
    TableReward,
    completion_probabilities,
    draw_answered_pairs,
    fit_reward_table,
    one_hot,
    standardised,
    tree_logprobs,
)
from prefenvs.agents.text.rewards import TextPreferenceConfig, score
from prefenvs.agents.text.rloo import RLOO, RLOOConfig
from prefenvs.tasks.text.enumerable import TextBandit, TextEnum, all_completions
from prefenvs.tasks.text.lm import Decoder, Tabular
from prefenvs.teacher import Teacher

ASK = TextPreferenceConfig(queries=64)
TEACHER = Teacher(beta=1.0, scale="raw")


@pytest.mark.parametrize("make", [TextEnum, TextBandit])
def test_a_table_of_the_true_reward_pays_what_the_task_pays(make):
    task, rng = make(), np.random.default_rng(0)
    ids, listed = rng.integers(len(task.language.prompt_tokens), size=300), task.completions()
    tokens = listed[rng.integers(len(listed), size=300)]
    reward = TableReward(task, task.reward_table())
    paid = reward(torch.from_numpy(task.language.prompt_tokens[ids]), torch.from_numpy(tokens))
    np.testing.assert_array_equal(paid, task.rewards(ids, tokens))


def test_given_rewards_and_guides_are_moved_to_the_device_of_the_learner():
    """Meta tensors have no values, and refuse to be looked up in a table on the CPU as a GPU's do."""
    task, where = TextBandit(), {"device": "meta"}
    envs = gym.make_vec("prefenvs/TextBandit-v0", num_envs=8, view="completion", budget=10)
    shown = torch.empty(4, 2, dtype=torch.int64, **where), torch.empty(4, 1, dtype=torch.int64, **where)
    policy, guide, trunk = (Decoder(task.language.vocab_size, 3, layers=1, width=8, heads=2) for _ in range(3))
    for reward in (TableReward(task, task.reward_table()), BradleyTerryReward(trunk, rng=torch.Generator())):
        RLOO(policy, envs, reward=reward, **where)
        assert score(reward, *shown).device.type == "meta"
    DirectAlignment(policy, envs, loss="tgdpo", guide=guide, reward=TableReward(task, task.reward_table()), **where)
    assert guide.words.device.type == "meta"
    assert score(lambda prompts, completions: torch.zeros(4, dtype=torch.float64), *shown).device.type == "meta"


def test_learners_of_any_device_take_rewards_and_guides_from_the_cpu(device):
    task = TextBandit()
    envs = gym.make_vec("prefenvs/TextBandit-v0", num_envs=32, view="completion", budget=128)

    def given():
        return TableReward(task, task.reward_table())

    learner = RLOO(Tabular.of(task.language), envs, reward=given(), config=RLOOConfig(learning_rate=0.2), device=device)
    learner.learn(32 * 30)
    before, after = (completion_probabilities(model, task) for model in (learner.reference, learner.policy))
    assert ((after - before) * task.reward_table()).sum(1).mean() > 0.2
    for loss in ("odpo", "tgdpo"):
        policy, guide = (Tabular.of(task.language, seed=seed) for seed in range(2))
        learner = DirectAlignment(policy, envs, loss=loss, reward=given(), guide=guide, preferences=ASK, device=device)
        assert torch.isfinite(learner.learn(64).pairs.reference).all()


def test_pairs_are_drawn_by_the_law_without_replacement_and_answered_by_the_teacher():
    # One prompt, three completions. P({0, 1}) = .5 * .3 / .5 + .3 * .5 / .7, and so on.
    law, scores = np.array([[0.5, 0.3, 0.2]]), np.array([[0.0, 1.0, -0.5]])
    prompt, chosen, rejected = draw_answered_pairs(law, scores, 40_000, TEACHER, np.random.default_rng(0))
    assert not prompt.any()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        shown = np.isin(chosen, (one, other)) & np.isin(rejected, (one, other))
        p, q = law[0, [one, other]]
        assert shown.mean() == pytest.approx(p * q / (1 - p) + p * q / (1 - q), abs=0.01)
        wins = 1 / (1 + np.exp(scores[0, other] - scores[0, one]))
        assert (chosen[shown] == one).mean() == pytest.approx(wins, abs=0.02)
    assert (chosen != rejected).all()


def test_a_table_from_many_answers_is_the_centred_score():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(2, 4))
    answered = draw_answered_pairs(np.full((2, 4), 0.25), scores, 8_000, TEACHER, rng)
    table = fit_reward_table(*answered, one_hot(2, 4), ridge=1e-3)
    np.testing.assert_allclose(table, scores - scores.mean(1, keepdims=True), atol=0.15)


def test_a_table_is_where_the_gradient_of_its_objective_is_0():
    """One completion won three of four times: at the optimum 3 - 4 s(d) = ridge r, with d = 2 r."""
    answered = np.zeros(4, int), np.array([0, 0, 0, 1]), np.array([1, 1, 1, 0])
    table = fit_reward_table(*answered, one_hot(1, 3), ridge=0.5)
    gap = table[0, 0] - table[0, 1]
    assert 3 - 4 / (1 + np.exp(-gap)) == pytest.approx(0.5 * table[0, 0], abs=1e-6)
    assert table[0, 0] == pytest.approx(-table[0, 1], abs=1e-9)
    assert table[0, 2] == 0.0


def test_standardised_rewards_have_mean_0_and_variance_1_under_the_policy():
    rng = np.random.default_rng(2)
    law, rewards = rng.dirichlet(np.ones(5), 3), rng.normal(3.0, 4.0, (3, 5))
    found = standardised(law, rewards)
    assert (law * found).sum() / 3 == pytest.approx(0.0, abs=1e-12)
    assert (law * found**2).sum() / 3 == pytest.approx(1.0)
    np.testing.assert_allclose(standardised(law, 2 * rewards + 7), found)


def test_a_curve_notes_the_policy_as_it_is_and_stays_with_its_beginning():
    task = TextBandit()
    language, gold = task.language, task.reward_table()
    policy = Tabular.of(language)
    before = completion_probabilities(policy, task)
    curve = ExactCurve(policy, task, every=2, gold=gold)
    with torch.no_grad():
        policy.table.mul_(2.0)
    after = completion_probabilities(policy, task)
    assert curve() and curve()
    first, last = curve.rows
    assert first == {"iteration": 0, "kl": 0.0, "gold": pytest.approx((before * gold).sum(1).mean())}
    kl = (after * np.log(after / before)).sum(1).mean()
    assert last == {"iteration": 2, "kl": pytest.approx(kl), "gold": pytest.approx((after * gold).sum(1).mean())}


def test_a_table_that_is_linear_in_features_pays_alike_what_they_do_not_tell_apart():
    """One feature with 3 wins of 4, so 2 (3 - 4 s(2 w)) = ridge w for features 1 and -1."""
    features = np.array([[[1.0], [-1.0], [1.0]]])
    table = fit_reward_table(np.zeros(4, int), np.array([0, 2, 0, 1]), np.array([1, 1, 1, 2]), features, ridge=0.5)
    assert table[0, 0] == table[0, 2] == -table[0, 1]
    assert 2 * (3 - 4 / (1 + np.exp(-2 * table[0, 0]))) == pytest.approx(0.5 * table[0, 0], abs=1e-6)


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
    model = Tabular.of(language, seed=1)
    size, steps = language.vocab_size, language.max_new_tokens
    codes = []  # the beginnings without an end among those of the table
    for t in range(steps):
        tokens = np.indices((size,) * t).reshape(t, -1).T if t else np.zeros((1, 0), int)
        codes += [model.offsets[t] + i for i in np.flatnonzero((tokens != 0).all(1)).tolist()]
    found = tree_logprobs(model.table.detach().double()[:, codes], steps)
    np.testing.assert_allclose(found.exp().numpy(), completion_probabilities(model, task), atol=1e-6)


def test_the_table_of_a_curve_has_the_fall_from_the_peak_and_gold_at_kls_between_its_rows():
    task = TextBandit()
    policy = Tabular.of(task.language)
    curve = ExactCurve(policy, task, every=1, gold=task.reward_table())
    curve.rows = [{"iteration": i, "kl": float(i), "gold": gold} for i, gold in enumerate([0.0, 3.0, 2.0])]
    rows = curve.table((0.5, 1.5))
    assert [row["gold"] for row in rows] == [0.0, 3.0, 2.0]
    assert {(row["drop"], row["gold at 0.5"], row["gold at 1.5"]) for row in rows} == {(1.0, 1.5, 2.5)}
