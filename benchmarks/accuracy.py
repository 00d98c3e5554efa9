"""Accuracy, size and time of quantized real networks, against the limits that they must keep:

    python -m benchmarks.accuracy --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/accuracy/; a row whose options and method
are unchanged is not measured again. docs/benchmarks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.document import document
from benchmarks.rows import DISTILLED, NETWORKS, RANDOM, REAL, RESULTS, ROOT, SETTINGS, Row, all_rows, method_code
from zeroq.run_directory import json_bytes

DOCUMENT = ROOT / "docs" / "benchmarks.md"
TIME_LIMIT = 5400  # seconds for one row
CHOICES = {"networks": list(NETWORKS), "settings": list(SETTINGS), "images": [DISTILLED, REAL, RANDOM]}


def main() -> int:
    asked = arguments()
    failures = 0
    if not asked.markdown_only:
        chosen = [
            row
            for row in all_rows()
            if row.network in asked.networks and row.setting in asked.settings and row.images in asked.images
        ]
        for number, row in enumerate(chosen, 1):
            failures += not bring_up_to_date(row, f"{number}/{len(chosen)} {row.name}", asked)
    write_document()
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks and pictures")
    for name, words in CHOICES.items():
        listed = ", ".join(words)
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=words, metavar="A,B", help=listed)
    parser.add_argument("--threads", type=int, help="for torch and onnxruntime; by default all")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help="seconds for one row")
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    for name, words in CHOICES.items():
        if unknown := [word for word in getattr(asked, name) if word not in words]:
            parser.error(f"--{name} {unknown[0]}: choose from {', '.join(words)}.")
    asked.data = asked.data.resolve()
    if not asked.markdown_only and not (asked.data / "networks").is_dir():
        parser.error(f"--data {asked.data} holds no folder networks: name the folder of the measuring data.")
    return asked


def bring_up_to_date(
    row: Row, title: str, asked: argparse.Namespace, refresh: Callable[[], None] | None = None
) -> bool:
    """Measure a row unless its result still holds; whether there is a result now. A failed row is tried again.

    refresh: writes the document that the row is for, by default docs/benchmarks.md.
    """
    key, known = row.key(method_code()), read(row)
    if known is not None and known["key"] == key and known["error"] is None:
        print(f"{title}: still holds", flush=True)
        return True
    print(f"{title}: ", end="", flush=True)
    begin = time.perf_counter()
    record, error = measured(row, asked)
    facts = {"network": row.network, "setting": row.setting, "images": row.images, "key": key, "error": error}
    RESULTS.mkdir(parents=True, exist_ok=True)
    partial = row.file.with_suffix(".partial")
    partial.write_bytes(json_bytes(facts | record))
    partial.replace(row.file)
    (refresh or write_document)()
    print(f"{time.perf_counter() - begin:.0f} s{'' if error is None else f', failed: {error}'}", flush=True)
    return error is None


def measured(row: Row, asked: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """What benchmarks.measure found, in a process of its own; nothing, and why, if it failed."""
    with tempfile.TemporaryDirectory(prefix="benchmark-row-") as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.measure", row.network, row.setting, row.images]
        command += ["--data", str(asked.data), "--out", str(out)]
        command += [] if asked.threads is None else ["--threads", str(asked.threads)]
        surroundings = os.environ | {"TMPDIR": folder}  # what a row that is ended leaves goes with this folder
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=asked.time_limit
            )
        except subprocess.TimeoutExpired:
            return {}, f"it took longer than {asked.time_limit:g} s"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return {}, without_places(last, asked.data, Path(folder))
        return json.loads(without_places(out.read_text(encoding="utf-8"), asked.data, Path(folder))), None


def without_places(text: str, data: Path, folder: Path) -> str:
    """No path of this machine enters a result."""
    for path, word in ((folder, "TEMPORARY"), (data, "DATA"), (ROOT, "REPOSITORY"), (Path(sys.prefix), "ENVIRONMENT")):
        text = text.replace(str(path), word)
    return text


def read(row: Row) -> dict[str, Any] | None:
    return json.loads(row.file.read_text(encoding="utf-8")) if row.file.is_file() else None


def write_document() -> None:
    """docs/benchmarks.md from all results there are; those of another method or other options are marked."""
    code = method_code()
    found = {row: record for row in all_rows() if (record := read(row)) is not None}
    stale = {row for row, record in found.items() if record["key"] != row.key(code)}
    DOCUMENT.write_text(document(found, stale), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
