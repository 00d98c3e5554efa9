"""docs/networks.md from the results of all networks: values in, one text out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from benchmarks.document import NOTHING, STAGES, table

Record = Mapping[str, Any]
HEAD = """# The networks of the paper

Written by `python -m benchmarks.networks`; change nothing here by hand.

Every network that the paper reports is captured, its images distilled, its layers measured, their bits allocated
(average 4, activations in 8 bits), its weights rounded, and its ONNX file run in onnxruntime beside the simulation.
None has trained weights here: weights are as initialised, running statistics those of synthetic pictures of natural
spectrum. So accuracies would mean nothing, and cost, size and equality alone are shown; where the scores of classes
lie this close together, a single step of rounding tells another class first, and agreement is low by nature.
ResNets, MobileNetV2, ShuffleNet, SqueezeNext and InceptionV3 are those of pytorchcv 0.0.67; RetinaNet-ResNet50-FPN is
a twin of torchvision's, heads and all, whose decoding stays outside. A result marked `stale` was measured with another
version of the method.
"""


def document(names: Sequence[str], found: Mapping[str, Record], stale: Collection[str]) -> str:
    """names: of all networks.  found: what the file of each holds.  stale: those whose result no longer holds."""
    good = {name: record for name, record in found.items() if record["error"] is None}
    title = {name: f"{name}{' `stale`' if name in stale else ''}" for name in names}
    parts = [HEAD, machine(good)]
    for heading, note, columns in SECTIONS:
        rows = [
            [title[name], *(text(good[name]) if name in good else NOTHING for text in columns.values())]
            for name in names
        ]
        parts += [f"## {heading}", note, table(["network", *columns], rows)]
    if failed := [f"- {name}: {record['error']}" for name, record in found.items() if record["error"] is not None]:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def machine(found: Mapping[str, Record]) -> str:
    """What the rows were measured on, and with how many images; several where they differ."""
    if not found:
        return "Nothing was measured yet."

    def several(value: Callable[[Record], str]) -> str:
        return "; ".join(sorted({value(record) for record in found.values()}))

    entries = {
        "processor": several(lambda r: f"{r['cpu']}, {r['integer_instructions']}"),
        "threads": several(lambda r: str(r["threads"])),
        "distilled images, steps": several(lambda r: f"{r['images']}, {r['iterations']}"),
        "versions": several(lambda r: ", ".join(f"{name} {version}" for name, version in r["versions"].items())),
    }
    return table(["", ""], [[name, value] for name, value in entries.items()])


def megabytes(entry: str) -> Callable[[Record], str]:
    return lambda record: f"{record[entry] / 1e6:.2f}"


def bits(record: Record) -> str:
    """How many layers have each width."""
    return ", ".join(f"{count} at {width}" for width, count in record["layers_by_bits"].items())


def spent(stage: str) -> Callable[[Record], str]:
    def text(record: Record) -> str:
        value = record["seconds"].get(stage)
        return NOTHING if value is None else f"{value:.1f}"

    return text


def held(stage: str) -> Callable[[Record], str]:
    return lambda record: f"{record['peak_memory_mb'][stage]:.0f}"


def proof(entry: str, form: str) -> Callable[[Record], str]:
    return lambda record: form.format(record["verification"][entry])


SECTIONS: list[tuple[str, str, dict[str, Callable[[Record], str]]]] = [
    (
        "Layers, sizes, equality",
        "Sizes in 10^6 bytes. *Steps* is the largest difference of a fused operator from the simulation, fed the same "
        "integers; *over one* the share of values beyond one step; *agreement* the share of equal answers of file and "
        "simulation, *optimised* that of the file as onnxruntime optimises it and as it stands.",
        {
            "input": lambda r: " x ".join(str(side) for side in r["input"]),
            "layers": lambda r: str(r["layers"]),
            "in integers": lambda r: str(r["layers_quantized"]),
            "of multiply-accumulates": lambda r: f"{r['integer_share']:.1%}",
            "bits": bits,
            "float": megabytes("float_bytes"),
            "file": megabytes("onnx_bytes"),
            "steps": proof("largest_steps", "{}"),
            "over one": proof("share_over_one_step", "{:.2%}"),
            "agreement": proof("agreement", "{:.1%}"),
            "optimised": proof("optimised_equals_plain", "{:.1%}"),
        },
    ),
    ("Seconds by stage", "", {stage: spent(stage) for stage in STAGES}),
    ("Peak memory by stage", "In 10^6 bytes, of the whole process.", {stage: held(stage) for stage in STAGES}),
]
