"""What networks lose at 8, 6, 4 and 3 bits without data, against the limits set for each kind of network:

    python -m benchmarks.low_bits --data ../shared/data

Rows are measured and kept as those of benchmarks.accuracy (classifiers) and benchmarks.tasks (all others), some of them
the same; docs/low-bits.md is written anew after each. At once and for all: nothing is set for one network.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import groupby

from benchmarks import limits
from benchmarks.bootstrap import Difference
from benchmarks.document import NOTHING, Record, Results, failed, interval, kept, machine, share, succeeded, table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.paired import PairedDifference
from benchmarks.process import add_common, parsed, results_of
from benchmarks.rows import (
    DISTILLED,
    FAMILIES,
    MIXED,
    MIXED_3,
    MIXED_6,
    ROOT,
    W4_EDGES_8,
    W4A4,
    W6A6,
    W8,
    Row,
    at_best,
)
from benchmarks.task_document import difference
from benchmarks.task_rows import METRICS, TaskRow
from benchmarks.upkeep import TIME_LIMIT, measure_rows

DOCUMENT = ROOT / "docs" / "low-bits.md"
SETTINGS = {  # by what the tables call them; 8 bits leave nothing for `--effort best` to gain
    W8: "W8A8", at_best(W6A6): "W6A6", at_best(MIXED_6): "average 6, A6", at_best(MIXED): "average 4, A8",
    at_best(W4_EDGES_8): "W4A8", at_best(W4A4): "W4A4", at_best(MIXED_3): "average 3, A8",
}  # fmt: skip
# Networks of one kind, and the points that they may lose in the mean, in the order of the settings.
GROUPS: dict[tuple[str, ...], tuple[float | None, ...]] = {
    ("mobilenet_v2", "efficientnet_lite0"): (0.3, 0.7, 0.7, 2.0, 2.0, 6.0, 6.0),
    ("mobilenet_v1_025", "etinynet"): (0.5, 1.5, 1.5, 4.0, 4.0, None, None),
    ("resnet18_cifar10", "resnet20_cifar10", "shufflenet_cifar10", "squeezenext_cifar10"):
        (0.3, 0.5, 0.5, 0.7, 1.0, 2.0, 2.0),
    ("resnet20_cifar100",): (0.5, 1.0, 1.0, 1.5, 2.0, 4.0, 4.0),
    ("vit_cifar10", "vgg_cifar10"): (0.5, 1.0, 1.0, 2.0, 2.0, None, None),
    ("nanodet_m", "fastestdet", "espnet_camvid"): (0.5, 1.5, 1.5, 3.0, 3.0, None, None),
}  # fmt: skip
NETWORKS = [network for group in GROUPS for network in group]
CHOICES = {"networks": NETWORKS, "settings": list(SETTINGS)}
PLACES = {SELECTION: "even", CONFIRMATION: "odd"}  # the halves by what results of benchmarks.tasks call them
HEAD = """# Few bits

Written by `python -m benchmarks.low_bits --data ../shared/data`; change nothing here by hand.

In per cent, top-1 of classifiers, mAP of detectors and mIoU of a segmenter (as docs/tasks.md has them), W8A8 at
`--effort balanced`, all else at `--effort best`: one method with the same defaults for all networks, no real picture
used. W is the bits of weights, A those of activations; uniform settings keep the first layer and the last of each
output at 8 bits, averages have their weights in the choice, at 2, 3, 4, 5, 6 or 8 bits. The *selection* half is for
choices of the method, limits are on the *confirmation* half (ImageNet networks: another source of pictures; all others:
odd places of the test images). Differences are in points, quantized minus float on the same pictures, with their 90 %
intervals: of top-1 paired, of mAP and mIoU by bootstrap. What is evaluated is the ONNX file in onnxruntime. A result
marked `stale` was measured with another version of the method.
"""


AnyRow = Row | TaskRow


@dataclass(frozen=True)
class Scores:
    """A network's metric in per cent before and after, and the difference in points."""

    before: float
    after: float
    difference: PairedDifference | Difference


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.low_bits", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES, TIME_LIMIT)
    return measure_rows(all_rows(), parsed(parser, CHOICES), write_document)


def all_rows() -> list[AnyRow]:
    """In the order in which they are measured."""
    return [row_of(network, setting) for setting in SETTINGS for network in NETWORKS]


def row_of(network: str, setting: str) -> AnyRow:
    return Row(network, setting, DISTILLED) if network in FAMILIES else TaskRow(network, setting)


def write_document() -> None:
    """docs/low-bits.md from all results there are."""
    DOCUMENT.write_text(document(*results_of(all_rows())), encoding="utf-8")


def document(found: Mapping[AnyRow, Record], stale: Collection[AnyRow]) -> str:
    """found: what each row's file holds.  stale: rows whose result no longer holds."""
    results, failures = succeeded(found, stale)
    parts = [HEAD, machine(results.records.values()), *means(results)]
    for role in (CONFIRMATION, SELECTION):
        header = ["network", "metric", "float", *SETTINGS.values()]
        parts += [f"## Each network, {role}", table(header, [each(results, network, role) for network in NETWORKS])]
    return "\n\n".join(part.strip() for part in [*parts, *failed(failures)] if part) + "\n"


def means(results: Results[AnyRow]) -> list[str]:
    """What the networks of a kind lose in the mean, and whether that is within the limit."""
    lines = []
    for group, most in GROUPS.items():
        by_metric = {metric: ", ".join(networks) for metric, networks in groupby(group, metric_of)}
        cells = [loss(results, group, *pair) for pair in zip(SETTINGS, most, strict=True)]
        lines.append(["; ".join(by_metric.values()), "; ".join(by_metric), *cells])
    return [
        "## Loss, confirmation",
        "Points of the metric lost against float, mean over the networks of the row; in brackets the most allowed.",
        table(["networks", "metric", *SETTINGS.values()], lines),
    ]


def metric_of(network: str) -> str:
    return METRICS.get(network, "top-1")


def loss(results: Results[AnyRow], group: tuple[str, ...], setting: str, most: float | None) -> str:
    """A mean over all networks of a group; nothing as long as one is missing."""
    rows = [row_of(network, setting) for network in group]
    if not all(row in results.records for row in rows):
        return NOTHING
    lost = 0.0 - statistics.mean(scores(results.records[row], CONFIRMATION).difference.difference for row in rows)
    judged = "" if most is None else f" ({most:g}) {kept(limits.mean_kept([-lost], -most))}"
    return f"{lost:.2f}{judged}{results.mark(*rows)}"


def each(results: Results[AnyRow], network: str, role: str) -> list[str]:
    """A network's line: its metric in floating point, then in every setting with its difference."""
    rows = [row_of(network, setting) for setting in SETTINGS]
    known = next((results.records[row] for row in rows if row in results.records), None)
    before = NOTHING if known is None else f"{scores(known, role).before:.2f}"
    return [network, metric_of(network), before, *(results.cell(row, beside_float(role)) for row in rows)]


def beside_float(role: str) -> Callable[[Record], str]:
    """A cell: the metric and its difference from float."""

    def text(record: Record) -> str:
        found = scores(record, role)
        return f"{found.after:.2f}, {interval(found.difference)}"

    return text


def scores(record: Record, role: str) -> Scores:
    """What a row of either kind says of one half."""
    if "metric" in record:  # of benchmarks.tasks
        half = record["sets"][PLACES[role]]
        return Scores(100 * half["float"], 100 * half["quantized"], difference(half))
    before, after = (share(record, role, entry) for entry in ("float_top1", "top1"))
    return Scores(before, after, limits.against_float(record, role))


if __name__ == "__main__":
    sys.exit(main())
