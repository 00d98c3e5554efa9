"""Accuracy, size and time of quantized real networks, against the limits that they must keep:

    python -m benchmarks.accuracy --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/accuracy/; a row whose options and method
are unchanged is not measured again. docs/benchmarks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

from benchmarks.document import document
from benchmarks.process import add_common, measured, parsed, renewed, results_of
from benchmarks.rows import DISTILLED, IMAGES, NETWORKS, RANDOM, REAL, ROOT, Row, all_rows, method_code

DOCUMENT = ROOT / "docs" / "benchmarks.md"
TIME_LIMIT = 5400  # seconds for one row
CHOICES = {"networks": list(NETWORKS), "settings": list(IMAGES), "images": [DISTILLED, REAL, RANDOM]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    asked = parsed(parser, CHOICES)
    return measure_rows([row for row in all_rows() if row.images in asked.images], asked, write_document)


def measure_rows(rows: Iterable[Row], asked: argparse.Namespace, refresh: Callable[[], None]) -> int:
    """Bring those rows up to date whose network and setting were asked for; the exit code of the command.

    refresh: writes the document that the rows are for, after each and in the end.
    """
    chosen = [row for row in rows if row.network in asked.networks and row.setting in asked.settings]
    failures = 0
    for number, row in enumerate([] if asked.markdown_only else chosen, 1):
        failures += not bring_up_to_date(row, f"{number}/{len(chosen)} {row.name}", asked, refresh)
    refresh()
    return 1 if failures else 0


def bring_up_to_date(
    row: Row, title: str, asked: argparse.Namespace, refresh: Callable[[], None] | None = None
) -> bool:
    """Measure a row unless its result still holds; whether there is a result now. A failed row is tried again.

    refresh: writes the document that the row is for, by default docs/benchmarks.md.
    """
    facts = {"network": row.network, "setting": row.setting, "images": row.images, "key": row.key(method_code())}
    words = [row.network, row.setting, row.images]
    return renewed(
        title, row.file, facts, lambda: measured("benchmarks.measure", words, asked), refresh or write_document
    )


def write_document() -> None:
    """docs/benchmarks.md from all results there are; those of another method or other options are marked."""
    DOCUMENT.write_text(document(*results_of(all_rows(), method_code())), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
