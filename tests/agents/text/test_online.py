"""What the loop of the online methods promises: exact ratios, invariances, control of the KL, resuming."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefenvs
from prefenvs.agents.reward_models.text import BradleyTerryReward, PairwisePreference
from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS
from prefenvs.agents.text.advantages import dr_grpo, penalised_token_rewards, rloo
from prefenvs.agents.text.direct import DirectAlignment, DirectConfig
from prefenvs.agents.text.evaluation import evaluate_text
from prefenvs.agents.text.exact import completion_probabilities
from prefenvs.agents.text.fine_tuning import BestOfN, FineTuningConfig, RewardWeighted
from prefenvs.agents.text.grpo import GRPO, GRPO_VARIANTS, GRPOConfig
from prefenvs.agents.text.online import OnlineLearner
from prefenvs.agents.text.p3o import P3O, P3OConfig
from prefenvs.agents.text.ppo import TokenPPO, TokenPPOConfig
from prefenvs.agents.text.preference_pairs import ask_pairs
from prefenvs.agents.text.rewards import TextPreferenceConfig
from prefenvs.agents.text.rloo import RLOO, RLOOConfig
from prefenvs.agents.text.rso import RSO, RSOConfig
from prefenvs.error import RunMismatch
from prefenvs.tasks.text.enumerable import TextEnum
from prefenvs.tasks.text.lm import Decoder, Tabular

TASK = TextEnum()
LANGUAGE = TASK.language
METHODS = [GRPO, RLOO, P3O, TokenPPO, RewardWeighted]


def envs(num_envs=32, **settings):
    return gym.make_vec("prefenvs/TextEnum-v0", num_envs=num_envs, view="completion", **settings)


def table(seed=0):
    return Tabular.of(LANGUAGE, seed=seed)


def decoder():
    return Decoder(LANGUAGE.vocab_size, 6, layers=1, width=16, heads=2)


def numbers(prompts):
    return (LANGUAGE.prompt_tokens[None] == prompts.numpy()[:, None]).all(-1).argmax(1)


def reward(prompts, completions):
    """The true reward in eighths, so that whole numbers can be added to it without rounding."""
    return torch.as_tensor(np.round(8 * TASK.rewards(numbers(prompts), completions.numpy())) / 8)


def made(cls, policy=None, *, config=None, num_envs=32, **arguments):
    settings = config or cls.config_class(learning_rate=1e-2)
    arguments = {"reward": reward, "seed": 0, "device": "cpu", **arguments}
    return cls(policy or table(), envs(num_envs), config=settings, **arguments)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("make", [table, decoder])
def test_the_ratio_of_the_first_step_is_exactly_1(make, temperature):
    logged, learner = {}, made(GRPO, make(), config=GRPOConfig(temperature=temperature))
    experience = learner.roll_out()
    now = learner.policy.logprobs(experience.prompts, experience.tokens, temperature)
    assert torch.equal((now - experience.logps).exp(), torch.ones(32, 4))
    assert torch.equal(experience.reference_logps, now)
    assert (experience.logps[experience.mask] < 0).all()
    learner.learn(32, callback=lambda *_: logged.update(learner.logger.name_to_value))
    assert logged["train/ratio_deviation"] == logged["rollout/kl"] == 0.0


def test_rollouts_are_drawn_at_their_temperature():
    learner = made(GRPO, config=GRPOConfig(temperature=0.5))
    rng = torch.Generator().manual_seed(0)
    prompts = torch.from_numpy(LANGUAGE.prompt_tokens[learner.draw_prompts(8, rng)])
    expected = learner.policy.sample(prompts, 4, rng, 0.5)
    experience = learner.roll_out()
    assert torch.equal(experience.tokens, expected.tokens)
    assert torch.equal(experience.logps, expected.logprobs)
    with pytest.raises(ValueError, match=r"temperature=0\.0, expected more than 0"):
        GRPOConfig(temperature=0.0)


@pytest.mark.parametrize(
    ("rate", "warmup", "shares"),
    [
        ("lin_1e-2", 0.0, [8, 7, 6, 5, 4, 3, 2, 1]),
        ("lin_1e-2", 0.5, [2, 4, 6, 8, 8, 6, 4, 2]),
        (1e-2, 0.05, [8] * 8),
        (1e-2, 0.5, [2, 4, 6, 8, 8, 8, 8, 8]),
    ],
)
def test_learning_rates_rise_over_the_warm_up_and_then_stay_or_fall(rate, warmup, shares):
    config = TokenPPOConfig(learning_rate=rate, critic_learning_rate=1e-3, warmup=warmup, epochs=1)
    learner, rates = made(TokenPPO, config=config), []

    def note(*_):
        rates.append([group["lr"] for group in learner.optimizer.param_groups])
        return True

    learner.learn(32 * 8, callback=note)
    np.testing.assert_allclose([policy for policy, _ in rates], 1e-2 * np.array(shares) / 8)
    assert [critic for _, critic in rates[4:]] == [1e-3] * 4


def test_learning_rates_of_replaced_settings_are_those_of_the_next_iteration():
    learner = made(TokenPPO, config=TokenPPOConfig(learning_rate=1e-2, epochs=1)).learn(32)
    learner.config = dataclasses.replace(learner.config, learning_rate=1e-5, critic_learning_rate=0.0)
    learner.learn(32)
    assert [group["lr"] for group in learner.optimizer.param_groups] == [1e-5, 0.0]


@pytest.mark.parametrize("rate", ["1e-3", "lin_", "lin_x", "exp_1e-3", -1e-3, float("nan")])
def test_learning_rates_that_are_none_are_refused_at_once(rate):
    for name in ("learning_rate", "critic_learning_rate"):
        with pytest.raises(ValueError, match=f'learning rate {rate!r}, expected a number .* or "lin_1e-3"'):
            made(TokenPPO, config=TokenPPOConfig(**{name: rate}))
    with pytest.raises(ValueError, match=r"warmup=1, expected a share of the run in \[0, 1\)"):
        GRPOConfig(warmup=1)


@pytest.mark.parametrize("cls", [RLOO, GRPO, P3O])
def test_the_reward_less_the_kl_is_the_sum_of_what_ppo_pays_its_tokens(cls):
    extra = {"kl": "reward", "advantage": "dr_grpo"} if cls is GRPO else {}
    learner = made(cls, config=cls.config_class(beta=0.3, learning_rate=0.1, **extra)).learn(32 * 5)
    e = learner.roll_out()
    paid = penalised_token_rewards(e.rewards, e.logps, e.reference_logps, e.mask, beta=0.3).sum(-1)
    assert (paid - e.rewards).abs().max() > 0.01
    torch.testing.assert_close(e.sequence_rewards(0.3), paid)
    grouped = paid.reshape(-1, learner.config.group)
    if cls is P3O:  # which subtracts: only differences count
        targets = e.targets["rewards"].reshape(-1, 2)
        torch.testing.assert_close(targets[:, 0] - targets[:, 1], grouped[:, 0] - grouped[:, 1])
    else:
        expected = {RLOO: rloo, GRPO: dr_grpo}[cls](grouped)
        torch.testing.assert_close(e.targets["advantages"].reshape(expected.shape), expected)


@pytest.mark.parametrize("clipping", ["separate", "joint"])
def test_p3o_takes_the_same_path_when_each_prompt_s_reward_is_moved(clipping):
    offsets = torch.as_tensor(np.random.default_rng(0).normal(0, 5, 8).round())

    def moved(prompts, completions):
        return reward(prompts, completions) + offsets[numbers(prompts)]

    config = P3OConfig(learning_rate=1e-2, clipping=clipping, epochs=2, batch_size=8)
    plain, other = (made(P3O, config=config, reward=r).learn(32 * 6) for r in (reward, moved))
    assert same(plain, other)
    assert not same(plain, made(P3O, config=config))
    first, second = (made(TokenPPO, reward=r).learn(32 * 6) for r in (reward, moved))
    assert not same(first, second)


def test_ppo_without_reward_stays_where_it_is():
    """A table, because Adam makes whole steps of gradients that are rounding alone, as a network's are."""
    learner = made(TokenPPO, reward=lambda prompts, completions: torch.zeros(len(prompts)))
    learner.learn(32 * 4)
    kl = (lambda e: (e.logps - e.reference_logps).sum(-1))(learner.roll_out())
    assert torch.equal(kl, torch.zeros(32))


@pytest.mark.parametrize("cls", METHODS)
def test_the_same_seed_gives_the_same_numbers_and_a_resumed_run_those_of_an_unbroken_one(cls):
    controller = "adaptive_per_batch" if cls.on_policy else "fixed"
    config = cls.config_class(learning_rate=1e-2, epochs=2, batch_size=16, kl_controller=controller)
    settings = {"config": dataclasses.replace(config, transform="mean_std")}
    unbroken, first = made(cls, **settings).learn(32 * 5), made(cls, **settings).learn(32 * 2)
    resumed = made(cls, **settings)
    resumed.load_state(first.state())
    assert same(resumed.learn(32 * 3, reset_num_timesteps=False), unbroken)
    assert resumed.beta == unbroken.beta
    assert (unbroken.beta != config.beta) == cls.on_policy
    assert resumed.num_timesteps == unbroken.num_timesteps == 160
    assert not same(made(cls, **settings, seed=1).learn(32 * 5), unbroken)


@pytest.mark.parametrize("cls", [*METHODS, BestOfN, DirectAlignment, RSO])
def test_forward_rows_bounds_every_pass_without_gradient_and_changes_no_number(cls, monkeypatch):
    """A table, whose numbers do not depend on how many are looked up at a time."""
    config, seen, found = {"learning_rate": 1e-2}, [], []
    if cls is RSO:
        config |= {"pairs": 40, "candidates": 8}
    if issubclass(cls, OnlineLearner):
        config |= {"transform": "par", "references": 4}
    for name in ("sample", "logprobs", "hidden"):
        method = getattr(Tabular, name)

        def counted(model, prompts, *arguments, method=method, draws=name == "sample", **options):
            seen.extend([len(prompts)] * (draws or not torch.is_grad_enabled()))
            return method(model, prompts, *arguments, **options)

        monkeypatch.setattr(Tabular, name, counted)
    for rows in (None, 10):
        seen.clear()
        settings = {"config": cls.config_class(**config, forward_rows=rows), "device": "cpu"}
        settings |= {"loss": "xpo"} if cls is DirectAlignment else {}
        scores = BradleyTerryReward(table(seed=1), rng=torch.Generator().manual_seed(0))
        learner = cls(table(), envs(budget=60), reward=scores, **settings).learn(64)
        found.append((learner, evaluate_text(learner, "prefenvs/TextEnum-v0", 64), max(seen)))
    (whole, before, most), (parts, after, bound) = found
    assert same(whole, parts)
    assert before == after
    assert bound <= 10 < most
    with pytest.raises(ValueError, match="forward_rows=0, expected 1 or more"):
        cls.config_class(forward_rows=0)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cls", [GRPO, TokenPPO])
def test_a_loaded_learner_of_a_partly_frozen_policy_goes_on_as_an_unbroken_one(cls, given, tmp_path):
    def frozen():
        torch.manual_seed(0)
        policy = decoder()
        policy.words.requires_grad_(False)
        return policy

    unbroken = made(cls, frozen()).learn(32 * 4)
    made(cls, frozen()).learn(32 * 2).save(tmp_path / "agent")
    policy = decoder() if given else None
    loaded = cls.load(tmp_path / "agent", envs(), reward=reward, policy=policy, device="cpu")
    loaded.learn(32 * 2, reset_num_timesteps=False)
    assert [n for n, p in loaded.policy.named_parameters() if not p.requires_grad] == ["words"]
    assert same(loaded, unbroken)
    with pytest.raises(RunMismatch, match="the saved optimiser trained other weights than the 16 that learn here"):
        made(GRPO, decoder()).load_state(made(GRPO, frozen()).learn(32).state())


@pytest.mark.parametrize("deterministic", [False, True])
def test_predict_changes_nothing_of_what_is_learned_and_goes_on_where_it_was(deterministic):
    shown, _ = envs().reset(seed=0)
    asked = made(RLOO)
    asked.predict(shown, deterministic=deterministic)
    assert same(asked.learn(64), made(RLOO).learn(64))
    resumed = made(RLOO)
    resumed.load_state(asked.state())
    first, again, second = (learner.predict(shown)[0] for learner in (asked, resumed, asked))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


@pytest.mark.parametrize("variant", GRPO_VARIANTS)
def test_every_variant_of_grpo_raises_the_reward(variant):
    config = dataclasses.replace(GRPO_VARIANTS[variant], learning_rate=5e-2)
    learner = made(GRPO, config=config, num_envs=64).learn(64 * 30)
    rewards = TASK.reward_table()[:6]
    before, after = (
        (completion_probabilities(m, TASK)[:6] * rewards).sum(1).mean() for m in (learner.reference, learner.policy)
    )
    assert after > before + 0.5


@pytest.mark.parametrize("aggregation", ["bnpo", "dapo"])
def test_dapo_weighs_every_token_of_a_rollout_alike_and_bnpo_those_of_its_minibatch(aggregation):
    config = GRPOConfig(aggregation=aggregation, batch_size=8, beta=0.0)
    learner = made(GRPO, config=config)
    experience = learner.roll_out()
    losses = -experience.targets["advantages"].double() * experience.mask  # where ratios are 1
    counts = experience.mask.sum(-1)
    assert len(set(counts.reshape(4, 8).sum(1).tolist())) > 1, "minibatches of different length"
    for rows in torch.arange(32).split(8):  # 4 minibatches of a rollout's tokens, or each its own
        tokens = counts.sum() / 4 if aggregation == "dapo" else counts[rows].sum()
        batch = experience[rows]
        torch.testing.assert_close(learner.minibatch_loss(batch, batch.logps).double(), losses[rows].sum() / tokens)


@pytest.mark.parametrize(("batch_size", "differ"), [(8, True), (None, False)])
def test_dapo_and_bnpo_differ_where_a_rollout_is_cut(batch_size, differ):
    def learned(aggregation):
        return made(GRPO, config=GRPOConfig(aggregation=aggregation, batch_size=batch_size, beta=0.0)).learn(64)

    one, other = (learned(name).policy.table for name in ("bnpo", "dapo"))
    assert ((one - other).abs().max() > 1e-6) == differ


def test_an_adaptive_controller_raises_beta_while_the_kl_is_above_its_target_and_lowers_it_below():
    config = RLOOConfig(learning_rate=0.2, beta=0.1, kl_controller="adaptive", kl_target=0.01, kl_horizon=200)
    learner = made(RLOO, config=config).learn(32 * 10)
    assert learner.beta > 0.1
    high = dataclasses.replace(config, kl_target=1000.0)
    assert made(RLOO, config=high).learn(32).beta == pytest.approx(0.1 * (1 - 0.2 * 32 / 200))


@pytest.mark.parametrize("cls", [RewardWeighted, BestOfN])
def test_where_the_reference_writes_no_kl_is_read_off_its_completions(cls):
    logged = {}
    learner = made(cls, config=cls.config_class(learning_rate=0.2))
    learner.learn(64, callback=lambda *_: logged.update(learner.logger.name_to_value))
    assert "rollout/proxy" in logged
    assert "rollout/kl" not in logged, "it would be 0, whatever was learned"
    with pytest.raises(ValueError, match=f"the reference writes for {cls.__name__}"):
        made(cls, config=cls.config_class(kl_controller="adaptive"))


def test_rewards_are_shaped_by_what_the_reference_earns():
    config = GRPOConfig(transform="par", references=4)
    learner = made(GRPO, config=config)
    learner.prepare()
    written = learner.transformed.references.completions
    assert written.shape == (8, 4, 4)
    prompts = torch.from_numpy(LANGUAGE.prompt_tokens).repeat_interleave(4, 0)
    held = reward(prompts, written.flatten(0, 1)).reshape(8, 4)
    experience = learner.roll_out()
    expected = (experience.proxy[:, None] - held[numbers(experience.prompts)]).sigmoid().mean(1).float()
    torch.testing.assert_close(experience.rewards, expected)
    with pytest.raises(ValueError, match="reads rewards of reference responses"):
        made(GRPO, config=GRPOConfig(transform="par")).roll_out()


def test_without_a_reward_it_asks_the_teacher_and_fits_one():
    ask = TextPreferenceConfig(600, reward_options={"members": 2}, epochs=20, learning_rate=1e-1)
    learner = GRPO(table(), envs(budget=600), preferences=ask, config=GRPOConfig(aggregate="worst_case"), device="cpu")
    learner.learn(32)
    assert prefenvs.feedback(learner.envs).asked == 600
    assert learner.report.accuracy > 0.8
    experience = learner.roll_out()
    members = learner.reward.members(experience.prompts, experience.tokens)
    torch.testing.assert_close(experience.proxy, members.amin(0))
    truth = reward(experience.prompts, experience.tokens)
    assert np.corrcoef(truth, learner.proxy(experience.prompts, experience.tokens))[0, 1] > 0.5


@pytest.mark.parametrize("name", ["trunk_ensemble", "implicit", "pairwise"])
def test_reward_models_by_name(name):
    ask = TextPreferenceConfig(60, reward_model=name, epochs=2)
    config = GRPOConfig(references=2, transform="par" if name != "pairwise" else "identity")
    learner = GRPO(decoder(), envs(budget=60), preferences=ask, config=config, device="cpu").learn(32)
    assert type(learner.reward).__name__ in ("TrunkEnsemble", "ImplicitReward", "PairwisePreference")
    experience = learner.roll_out()
    assert ((experience.rewards > 0) & (experience.rewards < 1)).all()


def test_through_the_evaluation_door_it_learns_from_the_true_reward():
    learner = GRPO(table(), envs(evaluation=True), device="cpu")
    experience = learner.roll_out()
    truth = TASK.rewards(numbers(experience.prompts), experience.tokens.numpy())
    np.testing.assert_allclose(experience.proxy, truth, rtol=1e-6)


@pytest.mark.parametrize("transform", ["tanh", "par"])
def test_the_true_reward_is_shaped_as_any_other(transform):
    config = GRPOConfig(transform=transform, references=3)
    seen = GRPO(table(), envs(evaluation=True), config=config, device="cpu")

    def paid(prompts, completions):
        return torch.as_tensor(TASK.rewards(numbers(prompts), completions.numpy()), dtype=torch.float32)

    shaped, expected = (learner.roll_out() for learner in (seen, made(GRPO, config=config, reward=paid)))
    assert torch.equal(shaped.proxy, expected.proxy)
    torch.testing.assert_close(shaped.rewards, expected.rewards)
    assert (shaped.rewards - shaped.proxy).abs().max() > 0.1
    assert seen.proxy(shaped.prompts, shaped.tokens) is None


def test_a_shaped_true_reward_goes_on_as_it_was():
    config = RLOOConfig(learning_rate=1e-2, transform="mean_std")
    first, unbroken, resumed = (RLOO(table(), envs(evaluation=True), config=config, device="cpu") for _ in range(3))
    resumed.load_state(first.learn(64).state())
    resumed.learn(96, reset_num_timesteps=False)
    assert same(resumed, unbroken.learn(160))


def test_the_best_of_n_is_chosen_by_the_true_reward_where_that_is_seen():
    learner = BestOfN(table(), envs(evaluation=True), device="cpu").learn(32)
    observations, _ = learner.envs.reset(seed=0, options={"prompt_id": np.arange(32) % 8})
    rewards = TASK.rewards(np.arange(32) % 8, learner.predict(observations)[0])
    alone = table().sample(torch.from_numpy(LANGUAGE.prompt_tokens).repeat(4, 1), 4, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"\[3, 3\] is no prompt of the task"):
        learner.transformed(torch.tensor([[3, 3]]), torch.ones(1, 4, dtype=torch.int64))
    assert rewards.mean() > TASK.rewards(np.arange(32) % 8, alone.tokens.numpy()).mean() + 0.5


def test_errors_say_how_to_mend_them():
    with pytest.raises(ValueError, match="no whole groups of 5"):
        made(RLOO, config=RLOOConfig(group=5))
    with pytest.raises(ValueError, match="expected 2"):
        P3OConfig(group=4)
    with pytest.raises(ValueError, match="Did you mean 'adaptive'"):
        made(RLOO, config=RLOOConfig(kl_controller="adaptiv"))
    with pytest.raises(ValueError, match="Did you mean 'par'"):
        made(RLOO, config=RLOOConfig(transform="parr"))
    with pytest.raises(ValueError, match="Did you mean 'grpo'"):
        GRPOConfig(advantage="grpoo")
    with pytest.raises(TypeError, match="is not a TokenPPOConfig"):
        TokenPPO(table(), envs(), config=RLOOConfig())
    with pytest.raises(ValueError, match="Did you mean 'worst_case'"):
        made(GRPO, config=GRPOConfig(aggregate="worst_cas"))
    with pytest.raises(ValueError, match="set references= to 1 or more"):
        made(GRPO, reward=PairwisePreference(table(), rng=torch.Generator())).roll_out()
    with pytest.raises(ValueError, match="no reward model yet"):
        BestOfN(table(), envs(), device="cpu").predict(envs().reset(seed=0)[0])
    assert TokenPPOConfig().clip == 0.2


def test_the_log_has_the_means_of_all_gradient_steps_of_a_rollout():
    learner = made(TokenPPO, config=TokenPPOConfig(learning_rate=1e-2, epochs=2, batch_size=16))
    losses, logged, descend = [], {}, learner.descend
    learner.descend = lambda loss: (losses.append(loss.item()), descend(loss))[1]
    learner.learn(32, callback=lambda *_: logged.update(learner.logger.name_to_value))
    assert len(losses) == 4
    assert logged["train/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert {"train/grad_norm", "train/ratio_deviation", "train/value_loss", "rollout/beta"} <= set(logged)


@pytest.mark.parametrize(
    ("settings", "preferences", "words"),
    [
        ({"transform": "par"}, {}, "transform='par' .* Set references= of a learner's config to 1 or more"),
        ({"transform": "saturate"}, {}, r"transform_options=\{\} lacks 'ceiling', which transform='saturate' needs"),
        ({"transform": "saturate", "transform_options": {"ceiling": "x"}}, {}, "'ceiling': 'x'} cannot shape a reward"),
        ({"transform": "sigmoid", "transform_options": {"slop": 2}}, {}, "option='slop' is not known.*'slope'"),
        ({"transform": "tanh", "transform_options": {"slope": 2}}, {}, "transform='tanh' takes no options"),
        ({"aggregate": "uncertainty_weighted"}, {}, "lacks 'unbiased', which aggregate='uncertainty_weighted' needs"),
        (
            {"aggregate": "uncertainty_weighted", "aggregate_options": {"unbiased": True}},
            {},
            r"makes nan of the 1 member\(s\) of this reward",
        ),
        ({}, {"reward_model": "pairwise"}, "PairwisePreference compares completions.* set references="),
        ({}, {"reward_model": "process"}, "reward_options={} lacks 'separators', which reward_model='process' needs"),
        ({}, {"reward_options": {"member": 5}}, "option='member' is not known.*Did you mean 'members'"),
        ({}, {"reward_options": {"members": "five"}}, "cannot be made with reward_options={'members': 'five'}"),
        ({}, {"reward_options": {"margin": 1.0}}, "a margin is for each unit of label.strength"),
    ],
)
@pytest.mark.filterwarnings("ignore:var")
def test_settings_that_do_not_suit_each_other_are_refused_before_anything_is_asked(settings, preferences, words):
    asked = envs(budget=20)
    with pytest.raises(ValueError, match=words):
        GRPO(
            table(),
            asked,
            config=GRPOConfig(**settings),
            preferences=TextPreferenceConfig(20, epochs=1, **preferences),
            device="cpu",
        ).learn(32)
    assert prefenvs.feedback(asked).asked == 0


def test_a_transform_of_one_s_own_takes_the_options_that_it_names(monkeypatch):
    def shifted(rewards, context, by=1.0, **others):
        return rewards + by + others.get("more", 0.0)

    monkeypatch.setitem(REWARD_TRANSFORMS, "shifted", shifted)
    config = GRPOConfig(transform="shifted", transform_options={"by": 2.0, "more": 3.0})
    experience = made(GRPO, config=config).roll_out()
    torch.testing.assert_close(experience.rewards, experience.proxy + 5)
    with pytest.raises(ValueError, match="option='context' is not known"):
        GRPOConfig(transform="shifted", transform_options={"context": None})


@pytest.mark.parametrize(
    ("config_class", "settings", "words"),
    [
        (RLOOConfig, {"beta": -1.0}, r"beta=-1.0, expected 0 or more"),
        (RLOOConfig, {"beta": float("nan")}, "beta=nan, expected 0 or more"),
        (RLOOConfig, {"epochs": 0}, "epochs=0, expected 1 or more"),
        (RLOOConfig, {"batch_size": 0}, "batch_size=0, expected 1 or more"),
        (RLOOConfig, {"batch_size": 10}, "batch_size=10 completions are no whole groups of 4"),
        (RLOOConfig, {"kl_target": 0.0}, "kl_target=0.0, expected more than 0"),
        (RLOOConfig, {"kl_horizon": 0}, "kl_horizon=0, expected more than 0"),
        (RLOOConfig, {"references": -1}, "references=-1, expected 0 or more"),
        (RLOOConfig, {"max_grad_norm": 0.0}, "max_grad_norm=0.0, expected more than 0"),
        (RLOOConfig, {"group": 1}, "group=1, expected 2 or more"),
        (GRPOConfig, {"group": 1}, "group=1, expected 2 or more"),
        (GRPOConfig, {"clip": -1.0}, "clip=-1.0, expected more than 0"),
        (GRPOConfig, {"clip_high": 0.0}, "clip_high=0.0, expected more than 0"),
        (P3OConfig, {"clip": 0.0}, "clip=0.0, expected more than 0"),
        (P3OConfig, {"epochs": 0}, "epochs=0, expected 1 or more"),
        (TokenPPOConfig, {"value_clip": -0.2}, "value_clip=-0.2, expected more than 0"),
        (TokenPPOConfig, {"trace": 1.5}, r"trace=1.5, expected a number in \[0, 1\]"),
        (FineTuningConfig, {"beta": 0.0}, "beta=0.0, expected more than 0"),
        (FineTuningConfig, {"beta": 0.0, "selection": "rejection"}, "beta=0.0, expected more than 0"),
        (FineTuningConfig, {"beta": -1.0, "selection": "best"}, "beta=-1.0, expected 0 or more"),
        (DirectConfig, {"batch_size": 0}, "batch_size=0, expected 1 or more"),
        (RSOConfig, {"candidates": 1}, "candidates=1, expected 2 or more"),
        (RSOConfig, {"batch_size": 0}, "batch_size=0, expected 1 or more"),
        (TextPreferenceConfig, {"queries": 0}, "queries=0, expected 1 or more"),
        (TextPreferenceConfig, {"queries": -5}, "queries=-5, expected 1 or more"),
        (TextPreferenceConfig, {"epochs": 0}, "epochs=0, expected 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(config_class, settings, words):
    with pytest.raises(ValueError, match=words):
        config_class(**settings)


@pytest.mark.parametrize("queries", [0, -5])
def test_no_questions_cannot_be_asked(queries):
    with pytest.raises(ValueError, match=f"queries={queries}, expected 1 or more"):
        ask_pairs(made(RLOO), queries, torch.Generator())


class AsksMore(GRPO):
    """Asks questions of its own, too, before the first iteration."""

    def begin(self):
        ask_pairs(self, 20, torch.Generator().manual_seed(self.seed + 50))
        super().begin()


@pytest.mark.parametrize("given", [reward, None])
def test_a_loaded_learner_begins_only_where_it_had_not_begun(given, tmp_path):
    ask = {"preferences": TextPreferenceConfig(20, epochs=1), "num_envs": 32}
    unbroken, first = (made(AsksMore, decoder(), reward=given, **ask) for _ in range(2))
    again = {} if given is None else {"reward": given}
    for steps, asked in ((0, 20 if given else 40), (32, 0)):
        if steps:
            first.learn(steps)
        first.save(tmp_path / "it")
        loaded = AsksMore.load(tmp_path / "it", envs(), device="cpu", **again)
        assert prefenvs.feedback(loaded.envs).asked == 0
        loaded.learn(64 - steps, reset_num_timesteps=False)
        assert prefenvs.feedback(loaded.envs).asked == asked
    assert same(loaded, unbroken.learn(64))
