import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [path for top in ("prefenvs", "agents", "tasks") for path in sorted((ROOT / top).rglob("*.py"))]


def module_name(path):
    """The name that users import a file by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "prefenvs" else ("prefenvs", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# Links within prefenvs show the same files again.
WITH_EXAMPLES = sorted({module_name(path) for path in SOURCES if ">>>" in path.read_text(encoding="utf-8")})


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, "run python -m doctest, or read the captured output"
