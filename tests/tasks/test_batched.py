"""A batch has the numbers of as many single tasks, to the last bit, and its states go on in a single task."""

import importlib
import os
import threading

import numpy as np
import pytest

from prefenvs.tasks import TASKS

SPECS = [spec for spec in TASKS.values() if spec.batched]
N, STEPS, CUT_AT = 3, 60, 40
ROUNDED = {"InvertedDoublePendulum"}  # Gymnasium squares numbers one at a time by pow(x, 2), which may round otherwise


def load(entry):
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def make_single(spec):
    return load(spec.entry_point)(**spec.kwargs)


def arrays(observation):
    """The arrays of an observation by name, whether its space is a Dict or not."""
    return observation if isinstance(observation, dict) else {"observation": observation}


def assert_observed(observations, singles, rows=slice(None)):
    for name, array in arrays(observations).items():
        np.testing.assert_array_equal(array[rows], [arrays(single)[name] for single in singles], err_msg=name)


def generators(rows):
    return [np.random.Generator(np.random.PCG64(10 + row)) for row in rows]


def assert_same_states(batch, singles):
    for row, single in enumerate(singles):
        ours, theirs = batch.get_state(row), single.get_state()
        assert ours.keys() == theirs.keys()
        for name in ours:
            compare = np.testing.assert_allclose if name == "factors" else np.testing.assert_array_equal
            compare(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_batch_equals_single_tasks_bit_for_bit_across_resets(spec):
    batch, singles = load(spec.batched)(make_single(spec), N), [make_single(spec) for _ in range(N)]
    rows = np.arange(N)
    batch.reset(rows, generators(rows))
    for row, single in enumerate(singles):
        single.np_random = np.random.Generator(np.random.PCG64(10 + row))
    assert_observed(batch.observe(), [single.reset()[0] for single in singles])
    assert_same_states(batch, singles)
    space = batch.task.action_space
    space.seed(0)
    began = 0
    for t in range(STEPS):
        actions = np.stack([space.sample() for _ in rows])
        batch.remember(rows)
        step = batch.step(actions, rows)
        results = [single.step(action) for single, action in zip(singles, actions, strict=True)]
        rewards, terminated = (np.array([result[i] for result in results]) for i in (1, 2))
        assert_observed(batch.observe(), [result[0] for result in results])
        np.testing.assert_array_equal(step.terminated, terminated)
        factors = np.array([[s.reward_factors()[name] for name in spec.factors] for s in singles])
        tolerance = 1e-10 if spec.name in ROUNDED else 0
        np.testing.assert_allclose(step.factors, factors, rtol=0, atol=tolerance)
        np.testing.assert_allclose(step.rewards, rewards, rtol=0, atol=tolerance)
        if spec.has_success:
            np.testing.assert_array_equal(step.success, [single.success() for single in singles])
        if t % 10 == 0:
            assert_same_states(batch, singles)
        over = np.union1d([0, 2], np.flatnonzero(terminated)) if t == CUT_AT else np.flatnonzero(terminated)
        if len(over):
            began += 1
            batch.reset(over, [batch._generators[row] for row in over])
            assert_observed(batch.observe(), [singles[row].reset()[0] for row in over], over)
    assert began
    batch.close()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_rows_that_do_not_act_stay_as_they_are(spec):
    batch, rows = load(spec.batched)(make_single(spec), N), np.arange(N)
    batch.reset(rows, generators(rows))
    before, states = batch.observe(), [batch.get_state(row) for row in rows]
    batch.step(np.stack([batch.task.action_space.sample()] * N), np.array([1]))
    for name, array in arrays(batch.observe()).items():
        np.testing.assert_array_equal(array[[0, 2]], arrays(before)[name][[0, 2]])
    for row in (0, 2):
        for name, array in batch.get_state(row).items():
            np.testing.assert_array_equal(array, states[row][name])
    batch.step(np.stack([batch.task.action_space.sample()] * N), np.array([], int))
    batch.close()


@pytest.mark.parametrize("name", ["HalfCheetah", "Ant"])
def test_the_number_of_threads_changes_nothing_and_close_ends_them(name):
    spec, before = TASKS[name], threading.active_count()
    seen = []
    for threads in (1, 2, 5):
        batch, rows = load(spec.batched)(make_single(spec), 5, threads=threads), np.arange(5)
        batch.reset(rows, generators(rows))
        rng = np.random.default_rng(0)
        for _ in range(20):
            batch.step(rng.uniform(-1, 1, (5, *batch.task.action_space.shape)).astype(np.float32), rows)
        seen.append(batch.observe().tobytes())
        batch.close()
        assert threading.active_count() == before
    assert len(set(seen)) == 1


def test_a_system_that_binds_no_process_to_cores_steps_in_as_many_threads_as_it_has(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS has none
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    spec, before = TASKS["HalfCheetah"], threading.active_count()
    batch, rows = load(spec.batched)(make_single(spec), N), np.arange(N)
    batch.reset(rows, generators(rows))
    assert threading.active_count() == before + 1  # the calling thread is the second
    batch.close()
