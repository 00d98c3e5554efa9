"""Accuracy, size and time of quantized real networks, against the limits that they must keep:

    python -m benchmarks.accuracy --data ../shared/data
    python -m benchmarks.accuracy --data ../shared/data --images "" --peer .venv-peer/bin/python

Every row is measured in a process of its own and kept in benchmarks/results/accuracy/; a row whose options and method
are unchanged is not measured again. --peer PYTHON also measures the images and the quantization of
model-compression-toolkit, in an environment that has it, on the networks and settings of benchmarks/peer/rows.py, and
keeps them in benchmarks/results/peer/; with --images "" nothing else. docs/benchmarks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from benchmarks.document import document, succeeded
from benchmarks.peer import rows as peer_rows
from benchmarks.peer.environment import add_peer, check_peer, run_in
from benchmarks.peer.rows import PeerRow
from benchmarks.peer.section import section
from benchmarks.peer.toolkit import ITERATIONS
from benchmarks.process import add_common, parsed, renewed, results_of
from benchmarks.rows import DISTILLED, IMAGES, NETWORKS, RANDOM, REAL, ROOT, all_rows
from benchmarks.upkeep import TIME_LIMIT, measure_rows, renew_rows

DOCUMENT = ROOT / "docs" / "benchmarks.md"
CHOICES = {"networks": list(NETWORKS), "settings": list(IMAGES), "images": [DISTILLED, REAL, RANDOM]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    add_peer(parser)
    parser.add_argument(
        "--peer-iterations", type=int, default=ITERATIONS, metavar="N", help=f"of its images, by default {ITERATIONS}"
    )
    asked = parsed(parser, CHOICES)
    check_peer(parser, asked)
    if asked.peer_iterations < 1:
        parser.error(f"--peer-iterations {asked.peer_iterations}: images take 1 or more.")
    failed = measure_rows([row for row in all_rows() if row.images in asked.images], asked, write_document)
    if asked.peer is None:
        return failed
    return measure_peer(peer_rows.all_rows(asked.peer_iterations), asked) or failed


def measure_peer(rows: Iterable[PeerRow], asked: argparse.Namespace) -> int:
    """measure_rows() for those of the toolkit, in the environment that was named."""
    return renew_rows(rows, asked, write_document, lambda row, title: bring_peer_up_to_date(row, title, asked))


def bring_peer_up_to_date(row: PeerRow, title: str, asked: argparse.Namespace) -> bool:
    """Measure a row of the toolkit unless its result still holds; whether there is a result now."""
    options = {"iterations": row.iterations, "threads": asked.threads}
    facts = {
        "network": row.network, "setting": row.setting, "images": peer_rows.IMAGES, "iterations": row.iterations,
        "key": row.valid_keys()[0],
    }  # fmt: skip
    return renewed(
        f"{title}, toolkit", row.file, facts,
        lambda: run_in(asked.peer, "benchmarks.peer.measure", [row.network, row.setting], asked.data, **options),
        write_document,
    )  # fmt: skip


def write_document() -> None:
    """docs/benchmarks.md from all results there are; those of another method or other options are marked."""
    found, stale = results_of(all_rows())
    beside = section(succeeded(found, stale)[0], *results_of(peer_rows.kept_rows()))
    DOCUMENT.write_text(document(found, stale, beside), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
