"""What every oracle in ORACLES promises, on a grid where all of them can judge."""

import pickle

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs.calibration import measure, reference_set
from prefenvs.labelling.feedback import _pick
from prefenvs.oracles import ORACLES, Comparison, PartialReturn, Utility, make_oracle

TASK, STEPS = "GridDelivery", 8


@pytest.fixture(scope="module")
def judged():
    """80 segments of random play, some of them cut short by the end of an episode."""
    segments = _pick(reference_set(TASK, STEPS), np.arange(80))
    assert (segments.mask.sum(1) < STEPS).any()
    return segments


def oracle_of(name):
    oracle = make_oracle(name, TASK)
    return oracle.calibrated(measure(oracle, reference_set(TASK, STEPS))) if hasattr(oracle, "calibrated") else oracle


def opinion(oracle, segments):
    """(n, ...) what an oracle thinks of segments; a comparing one is asked about each beside the first."""
    if isinstance(oracle, Utility):
        return oracle.utility(segments)
    return oracle.compare(segments, _pick(segments, np.zeros(len(segments), int)))


@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_judges_each_segment_by_itself(name, judged):
    oracle = oracle_of(name)
    together = opinion(oracle, judged)
    order = np.random.default_rng(0).permutation(len(judged))
    if isinstance(oracle, Utility):
        assert together.shape in ((len(judged), STEPS), (len(judged), 1))
        np.testing.assert_array_equal(opinion(oracle, _pick(judged, order)), together[order])
        alone = np.concatenate([opinion(oracle, _pick(judged, np.array([i]))) for i in range(len(judged))])
        np.testing.assert_allclose(alone, together, rtol=1e-12)
    else:
        assert together.shape == (len(judged),)
        back = oracle.compare(_pick(judged, np.zeros(len(judged), int)), judged)
        np.testing.assert_allclose(back, -together)


@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_has_no_state_and_changes_nothing(name, judged):
    oracle, before = oracle_of(name), pickle.dumps(judged)
    first = opinion(oracle, judged)
    np.testing.assert_array_equal(opinion(oracle, judged), first)
    np.testing.assert_array_equal(opinion(pickle.loads(pickle.dumps(oracle)), judged), first)
    assert pickle.dumps(judged) == before
    with pytest.raises(AttributeError):
        oracle.anything = 1


@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_tells_segments_apart(name, judged):
    opinions = opinion(oracle_of(name), judged)
    opinions = opinions.sum(1) if opinions.ndim == 2 else opinions[~np.isnan(opinions)]
    assert len(np.unique(opinions)) > 3


@pytest.mark.parametrize("name", ORACLES)
def test_padding_counts_nothing(name, judged):
    oracle = oracle_of(name)
    short = _pick(judged, np.flatnonzero(judged.mask.sum(1) < STEPS))
    noisy = _pick(short, np.arange(len(short)))
    noisy.rewards[~noisy.mask] = 1e6
    noisy.actions[~noisy.mask] = 3
    if isinstance(oracle, Utility):
        utility, ours = opinion(oracle, noisy), opinion(oracle, short)
        np.testing.assert_array_equal(utility, ours)
        if utility.shape[1] == STEPS:
            assert not utility[~short.mask].any()


def play(env, steps=400):
    """A store of a learner's own experience on `env`."""
    store = prefenvs.SegmentStore(env.observation_space, env.action_space)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        store.add(
            observation[None], np.array([action]), after[None], [terminated], [truncated], info["segment_id"][None]
        )
        observation = env.reset()[0] if terminated or truncated else after
    return store


def answers(name, answer, ask, teacher="noisy"):
    env = gym.make(f"prefenvs/{TASK}-v0", oracle=name, teacher=teacher, answer=answer, feedback_seed=7)
    feedback = prefenvs.feedback(env)
    store = play(env)
    query = prefenvs.Query(store.sample(2 * 40, STEPS, np.random.default_rng(0)))
    return ask(feedback, query)


@pytest.mark.parametrize("answer", ["choice", "ranking", "soft"])
@pytest.mark.parametrize("name", ORACLES)
def test_answers_are_shares_or_skips_and_repeat_by_seed_however_they_are_batched(name, answer):
    def one_by_one(feedback, query):
        return prefenvs.Label.concatenate([feedback.ask(query[[i]]) for i in range(query.n)])

    label = answers(name, answer, lambda feedback, query: feedback.ask(query))
    again = answers(name, answer, one_by_one)
    np.testing.assert_array_equal(label.choice, again.choice)
    assert label.choice.shape == (40, 2)
    given = label.choice[~label.skipped]
    np.testing.assert_allclose(given.sum(1), 1.0)
    assert ((given >= 0) & (given <= 1)).all()
    assert len(given) > 5
    if answer == "ranking":
        assert (label.ranking[label.skipped] == -1).all()
        np.testing.assert_array_equal(label.ranking, again.ranking)
    assert label.soft == (answer == "soft")


@pytest.mark.parametrize("name", ORACLES)
def test_an_error_free_answer_follows_the_segment_and_not_its_place(name):
    def both_ways(feedback, query):
        swapped = prefenvs.Query(query.segments[np.arange(80).reshape(-1, 2)[:, ::-1].ravel()])
        return feedback.ask(query), feedback.ask(swapped)

    label, swapped = answers(name, "choice", both_ways, teacher="oracle")
    np.testing.assert_array_equal(label.choice, swapped.choice[:, ::-1])


def test_every_oracle_scores_or_compares():
    for name in ORACLES:
        oracle = make_oracle(name, TASK)
        assert isinstance(oracle, Utility) != isinstance(oracle, Comparison), name


def test_what_is_no_preference_model_is_refused(monkeypatch):
    with pytest.raises(TypeError, match=r"is a class, expected a preference model: PartialReturn\(\.\.\.\)"):
        make_oracle(PartialReturn, TASK)
    monkeypatch.setitem(ORACLES, "mine", PartialReturn())
    with pytest.raises(TypeError, match=r"ORACLES\['mine'\] is PartialReturn\(\), expected a class"):
        make_oracle("mine", TASK)
    monkeypatch.setitem(ORACLES, "mine", dict)
    with pytest.raises(TypeError, match="neither utility"):
        make_oracle("mine", TASK)
