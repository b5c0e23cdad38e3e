"""Which modules may import which, and what importing the package costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import prefenvs

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "mujoco", "transformers", "dm_control", "stable_baselines3", "matplotlib")
LAYERS = ("tasks", "core", "agents", "top")
TOP = ("studies", "bench", "web", "cli")


def layer(module):
    """The place of a module in `tasks <- core <- agents <- studies, bench, web, cli`; None for other packages."""
    module = prefenvs._HOME.get(module.removeprefix("prefenvs."), module)  # a lazy export is where it comes from
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
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, (
                f"line {node.lineno}: relative imports are not followed here, name the module in full"
            )
            assert node.module is not None
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
                if module.split(".")[0] in ("agents", "tasks"):
                    found.append(f"{inside}:{line} imports {module}, which is prefenvs.{module}")
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
        ("prefenvs/mine.py", "from prefenvs import EvalCallback"),
        ("prefenvs/mine.py", "if not TYPE_CHECKING:\n    import prefenvs.agents.train"),
        ("agents/mine.py", "import prefenvs.cli"),
        ("agents/mine.py", "from prefenvs.studies import something"),
        ("agents/mine.py", "from tasks.grid import GRID_TASKS"),
    ],
)
def test_a_planted_import_against_the_direction_is_found(path, code, tmp_path):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(code)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("prefenvs/mine.py", "if TYPE_CHECKING:\n    from prefenvs.agents import PEBBLE"),
        ("prefenvs/mine.py", "HOME = {'PEBBLE': 'prefenvs.agents.pebble'}"),
        ("agents/mine.py", "from prefenvs.tasks import TASKS\nfrom prefenvs import feedback"),
        ("prefenvs/cli.py", "from prefenvs.agents.train import train"),
    ],
)
def test_no_import_in_the_right_direction_is_blamed(path, code, tmp_path):
    fine = tmp_path / path
    fine.parent.mkdir(parents=True)
    fine.write_text(code)
    assert violations(tmp_path) == []


CALL = """
from prefenvs.cli import main
try:
    main({})
except SystemExit as done:
    assert not done.code, done.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import prefenvs",
        "import prefenvs.agents; prefenvs.agents.AGENTS, prefenvs.TASKS, prefenvs.ORACLES, prefenvs.TEACHERS",
        CALL.format(["list"]),
        CALL.format(["list", "--kind", "agents"]),
        CALL.format(["--help"]),
        CALL.format(["train", "--help"]),
        CALL.format(["list", "studies"]),
        CALL.format(["study", "--help"]),
    ],
    ids=["import", "registries", "list", "list agents", "help", "train help", "list studies", "study help"],
)
def test_no_heavy_package_is_loaded_before_it_is_needed(code):
    program = f"{code}\nimport sys\nprint('LOADED', *sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "prefenvs" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint({"agents", "tasks"})
