"""Accuracy, size and time of quantized real networks, against the limits that they must keep:

    python -m benchmarks.accuracy --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/accuracy/; a row whose options and method
are unchanged is not measured again. docs/benchmarks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.document import document
from benchmarks.process import add_common, parsed, results_of
from benchmarks.rows import DISTILLED, IMAGES, NETWORKS, RANDOM, REAL, ROOT, all_rows, method_code
from benchmarks.upkeep import TIME_LIMIT, measure_rows

DOCUMENT = ROOT / "docs" / "benchmarks.md"
CHOICES = {"networks": list(NETWORKS), "settings": list(IMAGES), "images": [DISTILLED, REAL, RANDOM]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    asked = parsed(parser, CHOICES)
    return measure_rows([row for row in all_rows() if row.images in asked.images], asked, write_document)


def write_document() -> None:
    """docs/benchmarks.md from all results there are; those of another method or other options are marked."""
    DOCUMENT.write_text(document(*results_of(all_rows(), method_code())), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
