"""What every text task promises, in both views, and how a learner of language models asks about completions."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import prefenvs
from prefenvs import Query, Segments
from prefenvs.collecting import step_ends
from prefenvs.making import make_task
from prefenvs.queries import pairs_within
from prefenvs.tasks.task import Task
from prefenvs.tasks.text import TEXT_TASKS, language_of
from prefenvs.tasks.text.language import completion_mask, left_padded, prompt_numbers, prompts_and_completions
from prefenvs.tasks.text.scores import random_rewards, reference_rewards

over_the_registry = pytest.mark.parametrize("spec", TEXT_TASKS, ids=lambda spec: spec.name)
in_both_views = pytest.mark.parametrize("view", ["token", "completion"])


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


def rollout(env, actions):
    """The steps of one episode after the other; each is what `step` gave, with factors and success."""
    steps = []
    for action in actions:
        observation, *rest = env.step(action)
        steps.append(([array.tolist() for array in observation.values()], rest, env.reward_factors(), env.success()))
        if rest[1]:
            steps.append([array.tolist() for array in env.reset()[0].values()])
    return steps


def random_actions(env, n, seed=0):
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(n)]


@over_the_registry
def test_prompts_are_known_by_their_tokens_however_wide_they_are_padded(spec):
    language = language_of(spec.name)
    prompts = language.prompt_tokens[::-1]
    numbers = np.arange(len(prompts))[::-1]
    wider = np.pad(prompts, ((0, 0), (3, 0)), constant_values=language.pad)
    bare = [row[(row != language.pad).argmax() :].tolist() for row in prompts]
    for padded in (prompts, wider, left_padded(bare, language.pad)):
        np.testing.assert_array_equal(prompt_numbers(language, padded), numbers)
    assert prompt_numbers(language, left_padded([bare[0], bare[0] * 40], language.pad)).tolist() == [numbers[0], -1]
    np.testing.assert_array_equal(prompt_numbers(language, np.full((2, 1), language.pad)), [-1, -1])


@over_the_registry
@in_both_views
def test_gymnasium_and_sb3_accept_it(spec, view):
    check_env(make_task(spec, task_kwargs={"view": view}), skip_render_check=True)
    sb3_check_env(gym.make(spec.id, view=view), warn=False)
    assert isinstance(make_task(spec), Task)


@over_the_registry
@in_both_views
def test_the_seed_decides_everything_and_a_restored_state_goes_on_on_another_instance(spec, view):
    env, twin = (make_task(spec, task_kwargs={"view": view}) for _ in range(2))
    assert same(env.reset(seed=3)[0], twin.reset(seed=3)[0])
    actions = random_actions(env, 150)
    assert rollout(env, actions[:50]) == rollout(twin, actions[:50])
    state, factors = env.get_state(), env.reward_factors()
    assert all(isinstance(array, np.ndarray | np.generic) for array in state.values())
    expected = rollout(env, actions[50:])
    other = make_task(spec, task_kwargs={"view": view})
    for one in (env, other):
        one.set_state(state)
        assert one.reward_factors() == factors
        assert rollout(one, actions[50:]) == expected


@over_the_registry
@in_both_views
def test_factors_combine_to_the_reward_which_comes_with_the_last_token(spec, view):
    env = make_task(spec, task_kwargs={"view": view})
    env.reset(seed=0)
    assert tuple(env.reward_factors()) == spec.factors
    ends = 0
    for action in random_actions(env, 300):
        _, reward, terminated, truncated, info = env.step(action)
        assert (truncated, info, tuple(env.reward_factors())) == (False, {}, spec.factors)
        assert float(env.combine_factors(env.reward_factors())) == pytest.approx(reward, abs=1e-12)
        assert terminated or not any(env.reward_factors().values())
        assert env.success() is None if not spec.has_success else env.success() in (terminated, False)
        if terminated:
            ends += 1
            env.reset()
    assert ends > 5


@over_the_registry
def test_both_views_pay_the_same_and_both_ends_terminate(spec):
    words, whole = (make_task(spec, task_kwargs={"view": view}) for view in ("token", "completion"))
    language = words.language
    rng = np.random.default_rng(0)
    ids, demonstrated = language.demonstrate(30, rng)
    for prompt, completion in zip(ids.tolist(), demonstrated, strict=True):
        options = {"prompt_id": prompt}
        assert same(words.reset(seed=0, options=options)[0], whole.reset(seed=0, options=options)[0])
        last, reward, terminated, _, _ = whole.step(completion)
        length = int(completion_mask(completion[None], language.eos, language.pad).sum())
        assert terminated
        for t in range(length):
            observation, paid, terminated, truncated, _ = words.step(completion[t])
            assert (terminated, truncated) == (t == length - 1, False)
        assert same(observation, last)
        assert (paid, words.reward_factors(), words.success()) == (reward, whole.reward_factors(), whole.success())
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            words.step(0)


@over_the_registry
def test_judgement_is_batched_and_ignores_what_follows_the_end(spec):
    task = make_task(spec)
    rng = np.random.default_rng(1)
    ids, tokens = task.language.demonstrate(64, rng)
    together = task.rewards(ids, tokens)
    assert together.shape == (64,)
    assert np.ptp(together) > 0
    alone = np.concatenate([task.rewards(ids[i : i + 1], tokens[i : i + 1]) for i in range(64)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)
    order = rng.permutation(64)
    np.testing.assert_array_equal(task.rewards(ids[order], tokens[order]), together[order])
    noise = rng.integers(task.language.vocab_size, size=tokens.shape)
    mask = completion_mask(tokens, task.language.eos, task.language.pad)
    ended = (tokens == task.language.eos).any(1)
    noisy = np.where(mask | ~ended[:, None], tokens, noise)
    np.testing.assert_array_equal(task.rewards(ids, noisy), together)
    if spec.has_success:
        assert task.solved(ids, tokens).shape == (64,)


@over_the_registry
def test_prompts_split_and_a_bad_prompt_changes_nothing(spec):
    task = make_task(spec)
    train, test = task.prompts("train"), task.prompts("test")
    assert not set(train) & set(test)
    np.testing.assert_array_equal(np.concatenate([train, test]), task.prompts("all"))
    assert len({tuple(row) for row in task.language.prompt_tokens.tolist()}) == len(task.prompts("all"))
    task.reset(seed=0)
    before = task.get_state()
    for bad in (len(task.prompts("all")), -1, 0.5, [1, 2]):
        with pytest.raises(ValueError, match="Nothing was reset"):
            task.reset(options={"prompt_id": bad})
    assert same(before, task.get_state())
    seen = {int(task.reset()[0]["tokens"] @ np.arange(1, 1 + len(task._observe()["tokens"]))) for _ in range(200)}
    assert len(seen) > 1
    with pytest.raises(ValueError, match="Expected one of: train, test, all"):
        task.prompts("dev")


@over_the_registry
def test_scores_are_what_the_command_prints(spec):
    task = make_task(spec)
    rewards = random_rewards(task)
    expected = (spec.random_score.mean, spec.random_score.sd)
    assert (rewards.mean(), rewards.std()) == pytest.approx(expected, abs=5e-5)
    assert reference_rewards(task).mean() == pytest.approx(spec.reference_score.mean, abs=5e-5)
    assert spec.has_success == task.has_success


@over_the_registry
def test_demonstrations_are_of_the_language_and_follow_from_the_generator(spec):
    language = language_of(spec.id)
    ids, tokens = language.demonstrate(50, np.random.default_rng(5))
    again = language.demonstrate(50, np.random.default_rng(5))
    np.testing.assert_array_equal(tokens, again[1])
    assert tokens.shape == (50, language.max_new_tokens)
    assert ((tokens >= 0) & (tokens < language.vocab_size)).all()
    assert np.isin(ids, language.prompts("train")).all(), "prompts held out are not demonstrated"
    text = language.decode(tokens[0])
    assert language.encode(text) == [t for t in tokens[0] if t not in (language.eos, language.pad)]


@over_the_registry
def test_k_completions_of_each_prompt_are_judged_as_pairs_that_share_it(spec):
    prompts, k = 4, 3
    envs = gym.make_vec(spec.id, num_envs=prompts * k, view="completion", budget=100, teacher="oracle")
    feedback, language = prefenvs.feedback(envs), language_of(envs)
    ids = np.repeat(language.prompts("train")[:prompts], k)
    before, _ = envs.reset(seed=0, options={"prompt_id": ids})
    rng = np.random.default_rng(0)
    _, demonstrated = language.demonstrate(500, rng)
    actions = demonstrated[rng.choice(500, len(ids), replace=False)]
    after, _, terminated, truncated, infos = envs.step(actions)
    segments = Segments.of_step(before, actions, after, terminated, truncated, infos["segment_id"], spec.name)
    shown, written = prompts_and_completions(segments, language)
    np.testing.assert_array_equal(shown[:, -language.prompt_tokens.shape[1] :], language.prompt_tokens[ids])
    np.testing.assert_array_equal(written, actions)

    pairs = pairs_within(ids)
    assert len(pairs) == prompts * 3
    label = feedback.ask(Query(segments[pairs.ravel()], context={"prompt": ids[pairs[:, 0]]}))
    rewards = make_task(spec).rewards(ids, actions)
    np.testing.assert_allclose(prefenvs.true_scores(envs, segments), rewards)
    better = np.sign(rewards[pairs[:, 0]] - rewards[pairs[:, 1]])
    np.testing.assert_array_equal(np.sign(label.choice[:, 0] - 0.5), better)
    feedback.ask(Query(segments, k=k))  # the same completions, k of a prompt at a time
    assert feedback.asked == len(pairs) + prompts


@over_the_registry
@in_both_views
def test_stored_segments_of_either_view_read_as_prompt_and_completion(spec, view):
    envs = gym.make_vec(spec.id, num_envs=3, view=view, autoreset_mode="SameStep")
    language = language_of(envs)
    prefenvs.feedback(envs)
    store = prefenvs.SegmentStore(envs.single_observation_space, envs.single_action_space, 3)
    observations, _ = envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(30):
        actions = envs.action_space.sample()
        after, _, terminated, truncated, infos = envs.step(actions)
        ends, ids = step_ends(after, infos)
        store.add(observations, actions, ends, terminated, truncated, ids)
        observations = after
    segments = store.sample(40, 1 if view == "completion" else language.max_new_tokens, np.random.default_rng(0))
    prompts, completions = prompts_and_completions(segments, language)
    whole = segments.ids[:, 2] == 0
    known = {tuple(row) for row in language.prompt_tokens.tolist()}
    width = language.prompt_tokens.shape[1]
    assert all(tuple(row[-width:]) in known for row in prompts[whole].tolist())
    last = segments.observations["tokens"][np.arange(40), segments.lengths]
    for row in range(40):
        words = language.decode(prompts[row]) + language.decode(completions[row])
        assert words.replace(" ", "") == language.decode(last[row]).replace(" ", "")


@over_the_registry
@pytest.mark.parametrize("oracle", ["partial_return", "hierarchical"])
@in_both_views
def test_oracles_and_teachers_answer(spec, oracle, view):
    units = prefenvs.calibrate(spec.name, oracle, segment_steps=1, steps=200)
    env = gym.make(spec.id, view=view, oracle=oracle, teacher="noisy", budget=20, calibration=units)
    feedback = prefenvs.feedback(env)
    store = prefenvs.SegmentStore(env.observation_space, env.action_space)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(60):
        action = env.action_space.sample()
        after, reward, terminated, truncated, info = env.step(action)
        assert (reward, truncated) == (0.0, False)
        row = {key: value[None] for key, value in observation.items()}, {k: v[None] for k, v in after.items()}
        store.add(row[0], np.asarray(action)[None], row[1], [terminated], [False], info["segment_id"][None])
        observation = env.reset()[0] if terminated else after
    label = feedback.ask(Query(store.sample(40, 1, np.random.default_rng(0))))
    assert len(label) == feedback.asked == 20
    assert (~label.skipped).sum() == feedback.answered
    assert oracle == "hierarchical" or not label.skipped.any()


@over_the_registry
def test_the_evaluation_door_shows_reward_factors_and_success(spec):
    env = gym.make(spec.id, view="completion", evaluation=True)
    language = language_of(env)
    ids, tokens = language.demonstrate(20, np.random.default_rng(0))
    for prompt, completion in zip(ids.tolist(), tokens, strict=True):
        env.reset(options={"prompt_id": prompt})
        _, reward, _, _, info = env.step(completion)
        task = env.unwrapped.task
        assert reward == task.rewards(np.array([prompt]), completion[None])[0]
        assert sum(info["factors"].values()) == pytest.approx(reward) or reward == float(
            task.combine_factors(info["factors"])
        )
        assert ("success" in info) == spec.has_success


def test_views_are_arguments_of_make_and_a_misspelt_one_is_named():
    assert gym.make("prefenvs/TextEnum-v0", view="completion").action_space.nvec.tolist() == [4] * 4
    assert gym.make("prefenvs/TextEnum-v0").action_space.n == 4
    with pytest.raises(ValueError, match="Did you mean 'view'"):
        gym.make("prefenvs/TextEnum-v0", views="completion")
    with pytest.raises(ValueError, match="Expected one of: 'token', 'completion'"):
        gym.make("prefenvs/TextEnum-v0", view="tokens")


def test_a_completion_ends_at_its_first_end_token_or_before_padding():
    tokens = np.array([[5, 3, 0, 7], [5, 3, 2, 7], [0, 0, 0, 0], [9, 5, 5, 5]])
    expected = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(completion_mask(tokens, eos=0, pad=9), expected)
    np.testing.assert_array_equal(completion_mask(tokens, eos=0, pad=0)[:3], expected[:3])


def test_only_text_tasks_have_a_language():
    with pytest.raises(TypeError, match="is not a text task"):
        language_of(gym.make("prefenvs/CartPole-v0"))
    with pytest.raises(ValueError, match="Expected one of: TextArithmetic, "):
        language_of("TextEnumm")
    assert language_of("TextEnum").decode([1, 3, 0, 0]) == "a c"
    assert language_of("TextEnum").decode([0, 1, 0, 2, 0]) == "a b", "ends pad prompts, too: none cuts a text"
    with pytest.raises(ValueError, match="'z' is not a word"):
        language_of("TextEnum").encode("a z")
