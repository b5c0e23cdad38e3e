"""The documents say what the tree says: links lead somewhere, and the recipes of CONTRIBUTING.md work as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.byte_pairs import byte_pairs

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


def make_local_model(folder):
    """A tiny GPT-2 and its tokenizer with a chat template, as a user may have them in a folder."""
    transformers = pytest.importorskip("transformers", reason="needs the text extra")
    raw = byte_pairs(["the sea is blue", "Tell me about the sea."] * 5, ["<e>"])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<e>", pad_token="<e>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def test_the_page_of_language_models_runs_from_top_to_bottom(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the bench extra")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/text.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 8
    code = "\n".join(blocks)
    for full, small in (
        ('{"width": 64, "steps": 600}', '{"layers": 1, "width": 16, "heads": 2, "steps": 20, "cache": False}'),
        ("learn(7680", "learn(128"),
        ("learn(2560", "learn(64"),
        ("every=640", "every=64"),
        ("budget=1000", "budget=120"),
        ("queries=800", "queries=60"),
    ):
        assert code.count(full) == 1
        code = code.replace(full, small)
    make_local_model(tmp_path / "my-model")
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "page.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {"over_optimisation.svg", "pairs.jsonl", "tuned.zip"} <= {file.name for file in tmp_path.iterdir()}


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
