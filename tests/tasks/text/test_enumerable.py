"""Everything of the enumerable tasks is known: listing, optimum, log Z, values and regret."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs import Query, Segments
from prefenvs.metrics.kl_frontier import exact_kl_policy, kl_divergence
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.enumerable import TextBandit, TextEnum, TextLength, all_completions, optimal_value
from prefenvs.tasks.text.language import completion_mask

every = pytest.mark.parametrize("make", [TextEnum, TextLength, TextBandit])


@pytest.mark.parametrize(("vocab_size", "steps"), [(2, 1), (4, 4), (5, 3), (30, 1)])
def test_the_list_holds_every_completion_once(vocab_size, steps):
    listed = all_completions(vocab_size, steps)
    words = vocab_size - 1
    assert len(listed) == sum(words**t for t in range(steps)) + words**steps
    canonical = set()
    for sequence in itertools.product(range(vocab_size), repeat=steps):
        end = sequence.index(0) if 0 in sequence else steps
        canonical.add((*sequence[:end], *(0,) * (steps - end)))
    assert {tuple(row) for row in listed.tolist()} == canonical


def test_a_reward_of_enum_is_what_its_tables_say():
    task = TextEnum()
    pairs = task._pairs[3]  # its prompt is "b a"
    np.testing.assert_array_equal(task.language.prompt_tokens[3], [2, 1])
    expected = {
        (2, 2, 3, 0): pairs[1, 2] + pairs[2, 2] + pairs[2, 3] + 0.5,
        (2, 2, 3, 1): pairs[1, 2] + pairs[2, 2] + pairs[2, 3] + pairs[3, 1],
        (0, 0, 0, 0): 0.5,
    }
    rewards = task.rewards(np.full(3, 3), np.array(list(expected)))
    np.testing.assert_allclose(rewards, list(expected.values()), rtol=1e-14)
    np.testing.assert_array_equal(task.factors(np.array([3]), np.zeros((1, 4), int))["finished"], [0.5])


def test_pairs_are_counted_from_the_prompt_s_last_letter_on_and_the_end_is_none():
    task = TextEnum()
    counts, listed = task.bigram_counts(), task.completions().tolist()
    a, b, c = 1, 2, 3
    prompt = task.language.prompt_tokens[:, -1].tolist().index(b)
    found = counts[prompt, listed.index([a, a, a, 0])]
    assert {kind: found[kind] for kind in np.flatnonzero(found)} == {4 * b + a: 1, 4 * a + a: 2}
    assert not counts[:, listed.index([0, 0, 0, 0])].any()
    assert counts[prompt, listed.index([b, c, b, c])][4 * b + c] == 2


@every
def test_factors_of_all_completions_combine_to_their_rewards(make):
    task = make()
    np.testing.assert_allclose(sum(task.factor_tables().values()), task.reward_table(), atol=1e-12)
    assert tuple(task.factor_tables()) == task.factor_names


def test_a_reward_of_length_is_what_its_tables_say():
    task = TextLength()
    worth, flow = task._worth[3], task._flow[3]  # its prompt is "b a"
    expected = {
        (2, 3, 0, 0, 0): worth[2] + worth[3] + (flow[1, 2] + flow[2, 3]) / 2,
        (2, 2, 2, 2, 2): worth[2] + (flow[1, 2] + 4 * flow[2, 2]) / 5,
        (0, 0, 0, 0, 0): 0.0,
    }
    rewards = task.rewards(np.full(3, 3), np.array(list(expected)))
    np.testing.assert_allclose(rewards, list(expected.values()), rtol=1e-14)


def test_length_alone_says_little_about_the_reward_of_length():
    task = TextLength()
    tokens = completion_mask(task.completions(), 0, 0).sum(1)
    correlations = [np.corrcoef(tokens, rewards)[0, 1] for rewards in task.reward_table()]
    assert abs(np.mean(correlations)) < 0.1
    assert np.abs(correlations).max() < 0.5
    best = tokens[task.reward_table().argmax(1)]
    assert best.min() == 2
    assert best.max() == 5


def test_demonstrations_of_length_have_the_law_that_it_states():
    task = TextLength()
    prompts, tokens = task.language.demonstrate(40_000, np.random.default_rng(0))
    listed = task.completions()
    mask = completion_mask(listed, 0, 0)
    law = np.exp((task.demonstration_logprobs[3][listed] * mask).sum(1))
    assert law.sum() == pytest.approx(1)
    drawn = tokens[prompts == 3]
    found = (drawn[:, None] == listed).all(2).mean(0)
    assert 0.5 * np.abs(found - law).sum() < 0.06


def test_greedy_choice_of_the_next_pair_is_not_optimal():
    task, losses = TextEnum(), []
    values = task.optimal_values()
    for prompt in task.prompts("all"):
        before, best = task._last[prompt], task.reward_table()[prompt].max()
        written = []
        for _ in range(4):
            before = 1 + int(task._pairs[prompt, before, 1:].argmax())
            written.append(before)
        losses.append(best - task.rewards(np.array([prompt]), np.array([written]))[0])
    assert min(losses) > -1e-12
    assert np.mean(np.array(losses) > 0.1) >= 0.5
    assert values.gamma == 1.0


@every
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_no_policy_is_worth_more_than_beta_log_z_and_the_optimum_is(make, beta):
    task, rng = make(), np.random.default_rng(0)
    rewards = task.reward_table()
    reference = rng.dirichlet(np.ones(rewards.shape[1]), len(rewards))
    value = optimal_value(np.log(reference), rewards, beta)
    optimum = exact_kl_policy(reference, rewards, 1 / beta)

    def worth(policy):
        return (policy * rewards).sum(-1) - beta * kl_divergence(policy, reference)

    np.testing.assert_allclose(worth(optimum), value, rtol=1e-10)
    log_z = np.log((reference * np.exp(rewards / beta)).sum(1))
    np.testing.assert_allclose(beta * log_z, value, rtol=1e-12)
    for _ in range(20):
        other = exact_kl_policy(optimum, rng.normal(size=rewards.shape), 0.3)
        assert (worth(other) < value).all()


@every
def test_success_is_the_best_completion(make):
    task = make()
    listed, rewards = task.completions(), task.reward_table()
    for prompt in (0, 5):
        solved = task.solved(np.full(len(listed), prompt), listed)
        np.testing.assert_array_equal(solved, rewards[prompt] == rewards[prompt].max())
        assert 1 <= solved.sum() <= 5  # repeating a letter may cost nothing in TextLength


def play(task, prompt, completion):
    """Observations and actions of one episode in the token view."""
    observation, _ = task.reset(options={"prompt_id": prompt})
    steps = []
    for token in completion:
        after, _, terminated, _, _ = task.step(token)
        steps.append((observation, token, after))
        observation = after
        if terminated:
            return steps
    raise AssertionError("a completion ends")


def test_values_are_those_of_search_by_brute_force():
    task = TextEnum()
    task.reset(seed=0)
    values, rng = task.optimal_values(), np.random.default_rng(0)
    listed, table = task.completions(), task.reward_table()
    for prompt, index in zip(rng.integers(8, size=30).tolist(), rng.integers(121, size=30).tolist(), strict=True):
        completion = listed[index]
        steps = play(task, prompt, completion)
        for t, (observation, token, _) in enumerate(steps):
            begins = (listed[:, :t] == completion[:t]).all(1)
            assert values.v(observation) == pytest.approx(table[prompt, begins].max())
            goes_on = begins & (listed[:, t] == token)
            assert values.q(observation, token) == pytest.approx(table[prompt, goes_on].max())
        assert values.v(steps[-1][2]) == 0.0
        first = task.reset(options={"prompt_id": prompt})[0]
        assert values.q(first, completion) == pytest.approx(table[prompt, index])


@pytest.mark.parametrize("oracle", ["regret", "deterministic_regret"])
@pytest.mark.parametrize("view", ["token", "completion"])
def test_regret_of_a_whole_completion_is_what_the_best_one_pays_more(view, oracle):
    env = gym.make("prefenvs/TextEnum-v0", view=view, oracle=oracle, answer="ranking", budget=10)
    feedback, language = prefenvs.feedback(env), language_of(env)
    task, parts = TextEnum(view=view), []
    completions = np.array([[1, 2, 0, 0], [3, 3, 3, 3], [0, 0, 0, 0], [2, 1, 2, 1]])
    for completion in completions:
        store = prefenvs.SegmentStore(env.observation_space, env.action_space)
        observation, _ = env.reset(options={"prompt_id": 1})
        for action in completion if view == "token" else [completion]:
            after, _, terminated, _, info = env.step(action)
            rows = ({key: value[None] for key, value in seen.items()} for seen in (observation, after))
            before, behind = rows
            store.add(before, np.asarray(action)[None], behind, [terminated], [False], info["segment_id"][None])
            observation = after
            if terminated:
                break
        steps = 4 if view == "token" else 1
        parts.append(next(s for _ in range(99) if (s := store.sample(1, steps, RNG)).ids[0, 2] == 0))
    segments = Segments.concatenate(parts)
    rewards = task.rewards(np.ones(4, int), completions)
    utility = feedback._oracle.utility(feedback._judge(segments)).sum(1)
    np.testing.assert_allclose(utility, rewards - task.reward_table()[1].max(), atol=1e-12)
    ranking = feedback.ask(Query(segments, k=4)).ranking[0]
    np.testing.assert_array_equal(np.argsort(ranking), np.argsort(-rewards))
    assert language.vocab_size == 4


RNG = np.random.default_rng(0)


def test_an_optimal_token_has_no_advantage_and_none_is_above():
    task = TextEnum()
    task.reset(seed=0)
    values = task.optimal_values()
    listed, table = task.completions(), task.reward_table()
    for prompt in task.prompts("all").tolist():
        for observation, token, _ in play(task, prompt, listed[table[prompt].argmax()]):
            assert values.q(observation, token) == pytest.approx(values.v(observation), abs=1e-12)
            all_tokens = np.array([values.q(observation, np.array(other)) for other in range(4)])
            assert all_tokens.max() == pytest.approx(float(values.v(observation)), abs=1e-12)


def test_the_units_of_a_teacher_are_those_of_the_view():
    by_view = {}
    for view in ("token", "completion"):
        env = gym.make("prefenvs/TextEnum-v0", view=view, teacher="noisy")
        by_view[view] = prefenvs.feedback(env)._calibration(1)
    task, rng = TextEnum(), np.random.default_rng(0)
    demonstrated = task.rewards(*task.language.demonstrate(20_000, rng)).std()
    assert by_view["completion"].sd == pytest.approx(demonstrated, rel=0.1)
    assert by_view["token"].sd < 0.8 * demonstrated, "most single tokens pay nothing"
