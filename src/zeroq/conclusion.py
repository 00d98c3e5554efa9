"""result.json and report.html: what a run has come to, and the page that shows it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroq.candidates import Images, compare, outputs
from zeroq.deploy import Verification
from zeroq.latency import DECISION
from zeroq.memory import NO_LIMIT, MemoryPlan
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.numbers.values import SensitivityTable
from zeroq.outcome import Outcome
from zeroq.preparation import Prepared
from zeroq.preprocessing import Preprocessing
from zeroq.report import RunRecord, render
from zeroq.run_directory import RunDirectory, read_record
from zeroq.selection import Selection
from zeroq.simulate import QuantizedNetwork
from zeroq.stages import FILES
from zeroq.whole_files import read_object

STAGES = ("capture", "distill", "ranges", "sensitivity", "allocate", "rounding", "export", "verify", "report")
SHOWN = 32  # images in the report
RESULT, REPORT = "result.json", "report.html"


def conclude(
    run: RunDirectory,
    prepared: Prepared,
    images: Images,
    table: SensitivityTable | None,
    selection: Selection,
    network: QuantizedNetwork,
    verification: Verification,
    plan: MemoryPlan = NO_LIMIT,
    latency_ms: float | None = None,
) -> dict[str, Any]:
    """Write result.json and report.html; gives the result.

    prepared, images: on the device that computes.  latency_ms: of the file, where it was measured.
    """
    device = prepared.folded.example[0].device
    metadata = read_tensor_file(run.path / FILES["model"])[1]
    chunk = plan.amounts.chunk
    reference = outputs(prepared.folded.run, images.held_out, chunk)
    outcome = Outcome(
        prepared=prepared,
        setting=selection.setting,
        table=table,
        rounding=json.loads(metadata["rounding"]),
        finer_outputs=tuple(json.loads(metadata["finer_outputs"])),
        fastest=run.decided("fastest") if prepared.options.fastest else None,
        quantized=network,
        onnx_bytes=(run.path / FILES["onnx"]).stat().st_size,
        divergence=compare(prepared.meaning, reference, network.placed(device), images.held_out, chunk),
        device=device.type,
        verification=verification,
        predicted_memory_mb=plan.peak_mb,
        latency_ms=latency_ms,
        precision="fp32"
        if (decided := run.decided("precision")) is None
        else f"{decided['dtype']} {decided['layout']}",
    )
    seconds: dict[str, float | None] = {name: run.seconds.get(name) for name in STAGES}
    if (ranges := seconds["ranges"]) is not None:
        seconds["ranges"] = round(ranges + run.seconds.get("centres", 0.0), 3)  # a stage that most networks do not have
    if prepared.options.fastest:
        seconds["fastest"] = run.seconds.get("fastest")
    if (timed := run.decided(DECISION)) is not None:
        seconds["latency"] = timed["seconds"]
    seconds |= {"capture": prepared.seconds, "load": round(verification.load_seconds, 4)}
    result = outcome.to_json(seconds)
    start = time.perf_counter()
    run.write_json(RESULT, result)
    run.write_bytes(REPORT, page(run.path).encode())
    result["seconds"]["report"] = round(time.perf_counter() - start, 3)
    run.write_json(RESULT, result)
    return result


def write_report(directory: Path) -> Path:
    """Write report.html again, from what a run directory holds. Raises RunError where that is not enough."""
    data = page(directory).encode()
    with RunDirectory(directory) as run:
        run.write_bytes(REPORT, data)
    return directory / REPORT


def page(directory: Path) -> str:
    """The page of a run directory."""
    run = read_record(directory)
    result, ranges, sensitivity, frontier = (
        read_object(directory / f"{name}.json") for name in ("result", "ranges", "sensitivity", "frontier")
    )
    if "activation_bits" in frontier["chosen"]:
        ranges = in_use(ranges, directory)
    return render(RunRecord(run, result, ranges, sensitivity, frontier, pictures(directory, run)))


def in_use(ranges: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Of ranges that were measured at every width, those that the chosen network has; names without the width."""
    metadata = read_tensor_file(directory / FILES["model"])[1]
    used = set(json.loads(metadata["quantizers"]).values())
    found = {name: each for name, each in ranges["quantizers"].items() if name in used}
    return {**ranges, "quantizers": found}


def pictures(directory: Path, run: dict[str, Any]) -> NDArray[np.uint8] | None:
    """Some of the run's images as pixels [count, H, W, C]; None where it kept none."""
    path = directory / FILES["images"]
    if not path.is_file():
        return None
    tensors = read_tensor_file(path)[0]
    if run["preprocess"] is None or "images" not in tensors:
        return None
    return to_pixels(tensors["images"][:SHOWN], Preprocessing.from_dict(run["preprocess"]))


def to_pixels(images: Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Network inputs [N, C, H, W] back to pixels [N, H, W, C] in the order R, G, B."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    if preprocessing.channels == "BGR":
        pixels = pixels.flip(1)
    found: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return found
