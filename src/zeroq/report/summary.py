"""The summary of many runs as one page of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroq.report.page import environment
from zeroq.report.words import stage_seconds


def render_summary(summary: Mapping[str, Any]) -> str:
    """The page of what summary.json holds, with a link to each run's report beside it."""
    rows = [
        {**entry, "time": None if (spent := entry["seconds"]) is None else sum(stage_seconds(spent).values())}
        for entry in summary["models"]
    ]
    done = sum(entry["error"] is None for entry in summary["models"])
    return environment().get_template("summary.html.j2").render(summary=summary, rows=rows, done=done)
