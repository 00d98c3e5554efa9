"""What distilled images are worth beside real pictures, setting by setting:

    python -m benchmarks.beside_real --data ../shared/data

Rows are measured and kept as those of benchmarks.accuracy are, some of them the same; docs/beside-real.md is written
anew after each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Collection, Mapping

from benchmarks.document import NOTHING, Record, Results, failed, interval, kept, machine, succeeded, table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import add_common, parsed, results_of
from benchmarks.rows import (
    DISTILLED,
    FAMILIES,
    MIXED,
    MIXED_3,
    MIXED_6,
    REAL,
    ROOT,
    W4_EDGES_8,
    W4A4,
    W6A6,
    W8,
    Row,
)
from benchmarks.upkeep import TIME_LIMIT, measure_rows

DOCUMENT = ROOT / "docs" / "beside-real.md"
SETTINGS = {  # by what the tables call them
    W8: "W8A8", W6A6: "W6A6", MIXED_6: "average 6, A6", MIXED: "average 4, A8", W4_EDGES_8: "W4A8", W4A4: "W4A4",
    MIXED_3: "average 3, A8",
}  # fmt: skip
CHOICES = {"networks": list(FAMILIES), "settings": list(SETTINGS)}
LEAST = -1.0  # points of distilled images minus real pictures, in the mean over the networks of a setting
ROWS = [
    Row(network, setting, images) for network in FAMILIES for setting in SETTINGS for images in (DISTILLED, REAL)
]
HEAD = """# Distilled images beside real pictures

Written by `python -m benchmarks.beside_real --data ../shared/data`; change nothing here by hand.

The same method at `--effort balanced`, on its own images and on 64 real pictures (`--calibration`), which are in
neither half: top-1 in points, distilled minus real on the same pictures with the paired 90 % interval, and the
divergence from the float network (mean KL over classes) with distilled; real. The *selection* half is for choices of
the method, the *confirmation* half is not. Networks of which both were measured; the limit is on their mean. A result
marked `stale` was measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.beside_real", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    return measure_rows(ROWS, parsed(parser, CHOICES), write_document)


def write_document() -> None:
    """docs/beside-real.md from all results there are."""
    DOCUMENT.write_text(document(*results_of(ROWS)), encoding="utf-8")


def document(found: Mapping[Row, Record], stale: Collection[Row]) -> str:
    """found: what each row's file holds.  stale: rows whose result no longer holds."""
    results, failures = succeeded(found, stale)
    parts = [HEAD, machine(results.records.values())]
    parts += ["## In the mean", f"Limit, confirmation: {LEAST:g} points.", table(MEANS, means(results))]
    parts += ["## Each network", table(EACH, lines(results))]
    return "\n\n".join(part.strip() for part in [*parts, *failed(failures)] if part) + "\n"


MEANS = ["setting", "networks", "difference, selection", "difference, confirmation", "limit"]
EACH = [
    "network", "setting", "difference, selection", "divergence, selection", "difference, confirmation",
    "divergence, confirmation",
]  # fmt: skip


def both(network: str, setting: str) -> tuple[Row, Row]:
    """On real pictures, and on distilled images."""
    return Row(network, setting, REAL), Row(network, setting, DISTILLED)


def measured(results: Results[Row], setting: str) -> list[tuple[Row, Row]]:
    """Both rows of the networks that have them."""
    every = (both(network, setting) for network in FAMILIES)
    return [rows for rows in every if all(row in results.records for row in rows)]


def means(results: Results[Row]) -> list[list[str]]:
    """One line for each setting."""
    found = []
    for setting, title in SETTINGS.items():
        pairs = measured(results, setting)
        if not pairs:
            found.append([title, "0", NOTHING, NOTHING, NOTHING])
            continue
        mark = results.mark(*(row for rows in pairs for row in rows))
        values = {
            role: statistics.mean(pair.difference for rows in pairs if (pair := results.pair(*rows, role)) is not None)
            for role in (SELECTION, CONFIRMATION)
        }
        cells = [f"{value:+.2f}{mark}" for value in values.values()]
        found.append([title, str(len(pairs)), *cells, kept(values[CONFIRMATION] >= LEAST)])
    return found


def lines(results: Results[Row]) -> list[list[str]]:
    """One line for each network and setting."""
    found = []
    for network in FAMILIES:
        for setting, title in SETTINGS.items():
            rows = both(network, setting)
            if any(row not in results.records for row in rows):
                continue
            cells = []
            for role in (SELECTION, CONFIRMATION):
                pair = results.pair(*rows, role)
                assert pair is not None, "both were measured"
                divergences = [results.records[row]["sets"][role]["mean_divergence"] for row in reversed(rows)]
                cells += [interval(pair) + results.mark(*rows), "; ".join(f"{each:.4f}" for each in divergences)]
            found.append([network, title, *cells])
    return found


if __name__ == "__main__":
    sys.exit(main())
