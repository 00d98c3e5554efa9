"""One network quantized as `zeroq quantize --average-bits 4` does it, in a process of its own, in seconds and units:

python -m benchmarks.run_row NETWORK --data FOLDER --out FILE.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measure import layers_by_bits
from benchmarks.peaks import peaks_by_stage
from benchmarks.process import row_parser
from benchmarks.speed_subject import NETWORKS, find
from benchmarks.unit import precision_named, unit_seconds
from zeroq import devices, quantize
from zeroq.graph import capture
from zeroq.pipeline import Run
from zeroq.preprocessing import Preprocessing
from zeroq.whole_files import json_bytes, read_json

OPTIONS: dict[str, Any] = {"average_bits": 4, "effort": "balanced"}  # activations in 8 bits
KEPT = ("version", "effort", "precision", "average_bits", "onnx_bytes", "float_bytes")  # of result.json


def main() -> None:
    parser = row_parser("benchmarks.run_row", data=True)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--again", action="store_true", help="and a second time in the same process")
    asked = parser.parse_args()
    module, preprocessing = find(asked.network, asked.data)
    with devices.threads(asked.threads):
        options = {"device": asked.device, "threads": asked.threads}
        found = measure(module, preprocessing, asked.network, options, again=asked.again)
    asked.out.write_bytes(json_bytes(found))


def measure(
    module: nn.Module, preprocessing: Preprocessing, name: str, options: dict[str, Any], *, again: bool = False
) -> dict[str, Any]:
    """Quantize, and what the page says of it, as plain JSON; the unit is measured behind the run, on its device.

    again: a second time as well, as the networks behind the first of a process have it: all modules are imported then,
    and a GPU's libraries and kernels are loaded.
    """
    shape = preprocessing.input_shape

    def made(folder: str) -> Run:
        return quantize(
            module, torch.zeros(1, *shape), out=Path(folder) / "run", preprocess=preprocessing.to_dict(),
            task="classification", name=name, **OPTIONS, **options,
        )  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, peaks_by_stage() as peaks:
        run = made(folder)
        versions = read_json(run.directory / "run.json")["versions"]
    device = devices.resolve(options["device"])
    second = {}
    if again:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            second["again"] = times_of(made(folder))
    with devices.computing(device):
        network = capture(module, torch.zeros(2, *shape)).to(device)
        unit = unit_seconds(network, precision_named(run.result["precision"]))
    times = times_of(run)
    return {
        **{entry: run.result[entry] for entry in KEPT},
        "layers_by_bits": layers_by_bits(run.result),
        **times,
        "unit_seconds": round(unit, 4),
        "units": round(times["total_seconds"] / unit, 1),
        "peak_memory_mb": peaks,
        "versions": versions,
        **second,
    }


def times_of(run: Run) -> dict[str, Any]:
    """Seconds of each stage, and of all."""
    seconds = run.result["seconds"]
    return {"seconds": seconds, "total_seconds": round(sum(spent or 0.0 for spent in seconds.values()), 2)}


if __name__ == "__main__":
    main()
