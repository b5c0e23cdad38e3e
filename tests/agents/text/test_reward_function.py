import gymnasium as gym
import numpy as np
import pytest
import torch

from prefenvs.agents.reward_models.text import BradleyTerryReward, TransformedReward
from prefenvs.agents.text.reward_function import reward_function
from prefenvs.error import EvaluationOnly
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.lm import Decoder

LANGUAGE = language_of("TextEnum")


def texts(n=20):
    ids, tokens = LANGUAGE.demonstrate(n, np.random.default_rng(0))
    prompts, completions = ([LANGUAGE.decode(row) for row in part] for part in (LANGUAGE.prompt_tokens[ids], tokens))
    return ids, tokens, prompts, completions


def test_the_true_reward_of_texts_is_the_task_s():
    env = gym.make("prefenvs/TextEnum-v0", evaluation=True)
    reward = reward_function(env)
    ids, tokens, prompts, completions = texts()
    expected = env.unwrapped.task.rewards(ids, tokens).tolist()
    assert reward(prompts, completions) == pytest.approx(expected)
    assert reward(prompts=prompts, completions=completions, answer=ids.tolist()) == pytest.approx(expected)
    messages = [[[{"role": role, "content": text}] for text in part]
                for role, part in (("user", prompts), ("assistant", completions))]  # fmt: skip
    assert reward(*messages) == pytest.approx(expected)
    assert reward.__name__ == "true_reward"  # what trainers log it under


def test_what_has_no_reward_gets_none_and_the_rest_keep_theirs():
    reward = reward_function(gym.make("prefenvs/TextEnum-v0", evaluation=True))
    _, _, prompts, completions = texts(3)
    rewards = reward(
        [prompts[0], "a z", prompts[1], "c c c", prompts[2]], ["nothing", "a", *completions[1:2], "a", "a a a a a"]
    )
    assert [value is None for value in rewards] == [True, True, False, True, True]
    assert rewards[2] == pytest.approx(reward(prompts[1:2], completions[1:2])[0])
    assert reward(["z"], ["a"]) == [None]
    assert reward([], []) == []


def test_a_reward_model_and_a_transformed_one_score_texts_as_they_score_tokens():
    model = BradleyTerryReward(Decoder(4, 8, layers=1, width=16, heads=2), rng=torch.Generator().manual_seed(0))
    ids, tokens, prompts, completions = texts()
    expected = model.score(torch.from_numpy(LANGUAGE.prompt_tokens[ids]), torch.from_numpy(tokens))
    assert reward_function(model, "TextEnum")(prompts, completions) == pytest.approx(expected.tolist(), abs=1e-6)
    shaped = reward_function(TransformedReward(model, "tanh"), LANGUAGE)
    assert shaped(prompts, completions) == pytest.approx(expected.tanh().tolist(), abs=1e-6)
    assert shaped([*prompts, "z"], [*completions, "a"])[-1] is None
    with pytest.raises(ValueError, match="needs language="):
        reward_function(model)


def test_the_learner_s_door_gives_no_true_reward():
    with pytest.raises(EvaluationOnly, match="hides its true reward"):
        reward_function(gym.make("prefenvs/TextEnum-v0"))
