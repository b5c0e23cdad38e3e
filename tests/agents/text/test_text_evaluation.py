"""What a learner of language models is judged by: its own task, with the true reward shown."""

import gymnasium as gym
import pytest
import torch

from prefenvs.agents.text.evaluation import TextEvalCallback, evaluate_text
from prefenvs.agents.text.rloo import RLOO
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import Decoder

OWN = {"prompts": ("Say x: ", "Say y: ", "Say z: "), "max_new_tokens": 2, "test_prompts": 1}
SYNC = {"vectorization_mode": "sync"}


def dear(prompts, completions):
    return [100.0 for _ in completions]


def cheap(prompts, completions):
    return [1.0 for _ in completions]


def learner(**arguments):
    envs = gym.make_vec("prefenvs/TextOwn-v0", num_envs=8, view="completion", budget=20, **arguments)
    language = language_of(envs)
    context = language.prompt_tokens.shape[1] + language.max_new_tokens
    writer = Decoder(language.vocab_size, context, layers=1, width=8, heads=2)
    return RLOO(writer, envs, reward=lambda p, c: torch.ones(len(p)), device="cpu")


@pytest.mark.parametrize("made", [{"scorer": dear}, {"scorer": dear, **SYNC}, {"task_kwargs": {"scorer": dear}}])
@pytest.mark.parametrize("env", [None, "prefenvs/TextOwn-v0", "prefenvs:prefenvs/TextOwn-v0"])
def test_a_learner_is_judged_by_the_prompts_and_the_scorer_of_its_own_environments(made, env):
    ours = learner(**OWN, **made)
    found = evaluate_text(ours, env, 8)
    assert (found.mean, found.train_mean, found.split) == (100.0, 100.0, "test")
    assert found.examples[0][0] == "Say z: "


def test_arguments_of_the_task_can_be_replaced():
    ours = learner(**OWN, scorer=dear)
    assert evaluate_text(ours, completions=8, scorer=cheap).mean == 1.0
    curve = TextEvalCallback(None, 8, completions=4, scorer=cheap)
    ours.learn(16, callback=curve)
    assert curve.curve[:, 1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("env", "task", "words"),
    [
        ("prefenvs/TextEnum-v0", {}, "other words, prompts, test_prompts, max_new_tokens than"),
        (None, {"prompts": ("Say x: ", "Say y: ", "Say a: ")}, "other prompts than"),
        (None, {"max_new_tokens": 3}, "other max_new_tokens than"),
    ],
)
def test_a_task_that_the_learner_does_not_write_for_is_refused(env, task, words):
    with pytest.raises(ValueError, match=words):
        evaluate_text(learner(**OWN), env, 4, **task)


@pytest.mark.parametrize("settings", [{}, SYNC])
def test_without_a_spec_a_learner_is_judged_by_the_task_that_is_named(settings):
    ours = learner(**OWN, **settings)
    ours.envs.spec = None
    for env in getattr(ours.envs, "envs", ()):
        env.unwrapped.spec = None
    assert evaluate_text(ours, "prefenvs/TextOwn-v0", 8, **OWN, scorer=dear).mean == 100.0
    with pytest.raises(ValueError, match=r"have no spec.* Pass env=, the id of their task"):
        evaluate_text(ours)


def test_the_callback_names_what_it_evaluates_on_as_others_do():
    assert TextEvalCallback(env="prefenvs/TextOwn-v0", every=8).env == "prefenvs/TextOwn-v0"
    assert TextEvalCallback(env=None, every=8).env is None
