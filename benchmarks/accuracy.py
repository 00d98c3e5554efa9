"""Accuracy, size and time of quantized real networks, against the limits that they must keep:

    python -m benchmarks.accuracy --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/accuracy/; a row whose options and method
are unchanged is not measured again. docs/benchmarks.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks.document import document
from benchmarks.process import add_common, measured, parsed, read, write
from benchmarks.rows import DISTILLED, NETWORKS, RANDOM, REAL, ROOT, SETTINGS, Row, all_rows, method_code

DOCUMENT = ROOT / "docs" / "benchmarks.md"
TIME_LIMIT = 5400  # seconds for one row
CHOICES = {"networks": list(NETWORKS), "settings": list(SETTINGS), "images": [DISTILLED, REAL, RANDOM]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    asked = parsed(parser, CHOICES)
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


def bring_up_to_date(
    row: Row, title: str, asked: argparse.Namespace, refresh: Callable[[], None] | None = None
) -> bool:
    """Measure a row unless its result still holds; whether there is a result now. A failed row is tried again.

    refresh: writes the document that the row is for, by default docs/benchmarks.md.
    """
    key, known = row.key(method_code()), read(row.file)
    if known is not None and known["key"] == key and known["error"] is None:
        print(f"{title}: still holds", flush=True)
        return True
    print(f"{title}: ", end="", flush=True)
    begin = time.perf_counter()
    record, error = measured("benchmarks.measure", [row.network, row.setting, row.images], asked)
    facts = {"network": row.network, "setting": row.setting, "images": row.images, "key": key, "error": error}
    write(row.file, facts | record)
    (refresh or write_document)()
    print(f"{time.perf_counter() - begin:.0f} s{'' if error is None else f', failed: {error}'}", flush=True)
    return error is None


def write_document() -> None:
    """docs/benchmarks.md from all results there are; those of another method or other options are marked."""
    code = method_code()
    found = {row: record for row in all_rows() if (record := read(row.file)) is not None}
    stale = {row for row, record in found.items() if record["key"] != row.key(code)}
    DOCUMENT.write_text(document(found, stale), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
