"""Settings that every test shares."""

import ctypes.util
import os
import sys

import pytest

# One thread a test process: pytest-xdist already keeps every core busy. Set before numpy, torch or mujoco load.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def offscreen_renderer():
    """The value of MUJOCO_GL that draws without a screen here, or None where it needs no help or there is none."""
    if "MUJOCO_GL" in os.environ or sys.platform != "linux" or os.environ.get("DISPLAY"):
        return None
    return next(
        (gl for gl, library in (("osmesa", "OSMesa"), ("egl", "EGL")) if ctypes.util.find_library(library)), None
    )


if renderer := offscreen_renderer():
    os.environ["MUJOCO_GL"] = renderer

from hypothesis import settings  # noqa: E402 (after the environment is set)

# The same examples on every run, and no deadline: a busy machine is not a failure.
settings.register_profile("prefenvs", deadline=None, derandomize=True)
settings.load_profile("prefenvs")


@pytest.fixture
def cuda():
    """The device of tests marked gpu."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return "cuda"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Each device that learners run on, so that what a GPU is asked to do is done on every machine."""
    return request.getfixturevalue("cuda") if request.param == "cuda" else request.param


@pytest.fixture(scope="session")
def gl():
    """Skips where MuJoCo cannot draw, which is asked of Gymnasium's own environment: an error of ours is no skip."""
    pytest.importorskip("mujoco")
    import gymnasium as gym

    try:
        env = gym.make("HalfCheetah-v5", render_mode="rgb_array", width=64, height=64)
        env.reset()
        env.render()
        env.close()
    except Exception as error:  # each GL library fails in its own way
        pytest.skip(f"no GL library draws here, try apt-get install libegl1 or libosmesa6 and set MUJOCO_GL: {error}")


@pytest.fixture(autouse=True, scope="session")
def one_module_a_file():
    """Fail if a test imported `agents` or `tasks` instead of `prefenvs.agents` and `prefenvs.tasks`."""
    yield
    doubled = {name for name in sys.modules if name.split(".")[0] in ("agents", "tasks")}
    assert not doubled, f"{sorted(doubled)} were imported beside prefenvs.agents and prefenvs.tasks."
