"""The README's code runs as it stands, with fewer steps."""

import re
from pathlib import Path

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_readmes_python_runs_from_top_to_bottom(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 4
    code = "\n".join(blocks).replace("200_000, progress_bar=True", "300")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["label"].choice.shape == (10, 2)
    assert names["feedback"].remaining == 90
    assert names["model"].trained
