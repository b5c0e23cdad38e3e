"""Pages of recorded results: one a study, docs/papers.md, and the board. Markdown from JSON, nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefenvs._worker import write_atomically
from prefenvs.error import PrefenvsError
from prefenvs.studies import STUDIES
from prefenvs.studies._check import Estimate
from prefenvs.studies._history import checkout, commit_that_fixed, is_clean
from prefenvs.studies._run import dump, summary, unpacked
from prefenvs.studies._study import Statement, load, statement

PAPERS_HEAD = """# Papers

Each paper that has a study: the parts of the suite that it brought, the study that measures its claim, the tests that
hold its numbers, and the verdict. Made by `python -m prefenvs.studies` from the studies and their recorded results.

"""


def record(folder: Path, result: Mapping[str, Any], docs: Path | None = None) -> Path:
    """Keep a full result in docs/results/studies, and make its page, its figure and docs/papers.md.

    A result of another claim that was there before is remembered as amended.

    Raises:
        PrefenvsError: if it may not be recorded; nothing was written.
    """
    docs = docs or checkout() / "docs"
    begun = json.loads((folder / "begun.json").read_text(encoding="utf-8"))
    recordable(result["study"], result["scale"], result["seeds"], begun)
    path = docs / "results" / "studies" / f"{result['study']}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    amended = list(before["amended"]) if before else []
    if before and before["fixed"]["hash"] != result["fixed"]["hash"]:
        amended.append({**before["fixed"], "outcome": before["verdict"]["outcome"]})
    figure = docs / "studies" / f"{result['study']}.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw(result, figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, dump({**result, "amended": amended, "figure": drawn}))
    render(docs)
    return figure.with_suffix(".md")


def draw(result: Mapping[str, Any], path: Path) -> bool:
    """Draw a study's figure as SVG, the same bytes from the same tables; False if it has none.

    Raises:
        ImportError: without matplotlib.
    """
    module = load(result["study"])
    if not hasattr(module, "draw"):
        return False
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures of studies need matplotlib: pip install 'prefenvs[bench]'.") from error
    with matplotlib.rc_context({"svg.hashsalt": result["study"], "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        module.draw(unpacked(result), figure)
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
    return True


def refresh(docs: Path | None = None) -> list[Path]:
    """Make summaries and figures anew from the recorded tables, then the pages; returns what it wrote.

    Results of a study that has since fixed something else stay as they were.
    """
    docs = docs or checkout() / "docs"
    for name, result in recorded(docs).items():
        if result["fixed"]["hash"] == statement(name).fixed:
            result["summary"] = summary(load(name), unpacked(result))
            result["figure"] = draw(result, docs / "studies" / f"{name}.svg")
            write_atomically(docs / "results" / "studies" / f"{name}.json", dump(result))
    return render(docs)


def render(docs: Path | None = None) -> list[Path]:
    """Write the pages of all recorded results, and docs/papers.md; returns what it wrote."""
    docs = docs or checkout() / "docs"
    written = []
    for name, result in recorded(docs).items():
        analysis = docs / "studies" / f"{name}.analysis.md"
        path = docs / "studies" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(result, _read(analysis), statement(name).fixed), encoding="utf-8")
        written.append(path)
    (docs / "papers.md").write_text(papers(docs), encoding="utf-8")
    return [*written, docs / "papers.md"]


def recorded(docs: Path) -> dict[str, dict[str, Any]]:
    """Recorded results of the studies that there are, by name."""
    found = {name: docs / "results" / "studies" / f"{name}.json" for name in STUDIES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.exists()}


def page(result: Mapping[str, Any], analysis: str, fixed_now: str) -> str:
    """The page of a result.

    Args:
        result: as recorded.
        analysis: what a person wrote about it, Markdown.
        fixed_now: hash of what the study fixes today; another one shows as amended.
    """
    paper, fixed = result["paper"], result["fixed"]
    arxiv = f", [arXiv:{paper['arxiv']}](https://arxiv.org/abs/{paper['arxiv']})" if paper["arxiv"] else ""
    lines = [
        f"# {paper['title']}",
        f"{paper['authors']}, {paper['year']}{arxiv}. Parts: {', '.join(result['parts'])}.",
        "## Claim",
        result["claim"],
        f"Verdict: {result['verdict']['outcome']}",
        *([result["verdict"]["note"]] if result["verdict"]["note"] else []),
        table(
            ["estimate", "value", "95% interval", "margin", "outcome"],
            [estimate_row(estimate) for estimate in result["verdict"]["estimates"]],
        ),
        "## Protocol",
        result["protocol"],
        f"Arms: {', '.join(result['arms'])}. Seeds: {', '.join(map(str, result['seeds']))}.",
        "## Results",
        table(list(result["summary"][0]), [list(row.values()) for row in result["summary"]]),
        *([f"![Figure: {result['study']}]({result['study']}.svg)"] if result["figure"] else []),
        *(["## Analysis", analysis.strip()] if analysis.strip() else []),
        "## How it was made",
        "\n".join(
            [
                f"- Fixed beforehand: claim, margins, arms, seeds and settings, SHA-256 `{fixed['hash'][:16]}`, in "
                f"commit `{fixed['commit'][:12]}`.",
                *(
                    f"- Amended: an earlier version, `{old['hash'][:16]}` of commit `{old['commit'][:12]}`, had the "
                    f"verdict {old['outcome']}."
                    for old in result["amended"]
                ),
                *(
                    [f"- Amended since: the study now fixes `{fixed_now[:16]}`, which has not been run."]
                    if fixed_now != fixed["hash"]
                    else []
                ),
                f"- Command: `{result['command']}`, at commit `{result['commit'][:12]}`.",
                f"- Time: {_time(result)}.",
                f"- Versions: {', '.join(f'{name} {v}' for name, v in result['versions'].items())}.",
                f"- Numbers: [{result['study']}.json](../results/studies/{result['study']}.json).",
            ]
        ),
    ]
    return "\n\n".join(lines) + "\n"


def papers(docs: Path) -> str:
    """docs/papers.md: a row a study, by card."""
    results = recorded(docs)
    rows = []
    for study in sorted(map(statement, STUDIES), key=lambda study: (study.paper.card, study.name)):
        paper = study.paper
        title = f"[{paper.title}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.title
        link = f"[{study.name}](studies/{study.name}.md)" if study.name in results else study.name
        tests = ", ".join(f"[{Path(test).name}](../{test})" for test in study.tests)
        rows.append(
            [paper.card, f"{title}, {paper.year}", ", ".join(study.parts), link, tests, standing(study, results)]
        )
    return PAPERS_HEAD + table(["card", "paper", "parts", "study", "tests", "verdict"], rows) + "\n"


def board() -> dict[str, list[str]]:
    """Claim and latest recorded verdict of each study, by name."""
    try:
        results = recorded(checkout() / "docs")
    except PrefenvsError:
        results = {}
    return {name: [standing(study := statement(name), results), study.claim] for name in sorted(STUDIES)}


def standing(study: Statement, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The latest recorded verdict of a study in a word or two."""
    if study.name not in results:
        return "not recorded"
    result = results[study.name]
    amended = result["amended"] or result["fixed"]["hash"] != study.fixed
    return result["verdict"]["outcome"] + (" (amended)" if amended else "")


def estimate_row(estimate: Mapping[str, Any]) -> list[str]:
    """Name, value, interval, margin and outcome of an estimate."""
    held = Estimate(**estimate)
    interval = "exact" if held.low == held.value == held.high else f"[{cell(held.low)}, {cell(held.high)}]"
    bound = "at most" if held.at_most else "at least"
    return [held.name, cell(held.value), interval, f"{bound} {cell(held.margin)}", held.outcome]


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *[[cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(str(value).replace('|', '&#124;') for value in line)} |" for line in lines)


def cell(value: Any) -> str:
    """A number with four digits, a dash for what is not defined, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def recordable(name: str, scale: str, seeds: Sequence[int] | None, begun: Mapping[str, Any] | None = None) -> None:
    """Nothing, if a run begun now, or one that was `begun`, may be recorded.

    Raises:
        PrefenvsError: saying why not.
    """
    study = statement(name)
    if scale != "full" or (seeds is not None and tuple(seeds) != study.seeds["full"]):
        raise PrefenvsError("only full scale with a study's own seeds is recorded: --scale full, without --seeds.")
    if begun is None:
        begun = {"fixed": commit_that_fixed(study), "clean": is_clean()}
    if begun["fixed"] is None:
        raise PrefenvsError(
            f"study {name} cannot be recorded: its claim, margins, arms and seeds were not committed before it ran. "
            "Commit the study, then run it on seeds that were not used."
        )
    if not begun["clean"]:
        raise PrefenvsError(f"study {name} cannot be recorded: the code had changes that were not committed.")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _time(result: Mapping[str, Any]) -> str:
    """CPU seconds; of results recorded before these were measured, the time that runs took beside other work."""
    if "cpu_seconds" in result:
        return f"{result['cpu_seconds']} CPU seconds"
    return f"{result['seconds']} seconds, the sum of what the runs took by the clock, beside other work"
