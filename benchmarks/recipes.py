"""Networks quantized as others do it without data, beside this project's method:

    python -m benchmarks.recipes --data ../shared/data

Every row is measured in a process of its own and kept in benchmarks/results/recipes/; a row whose options and programs
are unchanged is not measured again. Our own rows are those of benchmarks.accuracy and benchmarks.low_bits.
docs/recipes.md is written anew after each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Collection, Mapping
from typing import Any

from benchmarks import limits
from benchmarks.document import NOTHING, interval, share, table, top1
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import add_common, parsed, results_of
from benchmarks.recipe_rows import DFQ, PAPER, PROGRAMS, RECIPE_SETTINGS, SQUANT, RecipeRow, all_rows
from benchmarks.rows import NETWORKS, ROOT, Row
from benchmarks.upkeep import measure_rows

DOCUMENT = ROOT / "docs" / "recipes.md"
TIME_LIMIT = 14400  # seconds for one row: the paper's images take 500 steps in 32 bits
CHOICES = {"networks": list(NETWORKS), "settings": list(RECIPE_SETTINGS), "recipes": list(PROGRAMS)}
AnyRow = Row | RecipeRow
Record = Mapping[str, Any]
TITLES = {PAPER: "paper's recipe", DFQ: "DFQ", SQUANT: "SQuant weights"}
OURS = "ours"
HEAD = """# Beside other recipes

Written by `python -m benchmarks.recipes --data ../shared/data`; change nothing here by hand.

Top-1 in per cent of the ONNX file in onnxruntime, with its difference from float and the paired 90 % interval; no
recipe uses a picture. In all of them weights have one symmetric scale for each output channel, activations one range
for each tensor, quantizers stand at the same values, and the first and the last layer keep 8 bits.

- *Paper's recipe* (ZeroQ, arXiv:2001.00281; `benchmarks/recipe.py`): 32 images from 500 steps on statistics of each
  image, ranges from the least to the greatest value on them, weights rounded to nearest within the least and the
  greatest, nothing corrected. Its weights are symmetric here, in the paper they are not.
- *DFQ* (arXiv:1906.04721; `benchmarks/dfq.py`): cross-layer equalization, high biases absorbed, ranges beta +- 6 gamma
  of the BatchNorms, weights rounded to nearest, biases corrected by what the BatchNorms say of inputs. No images at
  all. Unlike in the paper, a ReLU6 becomes a ReLU only where the BatchNorm before it says that no channel reaches 6
  within 3 deviations (of MobileNetV2 all do, of MobileNetV1 0.25 none), biases are not absorbed into layers
  that pad, and scales are one for each channel, in the paper one for each layer.
- *SQuant weights* (arXiv:2202.07471; `METHODS["squant"]`): the ranges of this project's distilled images, its scales,
  weights by SQuant without images, nothing corrected.
- *Ours*: `zeroq quantize` with the same bits, W6A6 and W4A8 at `--effort best` (docs/benchmarks.md, docs/low-bits.md).

The *selection* half is for choices of the method, the *confirmation* half is not (ImageNet networks: another source of
pictures; CIFAR networks: odd places of the test images). A result marked `stale` was measured with another version.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.recipes", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    asked = parsed(parser, CHOICES)
    rows = [row for row in all_rows() if row.recipe in asked.recipes]
    return measure_rows(rows, asked, write_document)


def write_document() -> None:
    """docs/recipes.md from all results there are."""
    groups: list[tuple[Mapping[Any, Record], Collection[AnyRow]]] = [
        results_of(all_rows()),
        results_of({row.ours for row in all_rows()}),
    ]
    found = {row: record for records, _ in groups for row, record in records.items()}
    stale = {row for _, rows in groups for row in rows}
    DOCUMENT.write_text(document(found, stale), encoding="utf-8")


def document(found: Mapping[AnyRow, Record], stale: Collection[AnyRow]) -> str:
    """found: what each row's file holds.  stale: rows whose result no longer holds."""
    records = {row: record for row, record in found.items() if record["error"] is None}
    failures = [[row.name, str(record["error"])] for row, record in found.items() if record["error"] is not None]
    parts = [HEAD, machine(records)]
    for role in (CONFIRMATION, SELECTION):
        parts.append(f"## {role.capitalize()}")
        header = ["network", "setting", "float", *TITLES.values(), OURS, "ours minus the paper's recipe"]
        parts.append(table(header, [*lines(records, stale, role), *means(records, stale, role)]))
    parts += ["## Rows that failed", table(["row", "why"], failures)] if failures else []
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def machine(records: Mapping[AnyRow, Record]) -> str:
    """What the recipes' rows were measured on."""
    seen = {
        f"{each['cpu']}, {each['integer_instructions']}"
        for row, each in records.items() if isinstance(row, RecipeRow)
    }  # fmt: skip
    return f"Measured on {'; '.join(sorted(seen))}." if seen else "Nothing was measured yet."


def columns(network: str, setting: str) -> list[AnyRow]:
    """The recipes' rows and ours."""
    rows = [RecipeRow(network, setting, recipe) for recipe in TITLES]
    return [*rows, rows[0].ours]


def lines(records: Mapping[AnyRow, Record], stale: Collection[AnyRow], role: str) -> list[list[str]]:
    """One line for each network and setting of which any recipe was measured."""
    found = []
    for network in NETWORKS:
        for setting, title in RECIPE_SETTINGS.items():
            rows = columns(network, setting)
            known = [row for row in rows if row in records]
            if not any(isinstance(row, RecipeRow) for row in known):
                continue
            cells = [
                NOTHING if row not in records else
                f"{top1(records[row], role, 'top1')}, {interval(limits.against_float(records[row], role))}"
                f"{mark(stale, row)}"
                for row in rows
            ]  # fmt: skip
            first, last = rows[0], rows[-1]
            gain = NOTHING
            if first in records and last in records:
                pair = limits.against_row(records[first], records[last], role)
                gain = f"{interval(pair)}{mark(stale, first, last)}"
            before = f"{share(records[known[0]], role, 'float_top1'):.2f}"
            found.append([network, title, before, *cells, gain])
    return found


def means(records: Mapping[AnyRow, Record], stale: Collection[AnyRow], role: str) -> list[list[str]]:
    """For each setting the mean difference over the networks, two at least, of which every column was measured."""
    found = []
    for setting, title in RECIPE_SETTINGS.items():
        every = [columns(network, setting) for network in NETWORKS]
        there = [rows for rows in every if all(row in records for row in rows)]
        if len(there) < 2:
            continue
        cells = [
            f"{statistics.mean(limits.against_float(records[row], role).difference for row in rows):+.2f}"
            f"{mark(stale, *rows)}"
            for rows in zip(*there, strict=True)
        ]  # fmt: skip
        found.append([f"mean of {len(there)}", title, "", *cells, ""])
    return found


def mark(stale: Collection[AnyRow], *rows: AnyRow) -> str:
    """What follows a value that is made of these rows."""
    return " `stale`" if any(row in stale for row in rows) else ""


if __name__ == "__main__":
    sys.exit(main())
