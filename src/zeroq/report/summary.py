"""The summary of many runs as one page of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroq.report.page import environment, total_seconds


def render_summary(summary: Mapping[str, Any]) -> str:
    """The page of what summary.json holds, with a link to each run's report beside it."""
    rows = [
        {**entry, "time": None if entry["seconds"] is None else total_seconds(entry)} for entry in summary["models"]
    ]
    done = sum(entry["error"] is None for entry in summary["models"])
    return environment().get_template("summary.html.j2").render(summary=summary, rows=rows, done=done)
