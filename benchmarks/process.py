"""A row in a process of its own, so that peak memory and threads are its own, and what is kept of it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rows import ROOT
from zeroq.run_directory import json_bytes


def measured(module: str, words: list[str], asked: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """What `python -m MODULE WORDS` found; nothing, and why, if it failed. asked: data, threads, time_limit."""
    with tempfile.TemporaryDirectory(prefix="benchmark-row-") as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", module, *words, "--data", str(asked.data), "--out", str(out)]
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


def write(file: Path, facts: dict[str, Any]) -> None:
    """A row's file, as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_bytes(json_bytes(facts))
    partial.replace(file)


def read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def add_common(parser: argparse.ArgumentParser, choices: dict[str, list[str]], time_limit: float) -> None:
    """The options of every command that measures rows; choices: words of each option that selects some of them."""
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks and pictures")
    for name, words in choices.items():
        listed = ", ".join(words)
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=words, metavar="A,B", help=listed)
    parser.add_argument("--threads", type=int, help="for torch and onnxruntime; by default all")
    parser.add_argument("--time-limit", type=float, default=time_limit, metavar="S", help="seconds for one row")
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")


def parsed(parser: argparse.ArgumentParser, choices: dict[str, list[str]]) -> argparse.Namespace:
    """The arguments, refused where they name what is not there."""
    asked = parser.parse_args()
    for name, words in choices.items():
        if unknown := [word for word in getattr(asked, name) if word not in words]:
            parser.error(f"--{name} {unknown[0]}: choose from {', '.join(words)}.")
    asked.data = asked.data.resolve()
    if not asked.markdown_only and not (asked.data / "networks").is_dir():
        parser.error(f"--data {asked.data} holds no folder networks: name the folder of the measuring data.")
    return asked
