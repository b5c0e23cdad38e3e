"""What every study promises, and that its recorded page says what was recorded."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from prefenvs.studies import STUDIES
from prefenvs.studies._pages import page, papers, recorded
from prefenvs.studies._run import conduct, summary, unpacked, verdict_of
from prefenvs.studies._study import load, statement

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
RECORDED = recorded(DOCS)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Results at smoke scale, each made once."""
    out, made = tmp_path_factory.mktemp("studies"), {}

    def result(name):
        if name not in made:
            made[name] = conduct(name, "smoke", out)[1]
        return made[name]

    return result


def permutations(arms):
    """All ways to mix up the labels of a few arms, or some ways in which every label is wrong."""
    if len(arms) <= 4:
        return list(itertools.permutations(arms))[1:]
    rng, found = np.random.default_rng(0), []
    while len(found) < 20:
        mixed = tuple(rng.permutation(arms).tolist())
        if all(a != b for a, b in zip(arms, mixed, strict=True)):
            found.append(mixed)
    return found


def survivors(name, tables):
    """The mixed-up labels under which a study's claim still holds."""
    check, arms = load(name).check, tuple(tables)
    mixed = {labels: dict(zip(arms, (tables[arm] for arm in labels), strict=True)) for labels in permutations(arms)}
    return [labels for labels, shuffled in mixed.items() if check(shuffled).outcome == "holds"]


@pytest.mark.parametrize("name", STUDIES)
def test_it_says_beforehand_what_it_claims_and_its_tests_exist(name):
    study = statement(name)
    assert study.claim and study.protocol and study.margin and study.parts
    assert set(study.seeds["smoke"]).isdisjoint(study.seeds["full"]), "full runs use fresh seeds"
    assert min(study.seeds["full"]) >= 100, "seeds below 100 are for tuning"
    assert len(set(study.seeds["full"])) == len(study.seeds["full"]) >= 3
    assert study.tests and all((ROOT / test).is_file() for test in study.tests)


@pytest.mark.parametrize("name", STUDIES)
def test_its_smoke_run_gives_a_verdict(name, smoke):
    result = smoke(name)
    assert result["verdict"]["outcome"] in ("holds", "fails", "undecided")
    assert result["verdict"]["estimates"] and result["summary"]
    study, tables = statement(name), unpacked(result)
    assert tuple(tables) == tuple(load(name).arms("smoke"))
    assert all(tuple(seeds) == study.seeds["smoke"] for seeds in tables.values())
    assert verdict_of(result) == load(name).check(tables), "check is pure"


@pytest.mark.parametrize("name", STUDIES)
def test_with_its_labels_mixed_up_its_claim_does_not_hold(name, smoke):
    assert survivors(name, unpacked(smoke(name))) == []


@pytest.mark.parametrize("name", STUDIES)
def test_its_figure_can_be_drawn(name, smoke, tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the extra bench")
    from prefenvs.studies._pages import draw

    twice = [draw(smoke(name), tmp_path / f"{i}.svg") for i in (0, 1)]
    if all(twice):
        first, second = ((tmp_path / f"{i}.svg").read_bytes() for i in (0, 1))
        assert first == second
        assert len(first) < 100_000


@pytest.mark.parametrize("name", RECORDED)
def test_the_recorded_verdict_is_that_of_the_recorded_tables_and_goes_when_labels_are_mixed_up(name):
    result = RECORDED[name]
    tables = unpacked(result)
    if result["fixed"]["hash"] == statement(name).fixed:
        found, held = load(name).check(tables), verdict_of(result)
        assert found.outcome == held.outcome
        for mine, its in zip(found.estimates, held.estimates, strict=True):
            assert mine.name == its.name
            assert (mine.value, mine.low, mine.high) == pytest.approx((its.value, its.low, its.high), nan_ok=True)
        assert survivors(name, tables) == []
        ours = summary(load(name), tables)
        assert [list(row) for row in ours] == [list(row) for row in result["summary"]], "run python -m prefenvs.studies"
        for mine, its in zip(ours, result["summary"], strict=True):
            assert list(mine.values()) == pytest.approx(list(its.values()), nan_ok=True)


@pytest.mark.parametrize("name", RECORDED)
def test_the_committed_page_is_the_recorded_result(name):
    analysis = DOCS / "studies" / f"{name}.analysis.md"
    text = analysis.read_text(encoding="utf-8") if analysis.exists() else ""
    committed = (DOCS / "studies" / f"{name}.md").read_text(encoding="utf-8")
    assert committed == page(RECORDED[name], text, statement(name).fixed), "run python -m prefenvs.studies"
    assert (DOCS / "studies" / f"{name}.svg").exists() == RECORDED[name]["figure"]


def test_the_committed_list_of_papers_is_that_of_the_studies():
    assert (DOCS / "papers.md").read_text(encoding="utf-8") == papers(DOCS), "run python -m prefenvs.studies"


def test_no_result_or_page_is_left_of_a_study_that_is_gone():
    results = {path.stem for path in (DOCS / "results" / "studies").glob("*.json")}
    pages = {path.name.split(".")[0] for path in (DOCS / "studies").glob("*")}
    assert results | pages <= set(STUDIES)
