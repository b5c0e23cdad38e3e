import dataclasses
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs.agents import GRPO, TextPreferenceConfig
from prefenvs.agents.text.evaluation import evaluate_text
from prefenvs.agents.text.grpo import GRPOConfig
from prefenvs.runs import Job, execute
from prefenvs.tasks import TASKS
from prefenvs.tasks.text import language_of, text_spec
from prefenvs.tasks.text.env import TextTask
from prefenvs.tasks.text.language import Language


class TextShout(TextTask):
    """Pays for each of a word."""

    factor_names = ("shouts",)

    def __init__(self, word="x", view="token", render_mode=None):
        language = Language(("<end>", "x", "y"), np.array([[1, 2], [2, 1]]), 3, self._demonstrate)
        super().__init__(language, view, render_mode)
        self._paid = language.words.index(word)

    def _demonstrate(self, n, rng):
        return rng.integers(2, size=n), rng.integers(3, size=(n, 3))

    def _factors(self, prompt_ids, tokens, mask):
        return {"shouts": (tokens == self._paid).sum(1)}


class TextShoutLoudly(TextShout):
    """Pays a hundred for each."""

    def _factors(self, prompt_ids, tokens, mask):
        return {"shouts": 100 * (tokens == self._paid).sum(1)}


SPEC = text_spec("TextShout", f"{__name__}:TextShout", 3, ("shouts",), settings={"word": "x"})


@pytest.fixture
def registered(monkeypatch):
    """The id of a task of one's own, known for one test."""
    monkeypatch.setitem(TASKS, SPEC.name, SPEC)
    monkeypatch.setitem(gym.registry, SPEC.id, None)
    prefenvs.register(SPEC)
    return SPEC.id


def test_a_task_of_ones_own_opens_both_doors_by_its_name(registered):
    env = gym.make(registered, view="completion", word="y", evaluation=True)
    env.reset(seed=0)
    assert env.step(np.array([2, 1, 2]))[1] == 2.0
    envs = gym.make_vec(registered, num_envs=4, view="completion", teacher="noisy", budget=10)
    envs.reset(seed=0)
    assert envs.step(np.array([[1, 1, 1]] * 4))[1].tolist() == [0.0] * 4
    assert language_of("TextShout").words == ("<end>", "x", "y")
    assert prefenvs.calibrate("TextShout", segment_steps=1, steps=200).sd > 0


def test_a_language_model_learns_a_task_of_ones_own(registered):
    envs = gym.make_vec(registered, num_envs=16, view="completion", budget=200)
    model = GRPO(
        "decoder",
        envs,
        config=GRPOConfig(group=4, learning_rate=3e-3),
        preferences=TextPreferenceConfig(queries=200, epochs=20),
        policy_kwargs={"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False},
        seed=0,
    )
    before = evaluate_text(model, registered, completions=64).mean
    model.learn(480)
    assert prefenvs.feedback(envs).asked == 200
    assert evaluate_text(model, registered, completions=64).mean > before + 0.5


def test_registering_again_replaces_ones_own_task_and_never_one_of_the_suite(registered):
    prefenvs.register(text_spec("TextShout", SPEC.entry_point, 3, ("shouts",), settings={"word": "y"}))
    env = gym.make(registered, view="completion", evaluation=True)
    env.reset(seed=0)
    assert env.step(np.array([1, 2, 0]))[1] == 1.0
    assert TASKS["TextShout"].kwargs["word"] == "y"
    suite = TASKS["TextEnum"]
    with pytest.raises(ValueError, match="'TextEnum' is a task of the suite"):
        prefenvs.register(text_spec("TextEnum", SPEC.entry_point, 3, ("shouts",)))
    assert TASKS["TextEnum"] is suite


def test_a_replaced_task_leaves_no_units_and_no_id_behind(registered):
    before = prefenvs.calibrate("TextShout", segment_steps=1, steps=200).sd
    loud = dataclasses.replace(SPEC, entry_point=f"{__name__}:TextShoutLoudly", version=1)
    prefenvs.register(loud)
    try:
        assert prefenvs.calibrate("TextShout", segment_steps=1, steps=200).sd == pytest.approx(100 * before)
        assert registered not in gym.registry
        assert loud.id in gym.registry
    finally:
        gym.registry.pop(loud.id, None)


def test_copies_and_workers_know_a_task_of_ones_own(registered, monkeypatch, tmp_path):
    env = gym.make(registered, view="completion", word="y")
    envs = gym.make_vec(registered, num_envs=2, view="completion")
    copies = pickle.dumps([env.unwrapped, envs.unwrapped])
    monkeypatch.syspath_prepend(Path(__file__).parent)
    assert execute([Job("a", "jobs_to_run:knows", {"task": "TextShout"})], tmp_path).tables["a"] == [{"knows": True}]
    monkeypatch.delitem(TASKS, "TextShout")  # as in a new process
    gym.registry.pop(registered)
    for copy in pickle.loads(copies):
        copy.reset(seed=0)
        assert copy.spec.id == registered
    assert registered in gym.registry


def test_an_id_that_gymnasium_refuses_leaves_nothing_behind():
    with pytest.raises(gym.error.Error, match="Malformed"):
        prefenvs.register(dataclasses.replace(SPEC, name="Text Shout"))
    assert "Text Shout" not in TASKS
    assert "prefenvs/Text Shout-v0" not in gym.registry
