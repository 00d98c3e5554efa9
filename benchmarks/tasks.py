"""Detectors and a segmenter, quantized, on pictures with labels:

    python -m benchmarks.tasks --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/tasks/; a row whose options and method are
unchanged is not measured again. docs/tasks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.document import interval
from benchmarks.process import add_common, parsed, results_of
from benchmarks.rows import ROOT
from benchmarks.task_document import difference, document
from benchmarks.task_rows import NETWORKS, TASK_SETTINGS, all_rows
from benchmarks.upkeep import TIME_LIMIT, measure_rows

DOCUMENT = ROOT / "docs" / "tasks.md"
CHOICES = {"networks": list(NETWORKS), "settings": list(TASK_SETTINGS)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.tasks", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    return measure_rows(all_rows(), parsed(parser, CHOICES), write_document, summary)


def summary(record: dict[str, Any]) -> str:
    """The metric on all pictures."""
    whole = record["sets"]["all"]
    return (
        f"{record['metric']}: float {100 * whole['float']:.2f}, quantized {100 * whole['quantized']:.2f}, "
        f"difference {interval(difference(whole))}"
    )


def write_document() -> None:
    """docs/tasks.md from all results there are; those of another method or other options are marked."""
    DOCUMENT.write_text(document(*results_of(all_rows())), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
