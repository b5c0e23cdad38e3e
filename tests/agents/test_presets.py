"""Presets are complete, can be built, and say where they are from."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from prefenvs import Label, Query
from prefenvs.agents.preset_choice import TEXT, choose_preset, default_agent, default_preset
from prefenvs.agents.presets import PRESETS, schedules
from prefenvs.agents.text.rewards import learn_reward
from prefenvs.agents.text.run import make_text_agent
from prefenvs.agents.train import Run, make_agent
from prefenvs.tasks import TASKS
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import Decoder
from prefenvs.text_dataset import completion_segments

TINY = {"layers": 1, "width": 8, "heads": 2, "steps": 1, "cache": False}
# B-Pref's scripts: task, steps, environments, rate, batch, budget, sessions, steps of the last session.
BPREF = {
    "bpref-walker-walk": ("WalkerWalk", 500_000, 1, 5e-4, 1024, 500, 10, 190_000),
    "bpref-quadruped-walk": ("QuadrupedWalk", 1_000_000, 1, 1e-4, 1024, 1000, 10, 280_000),
    "bpref-walker-walk-prefppo": ("WalkerWalk", 4_000_000, 32, 5e-5, 64, 500, 10, 176_000),
    "bpref-quadruped-walk-prefppo": ("QuadrupedWalk", 4_000_000, 16, 5e-5, 128, 1000, 10, 176_000),
}


@pytest.mark.parametrize("name", BPREF)
def test_a_published_preset_holds_the_published_numbers(name):
    preset = PRESETS[name]
    asked = preset.preferences
    assert preset.published
    assert "B-Pref" in preset.source
    found = (preset.task, preset.total_steps, preset.num_envs, preset.algorithm["learning_rate"])
    found += (preset.algorithm["batch_size"], asked.queries, asked.sessions, asked.last_session)
    assert found == BPREF[name]
    assert (asked.segment_steps, asked.members, asked.hidden, asked.strategy) == (50, 3, (256,) * 3, "disagreement")
    # The reward is the mean of the members' tanh, of observations as they are, trained on all answers.
    assert (asked.standardize, asked.scale_reward, asked.held_out_every) == (False, False, None)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_its_agent(name):
    preset = PRESETS[name]
    if TASKS[preset.task].extra == "dmc":
        pytest.importorskip("dm_control", reason="needs the dmc extra")
    if TASKS[preset.task].name in TEXT:
        learner = make_text_agent(Run(dataclasses.replace(preset, extra={"policy_kwargs": TINY}), device="cpu"))
        assert dataclasses.asdict(learner.config).items() >= dict(preset.algorithm).items()
        assert (learner.preferences, learner.envs.num_envs) == (preset.preferences, preset.num_envs)
        return
    small = {"policy_kwargs": {"net_arch": [4]}}
    small |= {"buffer_size": 10} if preset.agent == "pebble" else {"batch_size": 100, "n_steps": 100}
    preset = dataclasses.replace(preset, num_envs=1, algorithm={**preset.algorithm, **small})
    model = make_agent(Run(preset, device="cpu"))
    assert model.preferences.config == preset.preferences
    assert model.preferences.feedback.task == preset.task
    model.get_env().close()


@pytest.mark.parametrize(("name", "budget", "asked"), [
    ("pendulum-small", 500, 500), ("pendulum-small", 60, 200), ("pendulum-small", None, 200),
    ("text-enum-dpo", 3000, 3000),
])  # fmt: skip
def test_a_budget_beyond_the_presets_questions_is_asked_in_full(name, budget, asked):
    preset = choose_preset(preset=name, budget=budget)
    preferences = dataclasses.replace(PRESETS[name].preferences, queries=asked)
    assert preset == dataclasses.replace(PRESETS[name], preferences=preferences)


def test_published_settings_are_taken_only_when_named():
    assert not default_preset("WalkerWalk", "pebble").published
    assert default_preset("WalkerWalk", "pebble").task == "WalkerWalk"
    assert default_preset("HalfCheetah", "sac") is PRESETS["halfcheetah-small"]
    assert default_agent("CartPole") == "prefppo"
    assert default_agent("Pendulum") == "pebble"


def test_a_linear_schedule_falls_to_0():
    made = schedules({"learning_rate": "lin_1e-3", "gamma": 0.9})
    assert made["gamma"] == 0.9
    assert [made["learning_rate"](remaining) for remaining in (1.0, 0.5, 0.0)] == [1e-3, 5e-4, 0.0]


def pairs_of_demonstrations(task, n, rng):
    """A query of n pairs of demonstrations of a prompt each, and (n, 2) their true rewards."""
    language = language_of(task)
    ids, tokens = language.demonstrate(3 * n, rng)
    order = np.argsort(ids, kind="stable")
    first, second = order[:-1], order[1:]
    kept = rng.permutation(np.flatnonzero(ids[first] == ids[second]))[:n]
    rows = np.stack([first[kept], second[kept]], 1)
    judge = gym.make(TASKS[task].id, evaluation=True).unwrapped.task
    segments = completion_segments(language.prompt_tokens[ids[rows.ravel()]], tokens[rows.ravel()], language)
    return Query(segments), judge.rewards(ids[rows.ravel()], tokens[rows.ravel()]).reshape(n, 2)


def test_the_reward_model_of_text_presets_foresees_answers_to_questions_it_has_not_seen():
    # A copy of the decoder, fitted to 1000 answers, has these by heart and foresees few others.
    rng = np.random.default_rng(0)
    (query, rewards), (fresh, worth) = (pairs_of_demonstrations("TextKeyword", 1000, rng) for _ in range(2))
    label = Label(np.sign(rewards - rewards[:, ::-1]) / 2 + 0.5)
    trunk = Decoder(35, 19, layers=1, width=32, heads=2)  # of TextKeyword's words and lengths
    asked = default_preset("TextKeyword", "grpo").preferences
    model, _ = learn_reward(trunk, query, label, asked, torch.Generator().manual_seed(0))
    lead = model.prefer(fresh)[:, 0, 1].detach().numpy()
    clear = worth[:, 0] != worth[:, 1]
    assert ((lead > 0) == (worth[:, 0] > worth[:, 1]))[clear].mean() > 0.7
