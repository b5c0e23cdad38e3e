"""Answers in a file are those that were given, about what they were given about."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefenvs
from prefenvs import Label, Query, Segments
from prefenvs.agents.reward_models import PreferenceData, RewardEnsemble, fit
from prefenvs.segments import map_arrays


def segments(n=12, steps=4, dtype=np.float32, keys=None, task="Mine"):
    """Windows of different lengths; observations are a dict with these keys, if there are any."""
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return (100 * rng.normal(size=(n, *shape))).astype(dtype)

    seen = {key: drawn(steps + 1, 3) for key in keys} if keys else drawn(steps + 1, 2, 2)
    mask = np.arange(steps) < rng.integers(1, steps + 1, (n, 1))
    ids = rng.integers(99, size=(n, 3))
    return Segments(seen, rng.integers(5, size=(n, steps)), mask, mask[:, -1], ~mask[:, -1], ids, task)


def assert_same(one, two):
    """All fields are equal, with their types."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, Segments):
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])
                assert a[key].dtype == b[key].dtype
        else:
            assert a == b, field.name


CHOICE = Label(np.array([[1.0, 0.0], [0.5, 0.5], [np.nan, np.nan]] * 2))
RANKED = Label(np.eye(4)[:3], ranking=np.array([[0, 1, 2, 3], [2, 0, 1, 3], [-1, -1, -1, -1]]), user=np.arange(3))
RATED = Label(np.ones((12, 1)), ratings=np.arange(12.0)[:, None], strength=np.linspace(0, 1, 12))
SOFT = Label(np.full((6, 2), 0.5), soft=True)


@pytest.mark.parametrize("label", [CHOICE, RANKED, RATED, SOFT], ids=["choice", "ranking of 4", "rating", "soft"])
@pytest.mark.parametrize("of", [{}, {"dtype": np.uint8}, {"dtype": np.float64}, {"keys": ("a/b", "c")}], ids=str)
def test_answers_are_read_as_they_were_written(label, of, tmp_path):
    query = Query(segments(**of), k=label.choice.shape[1])
    prefenvs.save_answers(tmp_path / "new" / "answers.safetensors", query, label)
    found = prefenvs.load_answers(tmp_path / "new" / "answers.safetensors")
    for ours, theirs in zip((query, label), found, strict=True):
        assert_same(ours, theirs)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["answers.safetensors"]


def test_context_is_kept(tmp_path):
    context = {
        "user": np.arange(6),
        "criterion": np.array(["speed", "", "style", "\u00fcber", "speed", "x"]),
        "own/weights": np.random.default_rng(0).normal(size=(6, 2, 3)),
        "asked": np.array([True, False] * 3),
    }
    query = Query(segments(), context=context)
    prefenvs.save_answers(tmp_path / "a.safetensors", query, CHOICE)
    assert_same(prefenvs.load_answers(tmp_path / "a.safetensors")[0], query)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="this machine has no longer numbers")
def test_numbers_that_no_file_can_hold_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"context/weight holds \w+, expected numbers of at most 8 bytes"):
        context = {"weight": np.zeros(6, np.longdouble)}
        prefenvs.save_answers(tmp_path / "a.safetensors", Query(segments(), context=context), CHOICE)
    assert not list(tmp_path.iterdir())


def test_numbers_of_another_byte_order_are_kept(tmp_path):
    context = {"weight": np.arange(6, dtype=">f8"), "user": np.arange(6, dtype=">i4")}
    prefenvs.save_answers(tmp_path / "a.safetensors", Query(segments(), context=context), CHOICE)
    found = prefenvs.load_answers(tmp_path / "a.safetensors")[0].context
    for name, values in context.items():
        np.testing.assert_array_equal(found[name], values)


def test_views_and_no_questions_at_all_are_kept(tmp_path):
    rows = segments(24)
    views = [
        map_arrays(lambda a: np.asfortranarray(a)[::2], getattr(rows, name)) for name in ("observations", "actions")
    ]
    query = Query(Segments(*views, rows.mask[::2], rows.terminated[::2], rows.truncated[::2], rows.ids[::2]))
    for part in (slice(None), slice(0, 0)):
        prefenvs.save_answers(tmp_path / "a.safetensors", query[part], CHOICE[part])
        found = prefenvs.load_answers(tmp_path / "a.safetensors")
        assert_same(found[0], query[part])
        assert_same(found[1], CHOICE[part])


def test_what_does_not_belong_together_is_refused_and_not_written(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"label has shape \(6, 2\), expected \(n, k\) = \(3, 4\)"):
        prefenvs.save_answers(path, Query(segments(), k=4), CHOICE)
    with pytest.raises(TypeError, match="context/criterion holds object, expected numbers"):
        prefenvs.save_answers(path, Query(segments(), context={"criterion": np.array([None] * 6)}), CHOICE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
        lambda content: b"",
        lambda content: (2).to_bytes(8, "little") + b"{}",
    ],
    ids=["half", "a byte less", "a bit", "empty", "no answers"],
)
def test_a_damaged_file_is_refused_and_left(harm, tmp_path):
    path = tmp_path / "a.safetensors"
    prefenvs.save_answers(path, Query(segments()), CHOICE)
    harmed = harm(path.read_bytes())
    path.write_bytes(harmed)
    with pytest.raises(prefenvs.DamagedFile, match=r"cannot be read as answers.*left as it was|It was left as it is"):
        prefenvs.load_answers(path)
    assert path.read_bytes() == harmed
    with pytest.raises(FileNotFoundError, match="save_answers"):
        prefenvs.load_answers(tmp_path / "none.safetensors")


def test_a_reward_model_learns_from_a_file_what_it_learns_from_the_answers(tmp_path):
    env = gym.make("prefenvs/Pendulum-v0", budget=40)
    store = prefenvs.SegmentStore(env.observation_space, env.action_space, task="Pendulum")
    feedback = prefenvs.feedback(env)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(150):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        store.add(observation[None], action[None], after[None], [terminated], [truncated], info["segment_id"][None])
        observation = after
    query = Query(store.sample(80, 20, np.random.default_rng(0)))
    asked = query, feedback.ask(query)
    prefenvs.save_answers(tmp_path / "a.safetensors", *asked)

    def learned(query, label):
        rng = torch.Generator().manual_seed(0)
        model = RewardEnsemble(env.observation_space, env.action_space, hidden=(8,), rng=rng)
        data = PreferenceData()
        data.add(model, query, label)
        return fit(model, torch.optim.Adam(model.parameters(), lr=1e-2), data, rng=rng)

    report = learned(*prefenvs.load_answers(tmp_path / "a.safetensors"))
    assert report == learned(*asked)
    assert report.accuracy > 0.8
