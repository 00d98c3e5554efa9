"""The networks that the paper reports, from module to file in mixed precision: layers, seconds, memory, sizes, proof:

    python -m benchmarks.networks                                        # everything that is missing or no longer holds
    python -m benchmarks.networks --networks resnet18 --images 16 --iterations 4
    python -m benchmarks.networks --markdown-only

Every network is measured in a process of its own and kept in benchmarks/results/networks/; docs/networks.md is written
anew after each. No trained weights are needed: statistics are made plausible (plausible.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.networks_document import document
from benchmarks.process import options_in_words, read, renewed, run_apart
from benchmarks.published_networks import NETWORKS
from benchmarks.rows import ROOT, key_of, method_code

RESULTS = ROOT / "benchmarks" / "results" / "networks"
DOCUMENT = ROOT / "docs" / "networks.md"
TIME_LIMIT = 3600  # seconds for one network
FORMAT = 1  # of a row's file; a new one makes every row stale
IMAGES, ITERATIONS = 16, 4


def main() -> int:
    asked = arguments()
    failures = 0
    for name in () if asked.markdown_only else asked.networks:
        failures += not bring_up_to_date(name, asked)
    write_document()
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.networks", description=(__doc__ or "").split("\n")[0])
    names = ", ".join(NETWORKS)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS), help=names)
    parser.add_argument("--images", type=int, default=IMAGES, help="distilled images")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="steps of their optimisation")
    parser.add_argument("--threads", type=int, help="for torch and onnxruntime; by default all")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help="seconds for one network")
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    if unknown := [name for name in asked.networks if name not in NETWORKS]:
        parser.error(f"--networks {unknown[0]}: choose from {names}.")
    return asked


def bring_up_to_date(name: str, asked: argparse.Namespace) -> bool:
    """Measure a network unless its result still holds; whether there is a result now. A failed one is tried again."""
    setting = {"images": asked.images, "iterations": asked.iterations}
    words = [name, *options_in_words({**setting, "threads": asked.threads})]
    facts = {"network": name, **setting, "key": row_key(name, setting)}
    return renewed(
        name, path_of(name), facts, lambda: run_apart("benchmarks.network_row", words, asked.time_limit), write_document
    )


def row_key(name: str, setting: dict[str, Any]) -> str:
    """Of everything that decides a row."""
    return key_of([FORMAT, name, setting, method_code(name)])


def path_of(name: str) -> Path:
    return RESULTS / f"{name}.json"


def write_document() -> None:
    """docs/networks.md from all results there are; those of another version of the method are marked."""
    found = {name: record for name in NETWORKS if (record := read(path_of(name))) is not None}
    stale = {
        name
        for name, record in found.items()
        if record["key"] != row_key(name, {entry: record[entry] for entry in ("images", "iterations")})
    }
    DOCUMENT.write_text(document(list(NETWORKS), found, stale), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
