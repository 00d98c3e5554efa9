"""A row in a process of its own, so that peak memory and threads are its own, and what is kept of it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.rows import ROOT
from zeroq.whole_files import json_bytes


def measured(module: str, words: list[str], asked: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """What `python -m MODULE WORDS` found; nothing, and why, if it failed. asked: data, threads, time_limit."""
    words = [*words, "--data", str(asked.data), *([] if asked.threads is None else ["--threads", str(asked.threads)])]
    return run_apart(module, words, asked.time_limit, {"DATA": asked.data})


def run_apart(
    module: str,
    words: list[str],
    time_limit: float,
    places: Mapping[str, Path] | None = None,
    python: Path | None = None,
) -> tuple[dict[str, Any], str | None]:
    """What `python -m MODULE WORDS --out FILE` wrote; nothing, and why, if it failed.

    time_limit: seconds.  places: paths that must not enter a result, by the words that stand for them.
    python: of another environment, which finds this repository's modules.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-row-") as folder:
        out = Path(folder) / "row.json"
        hidden = {"TEMPORARY": Path(folder), **(places or {})}
        command = [str(python or sys.executable), "-m", module, *words, "--out", str(out)]
        surroundings = os.environ | {"TMPDIR": folder}  # what a row that is ended leaves goes with this folder
        if python is not None:
            surroundings |= {"PYTHONPATH": str(ROOT / "src")}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=time_limit
            )
        except subprocess.TimeoutExpired:
            return {}, f"it took longer than {time_limit:g} s"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return {}, without_places(last, hidden)
        return json.loads(without_places(out.read_text(encoding="utf-8"), hidden)), None


def row_parser(module: str, *words: str, data: bool = False) -> argparse.ArgumentParser:
    """Of a program that `run_apart` runs: the words that name a row, and the file for what is found; data: a folder."""
    parser = argparse.ArgumentParser(prog=module, description="One row, in a process of its own.")
    for word in words:
        parser.add_argument(word)
    if data:
        parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def options_in_words(given: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them; those of None are left out."""
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]


def without_places(text: str, places: Mapping[str, Path]) -> str:
    """No path of this machine enters a result."""
    for word, path in {**places, "REPOSITORY": ROOT, "ENVIRONMENT": Path(sys.prefix)}.items():
        text = text.replace(str(path), word)
    return text


def renewed(
    title: str,
    file: Path,
    facts: dict[str, Any],
    measure: Callable[[], tuple[dict[str, Any], str | None]],
    then: Callable[[], None],
    summary: Callable[[dict[str, Any]], str] | None = None,
    keys: Collection[str] = (),
) -> bool:
    """Measure a row unless its result still holds; whether there is a result now. A failed row is tried again.

    facts: what the file says of the row beside what is measured, its "key" among them; files of benchmarks that stop at
    a failure may say nothing of an "error".
    then: writes the document that the row is for.  summary: a line on a new result.  keys: others by which it holds.
    """
    known = read(file)
    if known is not None and known["key"] in (facts["key"], *keys) and known.get("error") is None:
        print(f"{title}: still holds", flush=True)
        return True
    print(f"{title}: ", end="", flush=True)
    begin = time.perf_counter()
    record, error = measure()
    write(file, facts | {"error": error} | record)
    then()
    print(f"{time.perf_counter() - begin:.0f} s{'' if error is None else f', failed: {error}'}", flush=True)
    if error is None and summary is not None:
        print(f"    {summary(record)}", flush=True)
    return error is None


class Kept(Protocol):
    """A row that has a file."""

    @property
    def name(self) -> str: ...

    @property
    def file(self) -> Path: ...

    def valid_keys(self) -> list[str]:
        """By which a result holds; a new one is kept by the first."""


AnyRow = TypeVar("AnyRow", bound=Kept)


def results_of(rows: Iterable[AnyRow]) -> tuple[dict[AnyRow, dict[str, Any]], set[AnyRow]]:
    """What is kept of rows, and those whose result is of another method or other options."""
    found = {row: record for row in rows if (record := read(row.file)) is not None}
    return found, {row for row, record in found.items() if record["key"] not in row.valid_keys()}


def write(file: Path, facts: dict[str, Any]) -> None:
    """A row's file, as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_bytes(json_bytes(facts))
    partial.replace(file)


def read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def add_common(parser: argparse.ArgumentParser, choices: dict[str, list[str]], time_limit: float | None = None) -> None:
    """The options of every command that measures rows; choices: words of each option that selects some of them.

    time_limit: seconds for a row by default; none where rows are not measured in a process of their own.
    """
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks and pictures")
    for name, words in choices.items():
        parser.add_argument(f"--{name}", type=listed, default=words, metavar="A,B", help=", ".join(words))
    parser.add_argument("--threads", type=int, help="for torch and onnxruntime; by default all")
    if time_limit is not None:
        parser.add_argument("--time-limit", type=float, default=time_limit, metavar="S", help="seconds for one row")
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")


def listed(text: str) -> list[str]:
    """Words between commas; none of an empty text."""
    return [word for word in text.split(",") if word]


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
