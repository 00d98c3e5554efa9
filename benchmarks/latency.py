"""How fast a mixed-precision file is beside the float network and onnxruntime's own 8-bit file, in one run:

    python -m benchmarks.latency
    python -m benchmarks.latency --networks resnet18 --threads 1

Networks of the paper with plausible statistics (how long integers take hangs on no value). Results go to
benchmarks/results/latency/, one for each network and kind of processor; docs/latency.md is written anew after each.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch

from benchmarks.document import kept, table
from benchmarks.process import read, write
from benchmarks.published_networks import build
from benchmarks.rows import ROOT
from zeroq import devices, quantize
from zeroq.deploy.float_file import export_float, quantize_statically
from zeroq.graph import capture
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.speed import FLOAT, QUANTIZED, STATIC, timed
from zeroq.stages import FILES

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "latency", ROOT / "docs" / "latency.md"
OPTIONS: dict[str, Any] = {"average_bits": 4, "images": 8, "iterations": 2}
BATCHES = (1, 8)
LIMITED = 1  # the batch that limits are for
# Times as fast as the float file, at least: with instructions for integer products (VNNI), and without.
LEAST = {"resnet18": (2.5, 1.7), "resnet50": (2.5, 1.7), "mobilenetv2_w1": (1.5, 1.1)}
WITH_VNNI = {"amx", "avx512-vnni", "avx-vnni"}  # as devices.integer_instructions calls them
FURTHER = ("resnext14_16x4d",)  # without a limit: groups of four channels, which have slow integer kernels
NETWORKS = (*LEAST, *FURTHER)
FASTEST = "fastest"
MOST = 1.05  # of the time of onnxruntime's own static file
HEAD = """# Latency

Written by `python -m benchmarks.latency`; change nothing here by hand.

Milliseconds of one run in onnxruntime, one thread: the float network's file, ours (weights of 2, 4 and 8 bits, 4 on
average, activations in 8), and what onnxruntime's static quantization makes of the float file with its recommended
settings (8-bit weights per channel). All take turns in one run; median, in brackets the percentiles 10 and 90. Under
`--fastest` stands the file in which layers with slow integer kernels compute in floating point, and how many there are;
"none" where that option changes nothing, as no layer makes the file faster so, and a dash where it was not measured.
Limits, at batch 1: {limits} times as fast as float with VNNI, {without} without, and at most 5 % slower than
onnxruntime's own file.
"""
NAMES = {"resnet18": "ResNet18", "resnet50": "ResNet50", "mobilenetv2_w1": "MobileNetV2"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(LEAST), help=", ".join(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    if unknown := [name for name in asked.networks if name not in NETWORKS]:
        parser.error(f"--networks {unknown[0]}: choose from {', '.join(NETWORKS)}.")
    for name in [] if asked.markdown_only else asked.networks:
        with devices.threads(asked.threads):
            record = measured(name, asked.threads)
        write(RESULTS / f"{name}-{record['integer_instructions']}.json", record)
        write_document()
        print(f"{name}: {', '.join(cells(record, LIMITED))}", flush=True)
    write_document()
    return 0


def measured(name: str, threads: int) -> dict[str, Any]:
    """The files of one network, timed against one another."""
    built = build(name)
    example = torch.zeros(1, *built.preprocessing.input_shape)
    network = capture(built.module, torch.zeros(2, *built.preprocessing.input_shape))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        folder = Path(place)
        files = {each: folder / f"{each}.onnx" for each in (FLOAT, QUANTIZED, STATIC)}
        asked = {
            "out": folder / "run", "preprocess": built.preprocessing.to_dict(), "task": built.task, "name": name,
            "threads": threads, **OPTIONS,
        }  # fmt: skip
        run = quantize(built.module, example, **asked)
        shutil.copy(run.directory / FILES["onnx"], files[QUANTIZED])
        run = quantize(built.module, example, **asked, fastest=True)  # goes on from there
        if run.result["fastest"]["layers"]:
            files[FASTEST] = run.directory / FILES["onnx"]
        onnx.save(export_float(network), files[FLOAT])
        (images,) = read_tensor_file(run.directory / FILES["images"])[0].values()
        quantize_statically(files[FLOAT], images, files[STATIC], folder)
        rows, load = timed(files, network, BATCHES, threads, lambda stage, done, total: None)
    return {
        "network": name,
        "cpu": devices.processor(),
        "integer_instructions": devices.integer_instructions(),
        "threads": threads,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
        "rows": rows,
        "load_ms": load,
        "fastest": run.result["fastest"],
    }


def write_document() -> None:
    """docs/latency.md from all results there are."""
    records = [record for file in sorted(RESULTS.glob("*.json")) if (record := read(file)) is not None]
    DOCUMENT.write_text(document(records), encoding="utf-8")


def document(records: list[dict[str, Any]]) -> str:
    """The page, one line for each network, processor and batch."""
    with_vnni, without = (
        ", ".join(f"{NAMES[name]} {least[place]:g}" for name, least in LEAST.items()) for place in (0, 1)
    )
    lines = [
        [record["network"], f"{record['cpu']}, {record['integer_instructions']}", str(batch), *cells(record, batch)]
        for record in records
        for batch in BATCHES
    ]
    header = ["network", "processor", "batch", "float", "ours", "onnxruntime's", "`--fastest`"]
    header += ["times as fast as float", "of the time of onnxruntime's", "limit"]
    return f"{HEAD.format(limits=with_vnni, without=without)}\n{table(header, lines)}\n"


def cells(record: dict[str, Any], batch: int) -> list[str]:
    """Times of the files, both ratios (of ours without --fastest), and whether the limits hold."""
    rows = {row["file"]: row for row in record["rows"] if row["batch"] == batch}
    median = {name: float(row["median_ms"]) for name, row in rows.items()}
    gain, beside = median[FLOAT] / median[QUANTIZED], median[QUANTIZED] / median[STATIC]
    limited = batch == LIMITED and record["network"] in LEAST
    held = kept(gain >= least_of(record) and beside <= MOST) if limited else "–"
    times = (time_of(rows[name]) for name in (FLOAT, QUANTIZED, STATIC))
    return [*times, fastest_of(record, rows), f"{gain:.2f}", f"{beside:.2f}", held]


def least_of(record: dict[str, Any]) -> float:
    """How many times as fast as the float file a network must be on that processor."""
    return LEAST[record["network"]][record["integer_instructions"] not in WITH_VNNI]


def time_of(row: dict[str, Any]) -> str:
    """Median and percentiles."""
    return f"{row['median_ms']:.2f} [{row['low_ms']:.2f}, {row['high_ms']:.2f}]"


def fastest_of(record: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """Time under --fastest, with the number of layers in floating point."""
    if "fastest" not in record:
        return "–"
    layers = len(record["fastest"]["layers"])
    return f"{time_of(rows[FASTEST])}, {layers} layer{'s' if layers > 1 else ''}" if layers else "none"


if __name__ == "__main__":
    sys.exit(main())
