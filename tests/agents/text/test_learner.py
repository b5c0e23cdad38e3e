"""Learners of one's own are made of public hooks, called in a stated order."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefenvs
from prefenvs import Label
from prefenvs.agents.reward_models.text import TEXT_REWARD_MODELS, BradleyTerryReward, TextPreferences
from prefenvs.agents.text.direct import DirectAlignment, DirectConfig
from prefenvs.agents.text.grpo import GRPO
from prefenvs.agents.text.learner import TextLearner
from prefenvs.agents.text.preference_pairs import PreferencePairs, ask_pairs
from prefenvs.agents.text.rewards import TextPreferenceConfig, learn_reward
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import Decoder, Tabular

LANGUAGE = language_of("TextEnum")


def envs(**settings):
    return gym.make_vec("prefenvs/TextEnum-v0", num_envs=32, view="completion", **settings)


CALLED = []


class Noted(TextLearner):
    """Notes which hooks are called; learns nothing."""

    def iterate(self):
        self.num_timesteps += self.envs.num_envs

    @classmethod
    def own_arguments(cls, own):
        CALLED.append("own_arguments")
        return super().own_arguments(own)


def noting(name, hook):
    def noted(self, *arguments):
        CALLED.append(name)
        return hook(self, *arguments)

    return noted


HOOKS = ("learning_rates", "trained", "begin", "next_size", "iterate")
FILED = ("own_settings", "unsaved_arguments", "own_state", "load_own_state")
for each in HOOKS + FILED:
    setattr(Noted, each, noting(each, getattr(Noted, each)))


def called():
    names = CALLED.copy()
    CALLED.clear()
    return names


def test_hooks_are_called_in_the_order_that_the_page_of_language_models_gives(tmp_path):
    learner = Noted(Tabular.of(LANGUAGE, seed=0), envs(), device="cpu")
    assert called() == ["learning_rates", "trained"]
    learner.learn(64)
    assert called() == ["begin", *["next_size", "learning_rates", "iterate"] * 2]
    learner.learn(32)
    assert called() == ["next_size", "learning_rates", "iterate"]
    learner.save(tmp_path / "it")
    assert called() == ["own_settings", "unsaved_arguments", "trained", "own_state"]
    Noted.load(tmp_path / "it", envs(), policy=Tabular.of(LANGUAGE, seed=1), device="cpu")
    assert called() == ["own_arguments", "learning_rates", "trained", "trained", "load_own_state"]


class Rounds(DirectAlignment):
    """Asks about fresh completions of the policy after each pass, which is then the reference."""

    round = 0

    def collect_pairs(self, rng):
        return PreferencePairs.of(*ask_pairs(self, 24, rng), self.language)

    def iterate(self):
        if self.num_timesteps >= 48 * (self.round + 1):
            self.round += 1
            self.reference.load_state_dict(self.policy.state_dict())
            rng = torch.Generator().manual_seed(100 + self.round)
            self.set_pairs(self.collect_pairs(rng), rng)
        super().iterate()

    def own_state(self):
        return {**super().own_state(), "round": np.array(self.round)}

    def load_own_state(self, state):
        super().load_own_state(state)
        self.round = int(state["round"])


def test_pairs_are_written_by_whom_the_caller_names():
    def sure(token):
        model = Tabular.of(LANGUAGE, seed=0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
                parameter[..., token] = 30.0
        return model

    learner = Noted(Tabular.of(LANGUAGE, seed=0), envs(), device="cpu")
    by_policy = Tabular.of(LANGUAGE, seed=3)
    query, _ = ask_pairs(learner, 20, torch.Generator().manual_seed(0), writer=by_policy)
    by_reference, _ = ask_pairs(learner, 20, torch.Generator().manual_seed(0))
    learner.reference.load_state_dict(by_policy.state_dict())
    same, _ = ask_pairs(learner, 20, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(query.segments.actions, same.segments.actions)
    assert (query.segments.actions != by_reference.segments.actions).any()
    for writer, name in ((None, "reference"), (sure(1), "writer")):
        learner.reference = sure(2)
        with pytest.raises(ValueError, match=f"the {name} writes the same completions again and again"):
            ask_pairs(learner, 20, torch.Generator().manual_seed(0), writer=writer)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda learner: learner, TypeError, "writer is a Noted, expected a LanguageModel: it has no logprobs"),
        (lambda _: Decoder(4, 6, layers=1, width=16, heads=2, eos=2, pad=2), ValueError, "writer has eos=2, pad=2"),
        (lambda _: Decoder(9, 6, layers=1, width=16, heads=2), ValueError, "writer has vocab_size=9, expected"),
    ],
)
def test_a_writer_of_another_language_is_refused_before_anything_is_asked(make, error, words):
    learner = Noted(Tabular.of(LANGUAGE, seed=0), envs(), device="cpu")
    with pytest.raises(error, match=words):
        ask_pairs(learner, 20, torch.Generator().manual_seed(0), writer=make(learner))
    assert prefenvs.feedback(learner.envs).asked == 0


def test_a_reward_model_names_what_keeps_its_answers(monkeypatch):
    class Flipped(TextPreferences):
        """Takes every answer for its contrary."""

        def add(self, model, query, label):
            super().add(model, query, Label(label.choice[:, ::-1].copy()))

    class Contrary(BradleyTerryReward):
        data_class = Flipped

    monkeypatch.setitem(TEXT_REWARD_MODELS, "contrary", Contrary)
    learner = Noted(Tabular.of(LANGUAGE, seed=0), envs(), device="cpu")
    query, label = ask_pairs(learner, 100, torch.Generator().manual_seed(0))
    trunk = Decoder(4, 12, layers=1, width=16, heads=2)
    flipped = Label(label.choice[:, ::-1].copy())
    models = [
        learn_reward(trunk, query, answers, TextPreferenceConfig(reward_model=name), torch.Generator().manual_seed(0))[
            0
        ]
        for name, answers in (("contrary", label), ("bradley_terry", flipped))
    ]
    torch.testing.assert_close(*(model.state_dict() for model in models), rtol=0, atol=0)


class Alike(torch.nn.Module):
    """Bradley-Terry as a model that is no TextModel, and says nothing of what keeps its answers."""

    supports = frozenset({"score"})
    orders, free_level = 1, False

    def __init__(self, model, *, rng):
        super().__init__()
        self.inner = BradleyTerryReward(model, rng=rng)
        self.pad, self.trained = self.inner.pad, self.inner.trained
        self.texts, self.score = self.inner.texts, self.inner.score
        self.choice, self.strength = self.inner.choice, self.inner.strength
        self.mask, self.losses = self.inner.mask, self.inner.losses


def keeping(data_class):
    return type("Keeping", (BradleyTerryReward,), {"data_class": data_class})


def fitted(monkeypatch, model, **settings):
    monkeypatch.setitem(TEXT_REWARD_MODELS, "mine", model)
    preferences = TextPreferenceConfig(queries=40, reward_model="mine", epochs=1)
    learner = GRPO(Decoder(4, 12, layers=1, width=16, heads=2), preferences=preferences, device="cpu", **settings)
    return learner.learn(32).report


@pytest.mark.parametrize(
    "make",
    [
        lambda: TextPreferences(None),
        functools.partial(TextPreferences, None),
        staticmethod(lambda: TextPreferences(None)),
    ],
)
def test_any_callable_may_make_what_keeps_the_answers(make, monkeypatch):
    assert np.isnan(fitted(monkeypatch, keeping(make), env=envs()).held_out_accuracy)


def test_a_model_that_names_no_keeper_of_answers_gets_the_usual_one(monkeypatch):
    assert fitted(monkeypatch, Alike, env=envs()).held_out_accuracy >= 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda room: TextPreferences(room), r"data_class of reward_model='mine' cannot be called without arguments"),
        (TextPreferences(), "cannot be called without arguments: .*not callable"),
        (dict, "makes a dict, expected AnsweredQueries"),
    ],
)
def test_what_cannot_keep_answers_is_refused_before_anything_is_asked(make, words, monkeypatch):
    asked = envs()
    with pytest.raises(ValueError, match=f"{words}.*Nothing was asked"):
        fitted(monkeypatch, keeping(make), env=asked)
    assert prefenvs.feedback(asked).asked == 0


@pytest.mark.parametrize("again", ["load_state", "load", "load with them"])
def test_pairs_of_later_rounds_outlive_those_that_were_given(again, tmp_path):
    config = DirectConfig(learning_rate=1e-2, batch_size=12)
    asked = Noted(Tabular.of(LANGUAGE, seed=0), envs(), device="cpu")
    pairs, others = (
        PreferencePairs.of(*ask_pairs(asked, 24, torch.Generator().manual_seed(seed)), LANGUAGE) for seed in (0, 1)
    )

    def made(pairs):
        return Rounds(Tabular.of(LANGUAGE, seed=0), envs(), pairs=pairs, config=config, device="cpu")

    def loaded(pairs):
        if again == "load_state":
            learner = made(pairs)
            learner.load_state(first.state())
            return learner
        given = {} if again == "load" else {"pairs": pairs}
        return Rounds.load(tmp_path / "it", envs(), policy=Tabular.of(LANGUAGE, seed=1), device="cpu", **given)

    first = made(pairs).learn(60)
    first.save(tmp_path / "it")
    resumed = loaded(pairs)
    assert first.round == 1 and not torch.equal(first.pairs.chosen, pairs.chosen)
    for name, tensor in vars(first.pairs).items():
        assert tensor is getattr(resumed.pairs, name) is None or torch.equal(getattr(resumed.pairs, name), tensor)
    for model in (first, resumed):
        model.learn(36, reset_num_timesteps=False)
    torch.testing.assert_close(resumed.policy.state_dict(), first.policy.state_dict(), rtol=0, atol=0)
    if again != "load":
        assert torch.equal(loaded(others).pairs.chosen, others.chosen)


def test_a_learner_that_asks_in_rounds_learns_from_each_and_goes_on_after_loading(tmp_path):
    config = DirectConfig(learning_rate=1e-2, batch_size=12)
    learner = Rounds(Tabular.of(LANGUAGE, seed=0), envs(budget=100), config=config, device="cpu").learn(48)
    first = learner.pairs
    learner.learn(12, reset_num_timesteps=False)
    assert prefenvs.feedback(learner.envs).asked == 48
    assert not torch.equal(learner.pairs.chosen, first.chosen)
    reference = learner.reference.logprobs(learner.pairs.prompts, learner.pairs.chosen).sum(-1)
    torch.testing.assert_close(learner.pairs.reference[:, 0], reference)
    learner.save(tmp_path / "it")
    loaded = Rounds.load(tmp_path / "it", envs(), policy=Tabular.of(LANGUAGE, seed=1), device="cpu")
    assert loaded.round == 1
    for model in (learner, loaded):
        model.learn(12, reset_num_timesteps=False)
    torch.testing.assert_close(loaded.policy.state_dict(), learner.policy.state_dict(), rtol=0, atol=0)
