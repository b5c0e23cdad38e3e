"""One self-contained HTML page about runs: what was learned, what it cost, and what the teacher was shown."""

from __future__ import annotations

from prefenvs.report.clips import save_clips
from prefenvs.report.page import write_report

__all__ = ["save_clips", "write_report"]
