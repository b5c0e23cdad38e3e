"""The machinery of studies, over one whose claim is false."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import prefenvs
from prefenvs.cli import main
from prefenvs.error import PrefenvsError
from prefenvs.studies import STUDIES, _pages
from prefenvs.studies._history import commit_that_fixed
from prefenvs.studies._pages import papers, record, recordable, refresh, render
from prefenvs.studies._run import code_hash, conduct, dump, summary, unpacked
from prefenvs.studies._study import fixed_hash, making_hash, statement

STUDY = '''"""Two coins, tossed."""

from prefenvs.studies import Paper, decide, over_seeds, per_seed

PAPER = Paper(card="00", name="coins", title="Coins", authors="Nobody", year=2026)
CLAIM = "Ours scores at least one more than theirs."
MARGIN = {"lead": 1.0}  # a comment
PARTS = ("nothing",)
TESTS = ("tests/prefenvs/studies/test_run.py",)
SEEDS = {"smoke": (0, 1), "full": tuple(range(100, 105))}
SCORES = {"ours": 1.0, "their own": 3.0}
STEP, MORE = 0.1, {"unused": 1}


def arms(scale):
    """The two."""
    return tuple(SCORES)


def run(arm, seed, scale):
    return [{"score": SCORES[arm] + 0.1 * seed, "note": "a, b"}]


def check(tables):
    ours, theirs = (per_seed(tables, arm, "score") for arm in SCORES)
    return decide(over_seeds("lead", ours - theirs, MARGIN["lead"]))
'''


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study named `coins` that the package finds; returns a function that changes its text."""
    place = tmp_path / "modules"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    monkeypatch.setitem(STUDIES, "coins", "coins_study")

    def write(old="", new=""):
        import importlib
        import sys

        assert old in STUDY
        (place / "coins_study.py").write_text(STUDY.replace(old, new) if old else STUDY)
        sys.modules.pop("coins_study", None)
        importlib.invalidate_caches()
        return statement("coins")

    monkeypatch.setattr("sys.dont_write_bytecode", True)  # two texts of one second would share a cache
    write()
    return write


def command(*arguments):
    """The exit status of the program."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_a_false_claim_fails_and_one_that_is_true_holds(study, tmp_path, capsys):
    assert command("study", "coins", "--out", tmp_path / "runs") == 1
    shown = capsys.readouterr().out
    assert "Verdict: fails" in shown
    assert "-2     exact     at least 1  fails" in shown
    study('"their own": 3.0', '"their own": -3.0')
    assert command("study", "coins", "--out", tmp_path / "runs", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"]["outcome"] == "holds"
    assert result["seeds"] == [0, 1]


def test_a_job_that_crashes_leaves_no_verdict_and_says_where_it_failed(study, tmp_path, capsys):
    study(
        "    return [{",
        "    if seed == 1 and arm == 'ours':\n        raise RuntimeError('the coin rolled away')\n    return [{",
    )
    assert command("study", "coins", "--out", tmp_path / "runs") == 1
    shown = capsys.readouterr()
    assert "Verdict" not in shown.out
    assert "1 of 4 jobs failed, so there is no verdict" in shown.err
    assert "0-ours-1: RuntimeError: the coin rolled away" in shown.err
    assert not list(tmp_path.rglob("result.json"))
    assert len(list(tmp_path.rglob("table.json"))) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["coin"], "Did you mean 'coins'"),
        (["coins", "--scale", "fall"], "Did you mean 'full'"),
        (["coins", "--seeds", "0"], "seeds=0, expected 1 or more"),
        (["coins", "--jobs", "0"], "expected 1 or more"),
    ],
)
def test_bad_usage_is_told_from_a_failed_claim(study, flags, message, capsys, tmp_path):
    assert command("study", *flags, "--out", tmp_path) == 2
    assert message in capsys.readouterr().err


def test_an_error_in_a_studys_check_is_no_bad_usage(study, tmp_path):
    study("ours - theirs", "ours - None")
    with pytest.raises(TypeError, match="NoneType"):
        main(["study", "coins", "--out", str(tmp_path)])


def test_tables_are_kept_while_the_code_that_makes_them_is_the_same(study, tmp_path):
    folder, _ = conduct("coins", "smoke", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("table.json")}
    study("decide(over", "decide(over_seeds('again', theirs - ours), over")
    same, second = conduct("coins", "smoke", tmp_path, seeds=3)
    assert same == folder
    assert second["seeds"] == [0, 1, 2]
    assert [estimate["name"] for estimate in second["verdict"]["estimates"]] == ["again", "lead"]
    assert len(before) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    study("0.1 * seed", "0.2 * seed")
    other, third = conduct("coins", "smoke", tmp_path)
    assert other != folder
    assert unpacked(third)["ours"][1][0]["score"] == 1.2


def test_seeds_go_on_from_the_last(study, tmp_path):
    assert conduct("coins", "full", tmp_path, seeds=7)[1]["seeds"] == [*range(100, 107)]


@pytest.mark.parametrize(
    ("old", "new", "amends"),
    [
        ("  # a comment", "", False),
        ('    """The two."""\n', "", False),
        ("tuple(range(100, 105))", "(100, 101, 102, 103, 104)", False),
        ('("nothing",)', '("more",)', False),
        ("0.1 * seed", "0.2 * seed", False),
        ('{"lead": 1.0}', '{"lead": 1.1}', True),
        ("at least one", "at least 1", True),
        ("range(100, 105)", "range(100, 106)", True),
        ("return tuple(SCORES)", "return tuple(SCORES)[:1]", True),
        ('"ours": 1.0', '"ours": 2.0', True),
        ("STEP, MORE = 0.1", "STEP, MORE = 0.2", True),
        ("STEP, MORE = 0.1", "STEP, *MORE = 0.1, 1", True),
        ('STEP, MORE = 0.1, {"unused": 1}', 'MORE = {"unused": 1}\nSTEP = 0.1', False),
    ],
)
def test_the_hash_is_of_what_is_fixed_and_not_of_how_it_is_written(old, new, amends):
    assert old in STUDY
    assert (fixed_hash(STUDY.replace(old, new)) != fixed_hash(STUDY)) is amends


def test_what_makes_tables_is_all_but_the_functions_that_read_them():
    assert making_hash(STUDY.replace("decide(", "print() or decide(")) == making_hash(STUDY)
    assert making_hash(STUDY + "\n\nsummary = means()\n") == making_hash(STUDY)
    assert making_hash(STUDY.replace("0.1 * seed", "0.2 * seed")) != making_hash(STUDY)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("teacher.py", True),
        ("agents/pebble.py", True),
        ("tasks/control/scores.json", True),
        ("oracles/experts/Pendulum.safetensors", True),
        ("report/page.html", False),
        ("cli/training.py", False),
        ("studies/_show.py", False),
    ],
)
def test_the_folder_of_a_run_is_named_by_what_makes_its_tables(file, counts, tmp_path, monkeypatch):
    real, package = Path(prefenvs.__file__).parent, tmp_path / "prefenvs"
    package.mkdir()
    for name in ("agents", "tasks"):  # beside the package, which has links to them, as in a checkout
        (tmp_path / name).mkdir()
        (package / name).symlink_to(Path("..") / name)
    for path in (real / file, real / "agents" / "__init__.py", real / "tasks" / "__init__.py"):
        copy = package / path.relative_to(real)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(prefenvs, "__file__", str(package / "__init__.py"))
    before = code_hash(statement("starc"))
    (package / file).write_bytes(b"changed")
    assert (code_hash(statement("starc")) != before) is counts


def test_what_is_fixed_must_be_there_and_literal(study):
    with pytest.raises(ValueError, match=r"MARGIN of .*coins_study.py: expected literals"):
        study('{"lead": 1.0}', '{"lead": float(1)}')
    with pytest.raises(ValueError, match="has no MARGIN"):
        study("MARGIN", "margin")
    with pytest.raises(ValueError, match="has no check"):
        study("def check", "def verdict")


def test_the_commit_that_fixed_a_claim_is_the_first_that_had_it(study, tmp_path):
    place = tmp_path / "modules"
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments):
        done = subprocess.run(
            ["git", *arguments], cwd=place, capture_output=True, text=True, check=True, env=os.environ | identity
        )
        return done.stdout.strip()

    git("init", "-q")
    texts = [("range(100, 105)", "range(100, 106)"), ("", ""), ("0.1 * seed", "0.2 * seed"), ("1.0}", "9.0}")]
    commits = []
    for old, new in texts:
        study(old, new)
        git("add", "-A")
        git("commit", "-qm", "Change")
        commits.append(git("rev-parse", "HEAD"))
    assert commit_that_fixed(study("0.1 * seed", "0.3 * seed")) == commits[1], "only its run differs from the second"
    assert commit_that_fixed(study("1.0}", "9.0}")) == commits[3]
    assert commit_that_fixed(study("1.0}", "8.0}")) is None


def full(tmp_path, **begun):
    """A full run whose notes say what they are told to."""
    folder, _ = conduct("coins", "full", tmp_path / "runs", command="prefenvs study coins --scale full")
    noted = json.loads((folder / "begun.json").read_text()) | {"fixed": "c" * 40, "commit": "d" * 40, "clean": True}
    (folder / "begun.json").write_text(json.dumps(noted | begun))
    return conduct("coins", "full", tmp_path / "runs", command="prefenvs study coins --scale full")


@pytest.mark.parametrize(
    ("begun", "message"), [({"fixed": None}, "were not committed before it ran"), ({"clean": False}, "had changes")]
)
def test_a_run_whose_claim_was_not_fixed_before_it_is_not_recorded(study, tmp_path, begun, message):
    folder, result = full(tmp_path, **begun)
    with pytest.raises(PrefenvsError, match=message):
        record(folder, result, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_only_full_scale_with_its_own_seeds_is_recorded(study, tmp_path, capsys):
    with pytest.raises(PrefenvsError, match="only full scale"):
        recordable("coins", "smoke", None)
    with pytest.raises(PrefenvsError, match="only full scale"):
        recordable("coins", "full", (100, 101))
    assert command("study", "coins", "--record", "--out", tmp_path / "runs") == 1
    assert "only full scale" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "said before anything runs"


def test_the_page_says_it_all_keeps_the_analysis_and_shows_amendments(study, tmp_path):
    docs = tmp_path / "docs"
    path = record(*full(tmp_path), docs)
    text = path.read_text()
    for part in (
        "# Coins",
        "Ours scores at least one more than theirs.",
        "Verdict: fails",
        "| lead | -2 | exact | at least 1 | fails |",
        "Two coins, tossed.",
        "Arms: ours, their own. Seeds: 100, 101, 102, 103, 104.",
        f"SHA-256 `{statement('coins').fixed[:16]}`, in commit `cccccccccccc`",
        "`prefenvs study coins --scale full`, at commit `dddddddddddd`",
        "numpy 2.",
    ):
        assert part in text
    assert "Amended" not in text
    (docs / "studies" / "coins.analysis.md").write_text("Theirs was heavier.\n")
    render(docs)
    assert "## Analysis\n\nTheirs was heavier.\n\n## How it was made" in path.read_text()

    before = statement("coins").fixed
    study('"their own": 3.0', '"their own": -3.0')
    render(docs)
    assert "Amended since" in path.read_text()
    assert "fails (amended)" in papers(docs)
    record(*full(tmp_path), docs)
    text = path.read_text()
    assert "Verdict: holds" in text
    assert f"an earlier version, `{before[:16]}` of commit `cccccccccccc`, had the verdict fails" in text
    assert "Theirs was heavier." in text
    assert "holds (amended)" in papers(docs)


def test_a_result_is_read_as_it_was_written(study, tmp_path):
    _, result = conduct("coins", "smoke", tmp_path)
    text = dump(result | {"protocol": 'a "b"\n  c', "summary": [{"x": float("nan")}]})
    again = json.loads(text)
    assert again["protocol"] == 'a "b"\n  c'
    assert unpacked(again) == unpacked(result)
    assert unpacked(again)["their own"][1] == [{"score": 3.1, "note": "a, b"}]


def test_refreshing_makes_the_summary_anew_from_the_tables_unless_the_study_was_amended(study, tmp_path):
    docs = tmp_path / "docs"
    record(*full(tmp_path), docs)
    path = docs / "results" / "studies" / "coins.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"summary": [{"arm": "wrong"}]}))
    refresh(docs)
    assert json.loads(path.read_text()) == kept
    study("1.0}", "9.0}")
    path.write_text(json.dumps(kept | {"summary": [{"arm": "as it was"}]}))
    refresh(docs)
    assert json.loads(path.read_text())["summary"] == [{"arm": "as it was"}]


def test_without_a_summary_of_its_own_a_study_has_a_row_an_arm():
    tables = {"first": {0: [{"kind": "a", "x": 1.0}, {"kind": "b", "x": 5}], 1: [{"kind": "a", "x": 3.0}]}}
    assert summary(object(), tables) == [{"arm": "first", "x": 3.0}]


def test_the_board_has_claim_and_verdict(study, monkeypatch, tmp_path, capsys):
    docs = tmp_path / "docs"
    record(*full(tmp_path), docs)
    monkeypatch.setattr(_pages, "checkout", lambda: tmp_path)
    assert command("list", "studies") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("coins"))
    assert line.split(maxsplit=1)[1].startswith("fails  Ours scores")


def test_a_pipe_in_a_name_does_not_break_a_table():
    assert _pages.table(["a|b"], [["x"]]) == "| a&#124;b |\n| --- |\n| x |"
