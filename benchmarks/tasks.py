"""Detectors and a segmenter, quantized, on pictures with labels:

    python -m benchmarks.tasks --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/tasks/; a row whose options and method are
unchanged is not measured again. docs/tasks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.process import add_common, measured, parsed, renewed, results_of
from benchmarks.rows import ROOT, method_code
from benchmarks.task_document import document
from benchmarks.task_rows import NETWORKS, TASK_SETTINGS, TaskRow, all_rows

DOCUMENT = ROOT / "docs" / "tasks.md"
TIME_LIMIT = 5400  # seconds for one row
CHOICES = {"networks": list(NETWORKS), "settings": list(TASK_SETTINGS)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.tasks", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    asked = parsed(parser, CHOICES)
    failures = 0
    if not asked.markdown_only:
        chosen = [row for row in all_rows() if row.network in asked.networks and row.setting in asked.settings]
        for number, row in enumerate(chosen, 1):
            failures += not bring_up_to_date(row, f"{number}/{len(chosen)} {row.name}", asked)
    write_document()
    return 1 if failures else 0


def bring_up_to_date(row: TaskRow, title: str, asked: argparse.Namespace) -> bool:
    """Measure a row unless its result still holds; whether there is a result now. A failed row is tried again."""
    facts = {"network": row.network, "setting": row.setting, "key": row.key(method_code())}
    words = [row.network, row.setting]
    return renewed(
        title, row.file, facts, lambda: measured("benchmarks.task_measure", words, asked), write_document, summary
    )


def summary(record: dict[str, Any]) -> str:
    """The metric on all pictures."""
    whole = record["sets"]["all"]
    return (
        f"{record['metric']}: float {100 * whole['float']:.2f}, quantized {100 * whole['quantized']:.2f}, "
        f"difference {whole['difference']:+.2f} [{whole['low']:+.2f}, {whole['high']:+.2f}]"
    )


def write_document() -> None:
    """docs/tasks.md from all results there are; those of another method or other options are marked."""
    DOCUMENT.write_text(document(*results_of(all_rows(), method_code())), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
