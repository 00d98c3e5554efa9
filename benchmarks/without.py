"""Networks without BatchNorm, quantized without data, beside random pixels and beside real pictures:

    python -m benchmarks.without --data ../shared/data

Rows are measured and kept as those of benchmarks.accuracy are; docs/without-batchnorm.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping
from typing import Any

from benchmarks import limits
from benchmarks.document import (
    NOTHING,
    Record,
    Results,
    counted,
    failed,
    interval,
    kept,
    machine,
    near_float,
    succeeded,
    table,
    versus_float,
)
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import add_common, parsed, results_of
from benchmarks.rows import DISTILLED, RANDOM, REAL, ROOT, W4, W4A4, W8, WITHOUT_NORM, Row
from benchmarks.upkeep import TIME_LIMIT, measure_rows

DOCUMENT = ROOT / "docs" / "without-batchnorm.md"
CHOICES = {"networks": list(WITHOUT_NORM), "settings": [W8, W4, W4A4]}
ROWS = [
    Row(network, setting, images)
    for setting in CHOICES["settings"]
    for images in (DISTILLED, REAL, RANDOM)
    for network in WITHOUT_NORM
]
IMAGES = {DISTILLED: "none: our own images", REAL: "64 real pictures", RANDOM: "64 of random pixels"}
HEAD = """# Networks without BatchNorm

A network without BatchNorm remembers no statistic that images could match. What takes its place:

- **Attention** (transformers): every second image is optimised until its patches are unlike one another to each
  attention layer, as those of pictures are and those of noise are not (PSAQ-ViT, arXiv:2203.02250), with the attention
  of each head drawn towards a random mixture of Gaussians (SARDFQ), a small total variation, and the mean and deviation
  of natural pictures; the others stay noise with the spectrum of natural pictures. Their ranges have the source
  "distilled". With BatchNorms beside its attention, a network's images match the BatchNorms alone.
- **Neither**: the images are noise with the spectrum, the colours and the contrast of natural pictures. Deep layers
  answer it less than pictures, so the range of a layer's output reaches at least 0.14 of what the norms of its filters
  and of its input's patches allow (Cauchy and Schwarz). That share was chosen on the even places of the test images,
  with vgg_cifar10 alone. Source: "neither".
- A layer's output that a folded BatchNorm holds never gets a range beyond 12 deviations around its channels' means;
  where that cuts a range, its source is "batchnorm". Outputs that no BatchNorm knows, in a network that has some
  (heads, pyramids), get ranges from the distilled images, at least that share of 0.14, and are listed in `warnings`.

The rest of this page is written by `python -m benchmarks.without --data ../shared/data`; change nothing by hand.

Top-1 in per cent; differences in points on the same pictures, with paired 90 % intervals. The *selection* half (even
places of the test images) is for choices of the method, limits are on the *confirmation* half (odd places). What is
evaluated is the ONNX file in onnxruntime; a result marked `stale` was measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.without", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    return measure_rows(ROWS, parsed(parser, CHOICES), write_document)


def write_document() -> None:
    """docs/without-batchnorm.md from all results there are."""
    DOCUMENT.write_text(document(*results_of(ROWS)), encoding="utf-8")


def document(found: Mapping[Row, Record], stale: Collection[Row]) -> str:
    """found: what each row's file holds.  stale: rows whose result no longer holds."""
    results, failures = succeeded(found, stale)
    parts = [HEAD, machine(results.records.values()), *accuracy(results), *beside(results), *sources(results)]
    return "\n\n".join(part.strip() for part in [*parts, *failed(failures)] if part) + "\n"


def accuracy(results: Results[Row]) -> list[str]:
    """Each row against floating point, on both halves."""
    lines = []
    for row in ROWS:
        cells = [results.cell(row, text) for role in (SELECTION, CONFIRMATION) for text in versus_float(role)]
        limited = (row.setting, row.images) == (W8, DISTILLED)
        lines.append([row.network, row.setting, IMAGES[row.images], *cells, results.cell(row, near_float)])
        lines[-1][-1] = lines[-1][-1] if limited else NOTHING
    header = ["network", "setting", "pictures"]
    for role in (SELECTION, CONFIRMATION):
        header += ["float", "quantized", f"difference, {role}"]
    return [
        "## Accuracy",
        f"Limit, confirmation: W8A8 without pictures within {-limits.W8_EACH:g} point of float.",
        table([*header, "limit"], lines),
    ]


def beside(results: Results[Row]) -> list[str]:
    """Our own images against random pixels and real pictures: top-1 of the same pictures, divergence from float."""
    lines = []
    for row in (row for row in ROWS if row.images == DISTILLED):
        for images in (RANDOM, REAL):
            other = Row(row.network, row.setting, images)
            pairs = [results.pair(other, row, role) for role in (SELECTION, CONFIRMATION)]
            cells = [NOTHING if pair is None else interval(pair) + results.mark(row, other) for pair in pairs]
            divergences = [results.cell(each, divergence) for each in (row, other)]
            lines.append([row.network, row.setting, IMAGES[images], *cells, *divergences])
    header = ["network", "setting", "against", "ours minus these, selection", "ours minus these, confirmation"]
    return [
        "## Beside random pixels and real pictures",
        "Divergence: mean KL of the quantized network's class probabilities from the float network's, confirmation.",
        table([*header, "divergence, ours", "divergence, these"], lines),
    ]


def divergence(record: Record) -> str:
    return f"{record['sets'][CONFIRMATION]['mean_divergence']:.5f}"


def sources(results: Results[Row]) -> list[str]:
    """What the ranges come from, and what runs in integers."""
    lines = []
    for row in (row for row in ROWS if row.images == DISTILLED and row in results.records):
        record: Any = results.records[row]
        lines.append([
            row.network, results.cell(row, lambda _, row=row: row.setting),  # type: ignore[misc]
            counted(record["range_sources"]), counted(record["integer_nodes"]), counted(record["float_nodes"]),
            f"{100 * record['integer_share']:.1f} %", kept(limits.files_agree(record)),
            f"{record['total_seconds']:.0f}",
        ])  # fmt: skip
    header = ["network", "setting", "ranges by source", "integer nodes", "float nodes", "integer share"]
    return ["## Ranges and operators", table([*header, "file agrees with the simulation", "seconds"], lines)]


if __name__ == "__main__":
    sys.exit(main())
