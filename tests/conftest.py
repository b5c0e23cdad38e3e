"""Settings that every test shares."""

import contextlib
import ctypes.util
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


@functools.cache
def load_emulated_device(config):
    """Its name, or None where it cannot be compiled."""
    compiler = shutil.which("g++")
    if sys.platform != "linux" or compiler is None:
        return None
    from tests.emulated_device import load

    kept = getattr(config, "cache", None)  # none with -p no:cacheprovider
    return load(compiler, kept.mkdir("emulated_device") if kept else Path(tempfile.mkdtemp()))


def pytest_collection_finish(session):
    """Make the emulated device known if a test needs it: torch counts devices when autograd first runs."""
    if any("emulated" in item.nodeid for item in session.items):
        with contextlib.suppress(subprocess.CalledProcessError):  # the tests that need it will say
            load_emulated_device(session.config)


@pytest.fixture
def emulated(pytestconfig):
    """A device that refuses what CUDA refuses, without a GPU; see emulated_device.py."""
    import torch

    name = load_emulated_device(pytestconfig)
    if name is None:
        pytest.skip("the emulated device is compiled by g++, on Linux")
    # Modules that move to CUDA keep their parameters, which optimizers hold. To other devices they do so by swapping.
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield name
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.fixture(params=["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Each device that learners run on, so that what a GPU is asked to do is done on every machine."""
    return request.param if request.param == "cpu" else request.getfixturevalue(request.param)


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
