"""The documents say what the tree says: links lead somewhere, and the recipes of CONTRIBUTING.md work as they stand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECIPES = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)


def touched():
    """Files that the recipes change or add."""
    return [path for recipe in RECIPES for path in re.findall(r"^\+\+\+ b/(\S+)", recipe, re.M)]


def broken_links(document):
    """Targets of a document's relative links that are not there."""
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    return [target for target in targets if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    assert broken_links(document) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "page.md").write_text("[a](page.md#part) [b](gone.md) [c](https://example.org/gone.md)")
    assert broken_links(tmp_path / "page.md") == ["gone.md"]


@pytest.fixture(scope="module")
def copy_with_recipes(tmp_path_factory):
    """A copy of the tree to which every recipe of CONTRIBUTING.md was applied."""
    assert len(RECIPES) == 4
    copy = tmp_path_factory.mktemp("recipes")
    for name in ("prefenvs", "agents", "tasks", "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for recipe in RECIPES:
        patch = subprocess.run(
            ["git", "apply", "-"], input=recipe, text=True, capture_output=True, cwd=copy, check=False
        )
        assert patch.returncode == 0, patch.stderr
    return copy


def test_the_recipes_apply_and_pass_their_own_tests(copy_with_recipes):
    tests = [path for path in touched() if path.startswith("tests/")]
    assert len(tests) == 4
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=copy_with_recipes, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_recipes_are_well_formatted(copy_with_recipes):
    for verb in (["format", "--check"], ["check"]):
        command = [sys.executable, "-m", "ruff", *verb, "--no-cache", *touched()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=copy_with_recipes, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
