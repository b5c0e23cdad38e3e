"""Which modules may import which, and what importing the package costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "mujoco", "transformers", "dm_control", "stable_baselines3")
LAYERS = ("tasks", "core", "agents", "top")
TOP = ("studies", "bench", "web", "cli")


def layer(module):
    """The place of a module in `tasks <- core <- agents <- studies, bench, web, cli`; None for other packages."""
    parts = module.split(".")
    if parts[0] != "prefenvs":
        return None
    second = parts[1] if len(parts) > 1 else ""
    if second in ("tasks", "agents"):
        return second
    return "top" if second in TOP else "core"


def imported(tree):
    """Modules that a file imports, inside functions too; imports for type checkers alone do not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "prefenvs":
                yield from ((f"prefenvs.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def violations(root):
    """Imports that point to the right, as text."""
    found = []
    for folder in ("prefenvs", "agents", "tasks"):
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root)
            if folder == "prefenvs" and len(inside.parts) > 1 and inside.parts[1] in ("agents", "tasks"):
                continue  # links
            name = ".".join(inside.with_suffix("").parts)
            own = layer(name if folder == "prefenvs" else f"prefenvs.{name}")
            for module, line in imported(ast.parse(path.read_text(encoding="utf-8"))):
                other = layer(module)
                if other is not None and LAYERS.index(other) > LAYERS.index(own):
                    found.append(f"{inside}:{line} ({own}) imports {module} ({other})")
    return found


def test_import_directions():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("tasks/control/mine.py", "from prefenvs.labelling import feedback"),
        ("prefenvs/mine.py", "def f():\n    from prefenvs.agents import PEBBLE"),
        ("agents/mine.py", "import prefenvs.cli"),
    ],
)
def test_a_planted_import_against_the_direction_is_found(path, code, tmp_path):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(code)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "import prefenvs",
        "import prefenvs.cli as cli\ntry: cli.main(['list'])\nexcept SystemExit: pass",
        "import prefenvs.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass",
    ],
    ids=["import", "list", "help"],
)
def test_no_heavy_package_is_loaded_before_it_is_needed(code):
    program = f"{code}\nimport sys\nprint('LOADED', *sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "prefenvs" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint({"agents", "tasks"})
