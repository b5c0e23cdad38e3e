"""Pictures of the tasks. Skipped where nothing can draw."""

import importlib.util

import numpy as np
import pytest

from prefenvs.tasks.control import CONTROL_TASKS
from prefenvs.tasks.control.scores import make_task

SPECS = {spec.name: spec for spec in CONTROL_TASKS}
CLASSIC = [name for name, spec in SPECS.items() if "classic" in spec.entry_point]
SIMULATED = ["HalfCheetah", "Ant", "WalkerWalk", "FishSwim"]


def frames_of_a_restored_state(task):
    """A frame after five steps, one three steps later, and the first again from its restored state."""
    task.action_space.seed(0)
    task.reset(seed=0)
    for _ in range(5):
        task.step(task.action_space.sample())
    state, first = task.get_state(), task.render().copy()
    for _ in range(3):
        task.step(task.action_space.sample())
    later = task.render().copy()
    task.set_state(state)
    restored = task.render().copy()
    task.close()
    return first, later, restored


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_tasks_draw_and_draw_the_same_again(name):
    pytest.importorskip("pygame", reason='drawing needs pygame: pip install "prefenvs[render]"')
    first, later, restored = frames_of_a_restored_state(make_task(SPECS[name], render_mode="rgb_array"))
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert not np.array_equal(first, later)
    np.testing.assert_array_equal(restored, first)


@pytest.mark.parametrize("name", SIMULATED)
@pytest.mark.usefixtures("gl")
def test_simulated_tasks_draw_at_the_asked_size_and_draw_the_same_again(name):
    if SPECS[name].extra and importlib.util.find_spec("dm_control") is None:
        pytest.skip('needs pip install "prefenvs[dmc]"')
    task = make_task(SPECS[name], render_mode="rgb_array", width=96, height=64)
    first, later, restored = frames_of_a_restored_state(task)
    assert first.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, later)
    np.testing.assert_array_equal(restored, first)


def test_without_a_render_mode_nothing_is_drawn():
    task = make_task(SPECS["HalfCheetah"])
    task.reset(seed=0)
    assert task.render() is None
