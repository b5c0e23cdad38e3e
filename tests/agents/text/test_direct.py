"""Direct alignment by every loss of the registry, from the teacher's answers and from given pairs."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefenvs
from prefenvs import Label, Query
from prefenvs.agents.text.direct import QUANTILES, DirectAlignment, DirectConfig
from prefenvs.agents.text.losses import PAIR_LOSSES
from prefenvs.agents.text.pair_logps import READS, pair_logps, with_reference
from prefenvs.agents.text.preference_pairs import PreferencePairs, ask_pairs
from prefenvs.agents.text.rewards import TextPreferenceConfig
from prefenvs.agents.text.rso import RSO
from prefenvs.tasks.text.enumerable import TextEnum
from prefenvs.tasks.text.lm import Decoder, Tabular

TASK = TextEnum()
LANGUAGE = TASK.language
REWARDS = torch.as_tensor(TASK.reward_table(), dtype=torch.float32)


def envs(**settings):
    return gym.make_vec("prefenvs/TextEnum-v0", num_envs=32, view="completion", **settings)


def table(seed=0):
    return Tabular.of(LANGUAGE, seed=seed)


def reward(prompts, completions):
    """The true reward, by looking prompts up."""
    ids = (LANGUAGE.prompt_tokens[None] == prompts.numpy()[:, None]).all(-1).argmax(1)
    return torch.as_tensor(TASK.rewards(ids, completions.numpy()))


def learner(loss="dpo", *, budget=120, steps=4, **changes):
    arguments = {"config": DirectConfig(learning_rate=1e-2, batch_size=30), "device": "cpu", "seed": 0, **changes}
    if loss in ("odpo", "infonca"):
        arguments["reward"] = reward
    if loss == "tgdpo":
        arguments["guide"] = table(seed=5)
    return DirectAlignment(table(), envs(budget=budget), loss=loss, **arguments).learn(30 * steps)


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_every_loss_trains_and_lowers_itself_on_its_own_pairs(loss):
    trained = learner(loss, steps=40 if loss == "dpop" else 8)  # DPOP has a kink where it begins
    pairs, arguments = trained.pairs, trained._running(trained.pairs)

    def value(policy):
        logps = pair_logps(policy, trained.reference, pairs, trained.reads, trained.guide)
        losses = PAIR_LOSSES["dpo" if loss == "wpo" else loss](logps, **arguments)  # the weight of WPO moves too
        return float((pairs.weight * losses).detach().sum() / pairs.weight.sum())

    assert prefenvs.feedback(trained.envs).asked == 120
    assert value(trained.policy) < value(trained.reference)


def test_dpo_learns_from_the_teacher_what_is_better():
    trained = learner(budget=600, steps=100, config=DirectConfig(learning_rate=3e-2, batch_size=30))

    def worth(policy):
        prompts = torch.from_numpy(LANGUAGE.prompt_tokens[LANGUAGE.prompts("train")]).repeat(100, 1)
        return reward(prompts, policy.sample(prompts, 4, torch.Generator().manual_seed(0)).tokens).mean()

    assert worth(trained.policy) > worth(trained.reference) + 0.5


def test_pairs_follow_the_answers():
    prompts = torch.tensor([[1, 1], [1, 2], [1, 3], [2, 1]])
    first, second = torch.arange(4)[:, None], 10 + torch.arange(4)[:, None]
    share = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.25, 0.75]])
    pairs = PreferencePairs.weighted(prompts, first, second, share)
    assert pairs.chosen[:, 0].tolist() == [0, 1, 11, 3, 13]  # the third question has no answer
    assert pairs.rejected[:, 0].tolist() == [10, 11, 1, 13, 3]
    assert pairs.weight.tolist() == [1.0, 0.5, 0.5, 0.25, 0.75]
    assert pairs.prompts.tolist() == [[1, 1], [1, 2], [1, 2], [2, 1], [2, 1]]


def test_asked_pairs_are_the_teacher_s_answers_about_what_was_written():
    asker = DirectAlignment(table(), envs(budget=50), device="cpu")
    query, label = ask_pairs(asker, 50, torch.Generator().manual_seed(0))
    pairs = PreferencePairs.of(query, label, LANGUAGE)
    assert (pairs.chosen != pairs.rejected).any(1).all()
    better = reward(pairs.prompts, pairs.chosen) - reward(pairs.prompts, pairs.rejected)
    assert (better[pairs.weight == 1] > 0).all()
    assert len(label) == 50
    skipped = Label(np.full((50, 2), np.nan))
    assert len(PreferencePairs.of(query, skipped, LANGUAGE)) == 0
    with pytest.raises(ValueError, match="expected pairs: k=2"):
        PreferencePairs.of(Query(query.segments, k=4), label, LANGUAGE)


def test_a_pair_of_completions_of_two_prompts_is_refused():
    asker = DirectAlignment(table(), envs(), device="cpu")
    written = asker.write(np.repeat(np.arange(8), 4), asker.reference).segments[[0, 1, 2, 4]]
    one, two = (LANGUAGE.decode(LANGUAGE.prompt_tokens[i]) for i in (0, 1))
    with pytest.raises(ValueError, match=f"question 1 shows completions of two prompts, '{one}' and '{two}'"):
        PreferencePairs.of(Query(written), Label(np.eye(2)), LANGUAGE)
    assert len(PreferencePairs.of(Query(written[:2]), Label(np.eye(2)[:1]), LANGUAGE)) == 1


@pytest.mark.parametrize(("budget", "asked"), [(1040, 1040), (None, 1000)])
def test_by_default_the_whole_budget_is_asked(budget, asked):
    asker = DirectAlignment(table(), envs(budget=budget), device="cpu")
    asker.prepare()
    assert prefenvs.feedback(asker.envs).asked == asked


def test_log_probabilities_are_those_of_the_two_models():
    policy, reference = (Decoder(4, 6, layers=1, width=16, heads=2, seed=seed) for seed in (0, 1))
    rng = torch.Generator().manual_seed(0)
    prompts = torch.from_numpy(LANGUAGE.prompt_tokens)
    chosen, rejected = (reference.sample(prompts, 4, rng).tokens for _ in range(2))
    pairs = with_reference(reference, PreferencePairs(prompts, chosen, rejected, torch.ones(8)), batch=3)
    found = pair_logps(policy, reference, pairs, "sequential_kl")
    torch.testing.assert_close(found.policy_chosen, policy.logprobs(prompts, chosen).sum(1))
    torch.testing.assert_close(found.reference_rejected, reference.logprobs(prompts, rejected).sum(1))
    lengths = (reference.logprobs(prompts, rejected) != 0).sum(1)
    assert found.rejected_tokens.tolist() == lengths.tolist()
    same = pair_logps(reference, reference, pairs, "sequential_kl")
    torch.testing.assert_close(same.margin, torch.zeros(8))
    torch.testing.assert_close(same.chosen_sequential_kl, torch.zeros(8))
    assert (found.chosen_sequential_kl > 0).all()


@pytest.mark.parametrize("reads", [None, "guide", "log_collision", "sequential_kl"])
def test_gradients_are_finite_where_another_token_than_the_end_pads(reads):
    policy, reference, guide = (Decoder(5, 6, layers=1, width=16, heads=2, eos=1, seed=seed) for seed in range(3))
    prompts, rng = torch.tensor([[2, 3], [4, 2]]).repeat(4, 1), torch.Generator().manual_seed(0)
    chosen, rejected = (reference.sample(prompts, 4, rng).tokens for _ in range(2))
    assert (chosen == 0).any()
    pairs = with_reference(reference, PreferencePairs(prompts, chosen, rejected, torch.ones(8)))
    found = pair_logps(policy, reference, pairs, reads, guide)
    values = [value for value in vars(found).values() if torch.is_tensor(value)]
    assert all(torch.isfinite(value).all() for value in values)
    sum(value.sum() for value in values).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in policy.parameters())


@pytest.mark.parametrize("loss", QUANTILES)
def test_losses_over_quantiles_leave_ties_out(loss):
    prompts = torch.from_numpy(LANGUAGE.prompt_tokens)
    first, second = torch.ones(8, 4, dtype=torch.int64), torch.full((8, 4), 2)
    share = torch.tensor([[1.0, 0.0]] * 5 + [[0.5, 0.5]] * 3)
    pairs = PreferencePairs.weighted(prompts, first, second, share)
    trained = DirectAlignment(table(), envs(), loss=loss, pairs=pairs, device="cpu").learn(5)
    assert len(trained.pairs) == 5


@pytest.mark.parametrize("loss", ["dpo", "bco", "beta_dpo"])
def test_a_resumed_learner_goes_on_bit_for_bit(loss):
    unbroken, first = learner(loss, steps=7), learner(loss, steps=3)
    resumed = learner(loss, steps=0)
    resumed.prepare()
    resumed.load_state(first.state())
    resumed.learn(4 * 30, reset_num_timesteps=False)
    assert torch.equal(resumed.policy.table, unbroken.policy.table)
    other = learner(loss, steps=7, seed=1)
    assert not torch.equal(other.policy.table, unbroken.policy.table)


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match="Did you mean 'dpo'"):
        DirectAlignment(table(), envs(), loss="dpoo")
    with pytest.raises(ValueError, match=r"reads scores and has none\. Pass reward="):
        DirectAlignment(table(), envs(), loss="odpo")
    with pytest.raises(ValueError, match="Pass guide="):
        DirectAlignment(table(), envs(), loss="tgdpo")
    with pytest.raises(TypeError, match="whole completions in batches"):
        DirectAlignment(table(), gym.make_vec("prefenvs/TextEnum-v0", num_envs=2))
    with pytest.raises(ValueError, match="Expected 'decoder' or a LanguageModel"):
        DirectAlignment("gpt", envs())


@pytest.mark.parametrize(
    ("cls", "arguments", "options", "words"),
    [
        (DirectAlignment, {}, {"betta": 1.0}, "options of loss='dpo': option='betta' is not known.*'beta'"),
        (DirectAlignment, {"loss": "bco"}, {"shift": 1.0}, "option='shift' is not known"),  # which the learner keeps
        (DirectAlignment, {}, {"beta": "x"}, "loss='dpo' cannot be computed with options={'beta': 'x'}"),
        (RSO, {}, {"betta": 1.0}, "option='betta' is not known"),
        (RSO, {"preferences": TextPreferenceConfig(20, "pairwise")}, {}, "PairwisePreference compares completions and"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_asked(cls, arguments, options, words):
    asked = envs(budget=20)
    with pytest.raises(ValueError, match=words):
        cls(table(), asked, config=cls.config_class(options=options), device="cpu", **arguments).learn(20)
    assert prefenvs.feedback(asked).asked == 0


def test_a_loss_of_one_s_own_is_tried_with_what_it_reads(monkeypatch):
    monkeypatch.setitem(PAIR_LOSSES, "mine", lambda pairs, *, beta=0.1: beta * pairs.need("chosen_score"))
    with pytest.raises(ValueError, match=r"This loss reads chosen_score.*Nothing was asked"):
        DirectAlignment(table(), envs(), loss="mine", device="cpu")
    monkeypatch.setitem(READS, "mine", "scores")
    assert DirectAlignment(table(), envs(), loss="mine", reward=reward, device="cpu").reads == "scores"


def some_pairs(n, seed=0):
    prompts = torch.from_numpy(LANGUAGE.prompt_tokens).repeat(n, 1)[:n]
    chosen, rejected = torch.randint(1, 4, (2, n, 4), generator=torch.Generator().manual_seed(seed))
    return PreferencePairs(prompts, chosen, rejected, torch.ones(n))


@pytest.mark.parametrize("asked", [True, False])
def test_a_loaded_learner_goes_on_with_its_pairs_and_asks_nothing_again(asked, tmp_path):
    config = DirectConfig(learning_rate=1e-2, batch_size=7)
    pairs = None if asked else some_pairs(20)

    def trained(steps):
        return DirectAlignment(table(), envs(budget=20), pairs=pairs, config=config, device="cpu").learn(steps)

    unbroken = trained(7 * 6)
    trained(7 * 3).save(tmp_path / "agent")
    loaded = DirectAlignment.load(tmp_path / "agent", envs(budget=20), policy=table(seed=3), device="cpu")
    before = loaded.num_timesteps
    loaded.learn(unbroken.num_timesteps - before, reset_num_timesteps=False)
    assert prefenvs.feedback(loaded.envs).asked == 0
    assert torch.equal(loaded.policy.table, unbroken.policy.table)


def test_learning_rates_rise_by_the_pairs_of_each_step_the_last_of_a_pass_being_fewer():
    config = DirectConfig(learning_rate=1.0, batch_size=3, warmup=0.8)
    made, rates = learner(config=config, pairs=some_pairs(4), steps=0), []
    made.learn(10, callback=lambda *_: rates.append(made.optimizer.param_groups[0]["lr"]) or True)
    np.testing.assert_allclose(rates, [3 / 8, 4 / 8, 7 / 8, 1.0, 1.0])  # steps of 3, 1, 3, 1 and 3 pairs


@pytest.mark.parametrize("count", [5, 20, 40])
def test_other_pairs_may_be_given_to_load(count, tmp_path):
    config = DirectConfig(batch_size=7)
    DirectAlignment(table(), envs(), pairs=some_pairs(20), config=config, device="cpu").learn(7).save(
        tmp_path / "agent"
    )
    others = some_pairs(count, seed=1)
    loaded = DirectAlignment.load(tmp_path / "agent", envs(), policy=table(), pairs=others, device="cpu")
    assert torch.equal(loaded.pairs.chosen, others.chosen)
    loaded.learn(100, reset_num_timesteps=False)


def test_a_guide_is_asked_for_again_when_loaded(tmp_path):
    learner("tgdpo").save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"with guide= of your own"):
        DirectAlignment.load(tmp_path / "agent", envs(), policy=table())
    assert DirectAlignment.load(tmp_path / "agent", envs(), policy=table(), guide=table(5), device="cpu").guide
