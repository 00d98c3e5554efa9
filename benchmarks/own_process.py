"""A measurement in a process of its own, so that peak memory and threads are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import ROOT


def run_apart(
    command: Sequence[str], time_limit: float, places: Mapping[str, Path] | None = None
) -> tuple[dict[str, Any], str | None]:
    """What `python -m COMMAND --out FILE` wrote; nothing, and why, if it failed.

    time_limit: seconds.  places: paths that must not enter a result, by the words that stand for them.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-row-") as folder:
        out = Path(folder) / "row.json"
        hidden = {"TEMPORARY": Path(folder), **(places or {})}
        surroundings = os.environ | {"TMPDIR": folder}  # what a row that is ended leaves goes with this folder
        try:
            done = subprocess.run(
                [sys.executable, "-m", *command, "--out", str(out)],
                cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=time_limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {}, f"it took longer than {time_limit:g} s"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return {}, without_places(last, hidden)
        return json.loads(without_places(out.read_text(encoding="utf-8"), hidden)), None


def without_places(text: str, places: Mapping[str, Path]) -> str:
    """No path of this machine enters a result."""
    for word, path in {**places, "REPOSITORY": ROOT, "ENVIRONMENT": Path(sys.prefix)}.items():
        text = text.replace(str(path), word)
    return text
