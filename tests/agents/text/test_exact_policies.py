"""Every learner with a KL penalty reaches ref exp(r / beta) / Z where completions can be listed. Cards 24 and 73."""

import gymnasium as gym
import pytest
import torch

from prefenvs.agents.text.direct import DirectAlignment, DirectConfig
from prefenvs.agents.text.exact import completion_probabilities, total_variation
from prefenvs.agents.text.preference_pairs import PreferencePairs
from prefenvs.metrics.kl_frontier import exact_kl_policy
from prefenvs.tasks.text.enumerable import TextBandit, TextEnum
from prefenvs.tasks.text.lm import Tabular

BETA = 1.0
TASKS = {"TextBandit": TextBandit(), "TextEnum": TextEnum()}
REWARDS = {name: torch.as_tensor(task.reward_table(), dtype=torch.float32) for name, task in TASKS.items()}


def table(name="TextBandit"):
    language = TASKS[name].language
    return Tabular(language.prompt_tokens, language.vocab_size, language.max_new_tokens)


def envs(name="TextBandit", num_envs=64, **settings):
    return gym.make_vec(f"prefenvs/{name}-v0", num_envs=num_envs, view="completion", **settings)


def distance(learner, name="TextBandit", beta=BETA, prompts=None):
    """Mean total variation to the optimum over the prompts trained on, before and after."""
    task = TASKS[name]
    rows = task.prompts("train") if prompts is None else range(prompts)
    reference, policy = (completion_probabilities(m, task)[rows] for m in (learner.reference, learner.policy))
    optimum = exact_kl_policy(reference, task.reward_table()[rows], 1 / beta)
    return total_variation(reference, optimum).mean(), total_variation(policy, optimum).mean()


def every_pair(name="TextBandit", prompts=3):
    """All pairs of completions of some prompts, each way round by its Bradley-Terry probability, with their rewards."""
    task, rewards = TASKS[name], REWARDS[name]
    listed, shown = torch.as_tensor(task.completions()), torch.as_tensor(task.language.prompt_tokens)
    first, second = torch.triu_indices(len(listed), len(listed), 1).repeat(1, prompts)
    number = torch.arange(prompts).repeat_interleave(len(first) // prompts)
    share = (rewards[number, first] - rewards[number, second]).sigmoid()
    return PreferencePairs.weighted(shown[number], listed[first], listed[second], torch.stack([share, 1 - share], 1))


@pytest.mark.parametrize("loss", ["dpo", "hinge"])
def test_direct_alignment_on_every_pair(loss):
    """The hinge loss has another optimum, and shows that the bound tells one from the other."""
    pairs = every_pair()
    config = DirectConfig("lin_0.3", 1e9, batch_size=len(pairs), options={"beta": BETA})
    learner = DirectAlignment(table(), envs(), loss=loss, pairs=pairs, config=config, device="cpu")
    before, after = distance(learner.learn(200 * len(pairs)), prompts=3)
    assert before > 0.25
    assert (after < 0.01) == (loss != "hinge"), after
