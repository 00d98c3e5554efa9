"""One row, in a process of its own so that peak memory and threads are its own:

    python -m benchmarks.measure NETWORK SETTING IMAGES --data FOLDER --out FILE.json
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.halves import CONFIRMATION, Half, calibration, float_scores, halves, scores
from benchmarks.process import row_parser
from benchmarks.rows import CACHE, Row, method_code
from benchmarks.unit import precision_named, unit_seconds
from benchmarks.upkeep import Measurable
from zeroq import devices
from zeroq.accuracy import in_inference
from zeroq.divergence import agreement, kl_divergence
from zeroq.evaluate import onnx_predictor
from zeroq.graph import capture
from zeroq.models import LoadedModel, load_model
from zeroq.options import Options
from zeroq.pipeline import Run, quantize_model
from zeroq.whole_files import json_bytes, read_json

SIMULATED = 300  # images of the confirmation half on which file and simulation are compared, at most
KEPT = (  # entries of result.json
    *("version", "seed", "effort", "precision", "float_bytes", "weight_bytes", "other_bytes", "onnx_bytes"),
    *("average_bits", "not_quantized", "divergence", "verification", "integer_nodes", "float_nodes", "integer_share"),
    *("seconds", "peak_memory_mb", "warnings"),
)


def main() -> None:
    asked = row_parser("benchmarks.measure", "network", "setting", "images", data=True).parse_args()
    row = Row(asked.network, asked.setting, asked.images)
    model = load_model(f"{asked.data / 'networks' / row.network}.py:{row.network}")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        pictures = calibration(row, model, asked.data, Path(folder))
        options = row.options(calibration=pictures, threads=asked.threads)
        out = shared_run(row) if pictures is None else Path(folder) / "run"
        record = measure(model, options, halves(row.network, model, asked.data), out, CACHE)
    asked.out.write_bytes(json_bytes(record))


def measure(model: LoadedModel, options: Options, pictures: list[Half], out: Path, cache: Path) -> dict[str, Any]:
    """Quantize into the directory `out`, then everything that the tables say of it, as plain JSON."""
    run = quantize_model(model, options, out)  # nothing else before it: peak_memory_mb is of the whole process
    with devices.threads(options.threads):
        begin = time.perf_counter()
        predict = onnx_predictor(out / "model.onnx", torch.get_num_threads())
        load_seconds = time.perf_counter() - begin
        found = {half.role: scores(predict, half.data) for half in pictures}
        expected = {half.role: float_scores(model.name, model, half, cache) for half in pictures}
        confirmation = next(half for half in pictures if half.role == CONFIRMATION)
        example = torch.randn(2, *model.input_shape, generator=torch.Generator().manual_seed(0))
        unit = unit_seconds(capture(model.module, example), precision_named(run.result["precision"]))
        told = told_by(run, model)
        return {
            **told,
            "sets": {half.role: compared(half, expected[half.role], found[half.role]) for half in pictures},
            "simulation": simulated(run, confirmation, found[CONFIRMATION]),
            "range_sources": range_sources(out),
            "unit_seconds": round(unit, 4),
            "units": round(told["total_seconds"] / unit, 1),
            "load_seconds": round(load_seconds, 4),
        }


def told_by(run: Run, model: LoadedModel) -> dict[str, Any]:
    """What rows of every task keep of a run: its file, its layers, its seconds, and what it was made with."""
    return {
        **{name: run.result[name] for name in KEPT},
        "layers": len(run.result["layers"]),
        "layers_by_bits": layers_by_bits(run.result),
        "chosen": read_json(run.directory / "frontier.json")["chosen"]["name"],
        "total_seconds": round(sum(spent or 0.0 for spent in run.result["seconds"].values()), 2),
        "weights_sha256": model.weights_sha256,
        "versions": read_json(run.directory / "run.json")["versions"],
        "cpu": devices.processor(),
        "gpu": devices.name_of(torch.device("cuda")) if run.result["device"] == "cuda" else None,
        "integer_instructions": devices.integer_instructions(),
        "threads": torch.get_num_threads(),
    }


def shared_run(row: Measurable) -> Path:
    """One run directory for all settings of a network and an effort: these have the same distilled images.

    It keeps the seconds that these took.
    """
    effort = row.options().effort
    folder = CACHE / "runs" / method_code(row.network)[:12]
    return folder / (row.network if effort == "balanced" else f"{row.network}-{effort}")


def compared(half: Half, expected: Tensor, found: Tensor) -> dict[str, Any]:
    """Which pictures of a half the float and the quantized network have right, and how near they are."""
    before, after = (each.argmax(dim=1) == half.data.labels for each in (expected, found))
    return {
        "name": half.name,
        "images": len(half.data),
        "float_top1": int(before.sum()),
        "top1": int(after.sum()),
        "float_correct": to_hex(before.numpy()),
        "correct": to_hex(after.numpy()),
        "agreement": agreement(expected, found),
        "mean_divergence": float(kl_divergence(expected, found).mean()),
    }


def simulated(run: Run, half: Half, found: Tensor) -> dict[str, Any]:
    """The file's classes against those of the simulation, on images spread evenly over a half."""
    count = min(SIMULATED, len(half.data))
    places = np.linspace(0, len(half.data) - 1, count).round().astype(np.intp)
    simulation = scores(in_inference(run.model), half.data, places)
    same = int((simulation.argmax(dim=1) == found[torch.from_numpy(places)].argmax(dim=1)).sum())
    return {"images": count, "same_class": same}


def layers_by_bits(result: dict[str, Any]) -> dict[str, int]:
    """Number of layers of each weight width."""
    widths = [layer["weight_bits"] for layer in result["layers"]]
    return {str(width): widths.count(width) for width in sorted(set(widths))}


def range_sources(out: Path) -> dict[str, int]:
    """Number of activation ranges by what they were measured on."""
    sources = [each["source"] for each in read_json(out / "ranges.json")["quantizers"].values()]
    return {source: sources.count(source) for source in sorted(set(sources))}


def to_hex(correct: NDArray[np.bool_]) -> str:
    """Truth values [N], eight a byte, the first in the highest bit."""
    return np.packbits(correct).tobytes().hex()


def from_hex(text: str, images: int) -> NDArray[np.bool_]:
    """The inverse of to_hex()."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=images).astype(np.bool_)


if __name__ == "__main__":
    main()
