"""docs/tasks.md from the results of all rows of benchmarks.tasks: values in, one text out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from benchmarks.bootstrap import Difference
from benchmarks.document import counted, failed, interval, kept, machine, table
from benchmarks.rows import MIXED, W8
from benchmarks.task_rows import NETWORKS, WITHOUT_LABELS, TaskRow

Record = Mapping[str, Any]
LIMIT = -1.0  # points of the metric against float at W8A8, at least
TITLES = {W8: "W8A8", MIXED: "mixed 2, 4, 8 bits at an average of 4, A8"}
HEAD = """# Detection and segmentation, measured

Written by `python -m benchmarks.tasks --data ../shared/data`; change nothing here by hand.

The metric of each network in per cent: mAP of detections (AP@[.5:.95], 100 detections, COCO's evaluator), mIoU over the
classes present of a segmentation; of a face detector, for which no labelled faces are at hand, the F1 of the quantized
network's detections against the float network's (score at least 0.3, same class, IoU at least 0.5). A difference is in
points, quantized minus float on the same pictures, with its 90 % bootstrap interval: pictures are drawn again and
again, and the metric is computed anew for each draw. Nothing was chosen by these pictures; the halves are their even
and odd places. Limit at W8A8: within 1 point of float; it is missed where the interval lies wholly beyond. What is
evaluated is the ONNX file in onnxruntime, fitted on distilled images. A result marked `stale` was measured with another
version of the method.
"""


def document(found: Mapping[TaskRow, Record], stale: Collection[TaskRow]) -> str:
    """found: what each row's file holds.  stale: rows whose result no longer holds."""
    good = {row: record for row, record in found.items() if record["error"] is None}
    failures = {row: str(record["error"]) for row, record in found.items() if record["error"] is not None}
    parts = [HEAD, machine(good.values())]
    for setting, title in TITLES.items():
        parts += [f"## {title[0].upper()}{title[1:]}", accuracy(good, setting, stale)]
    parts += ["## Files", files(good), *losses(good), *failed(failures)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def accuracy(found: Mapping[TaskRow, Record], setting: str, stale: Collection[TaskRow]) -> str:
    """The metric on all pictures and on each half."""
    lines = []
    for row in rows_of(found, setting):
        record = found[row]
        for half, scores in record["sets"].items():
            labelled = row.network not in WITHOUT_LABELS
            lines.append([
                row.network + (" `stale`" if row in stale else ""), record["metric"], f"{scores['pictures']} ({half})",
                f"{100 * scores['float']:.2f}" if labelled else "–", f"{100 * scores['quantized']:.2f}",
                interval(difference(scores)),
                f"{100 * scores['agreement']:.2f}", f"{scores['mean_divergence']:.2g}",
                kept(scores["high"] >= LIMIT) if setting == W8 and labelled and half == "all" else "–",
            ])  # fmt: skip
    header = ["network", "metric", "pictures", "float", "quantized", "difference", "agreement", "divergence", "limit"]
    return table(header, lines)


def difference(scores: Mapping[str, Any]) -> Difference:
    """Of some of a row's pictures, quantized minus float."""
    return Difference(*(scores[name] for name in ("difference", "low", "high")))


def files(found: Mapping[TaskRow, Record]) -> str:
    """Sizes, integer operators and time."""
    lines = [
        [
            row.network, row.setting, f"{record['average_bits']:.3f}",
            ", ".join(str(record["layers_by_bits"].get(width, 0)) for width in ("2", "4", "8")),
            f"{record['onnx_bytes']:,}", f"{record['float_bytes'] / record['onnx_bytes']:.1f}",
            counted(record["integer_nodes"]), counted(record["float_nodes"]), f"{100 * record['integer_share']:.1f} %",
            f"{100 * record['verification']['agreement']:.1f}", f"{record['total_seconds']:.0f}",
        ]
        for setting in TITLES
        for row in rows_of(found, setting)
        for record in [found[row]]
    ]  # fmt: skip
    header = [
        "network", "setting", "average bits", "layers at 2, 4, 8", "onnx_bytes", "float size / file", "integer nodes",
        "float nodes", "integer share of multiply-accumulates", "file agrees with simulation, %", "seconds",
    ]  # fmt: skip
    return table(header, lines)


def losses(found: Mapping[TaskRow, Record]) -> list[str]:
    """Where the loss of the mixed setting arises."""
    parts = [
        "## Where the loss arises at an average of 4 bits",
        "The metric with the mixed weights alone, all activations in floating point; with the activations as well; and "
        "with 8 bits everywhere. What the first loses is the weights' doing, what lies between it and the second the "
        "activations'.",
        by_part(found),
        "Squared error over variance of each output of the network, on the pictures: the mean of its channels, and the "
        "largest.",
        by_output(found),
        "Layers whose rounding alone costs most at the width that they were given, on held-out distilled images, with "
        "their share of the sum over all layers.",
    ]
    for row in rows_of(found, MIXED):
        lines = [
            [layer["name"], f"{layer['parameters']:,}", str(layer["weight_bits"]), f"{layer['sensitivity']:.2g}",
             f"{100 * layer['share']:.1f} %"]
            for layer in found[row]["worst_layers"]
        ]  # fmt: skip
        parts += [f"### {row.network}", table(["layer", "weights", "bits", "sensitivity", "share"], lines)]
    return parts


def by_part(found: Mapping[TaskRow, Record]) -> str:
    """Float, weights alone, weights and activations, 8 bits."""
    lines = []
    for row in rows_of(found, MIXED):
        scores, uniform = found[row]["sets"]["all"], found.get(TaskRow(row.network, W8))
        values = [scores["float"], scores["weights"], scores["quantized"]]
        cells = [f"{100 * value:.2f}" for value in values]
        cells.append("–" if uniform is None else f"{100 * uniform['sets']['all']['quantized']:.2f}")
        lines.append([row.network, found[row]["metric"], *cells])
    return table(["network", "metric", "float", "mixed weights alone", "mixed", "W8A8"], lines)


def by_output(found: Mapping[TaskRow, Record]) -> str:
    """Errors of each output in both settings."""
    lines = []
    for row in rows_of(found, MIXED):
        uniform = found.get(TaskRow(row.network, W8))
        for index, output in enumerate(found[row]["outputs"]):
            other = None if uniform is None else uniform["outputs"][index]
            cells = ["–", "–"] if other is None else [f"{other['mean']:.2g}", f"{other['largest']:.2g}"]
            sizes = [f"{output['mean']:.2g}", f"{output['largest']:.2g}"]
            lines.append([row.network, str(index), str(output["channels"]), *cells, *sizes])
    return table(["network", "output", "channels", "W8A8, mean", "largest", "mixed, mean", "largest"], lines)


def rows_of(found: Mapping[TaskRow, Record], setting: str) -> list[TaskRow]:
    """Measured rows of a setting, in the order of the networks."""
    return [row for network in NETWORKS if (row := TaskRow(network, setting)) in found]
