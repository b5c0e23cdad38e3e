"""The package that is built holds what the tree holds, and works away from it."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("prefenvs", "agents", "tasks")


def run(*command, cwd, **arguments):
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, **arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def expected_files():
    """Files of the package as the tree has them, whatever their kind: data that is not declared would be missing."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            linked = folder == "prefenvs" and inside.parts[1] in ("agents", "tasks")
            if path.is_file() and "__pycache__" not in inside.parts and not inside.name.startswith(".") and not linked:
                found.add(inside.as_posix() if folder == "prefenvs" else f"prefenvs/{inside.as_posix()}")
    return found


AWAY = """
import sys
target, checkout = sys.argv[1:]
# An editable install puts the checkout on the path, or a finder of its own beside it.
sys.path = [target] + [entry for entry in sys.path if entry != checkout]
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
import gymnasium as gym
import prefenvs, prefenvs.agents
env = gym.make("prefenvs/CartPole-v0")
env.reset(seed=0)
print(env.step(0)[1])
homes = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.split(".")[0] == "prefenvs"}
assert all(home.startswith(target) for home in homes), homes
"""
"""Makes and steps an environment with the checkout out of reach; given the installation and the checkout."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The sdist is built from a copy of the tree, and the wheel from the sdist alone."""
    work = tmp_path_factory.mktemp("build")
    source = work / "source"
    source.mkdir()
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    for extra in ("MANIFEST.in",):
        if (ROOT / extra).exists():
            shutil.copy(ROOT / extra, source / extra)
    backend = "import setuptools.build_meta as b, sys; print('NAME', getattr(b, sys.argv[1])(sys.argv[2]))"
    name = run(sys.executable, "-c", backend, "build_sdist", str(work), cwd=source).split("NAME ")[1].strip()
    with tarfile.open(work / name) as archive:
        archive.extractall(work / "unpacked", filter="tar")
    (unpacked,) = (work / "unpacked").iterdir()
    name = run(sys.executable, "-c", backend, "build_wheel", str(work), cwd=unpacked).split("NAME ")[1].strip()
    return work / name


def test_the_wheel_holds_the_tree_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected_files()


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target))
    run(*pip, str(wheel), cwd=tmp_path)
    isolated = (sys.executable, "-I", "-c", AWAY)
    assert run(*isolated, str(target), str(ROOT), cwd=tmp_path).strip() == "0.0"


@pytest.mark.slow
def test_the_wheel_installs_with_all_it_needs_in_a_fresh_environment(wheel, tmp_path):
    run(sys.executable, "-m", "venv", str(tmp_path / "fresh"), cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    constraints = [f"-c{ROOT / name}" for name in ("constraints.txt", "constraints-torch.txt")]
    run(str(python), "-m", "pip", "install", "--quiet", *constraints, str(wheel), cwd=tmp_path)
    program = (
        "import gymnasium as gym, prefenvs; e = gym.make('prefenvs/HalfCheetah-v0'); e.reset(seed=0); print('made')"
    )
    assert "made" in run(str(python), "-c", program, cwd=tmp_path)
