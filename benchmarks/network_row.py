"""One network of the paper taken from module to file, in a process of its own:

    python -m benchmarks.network_row NETWORK --images 16 --iterations 4 --out FILE.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import layers_by_bits
from benchmarks.peaks import peaks_by_stage
from benchmarks.process import row_parser
from benchmarks.published_networks import NETWORKS, Built, build
from zeroq import devices, quantize
from zeroq.outcome import OUTPUT
from zeroq.whole_files import json_bytes, read_json

OPTIONS: dict[str, Any] = {"average_bits": 4}  # of `zeroq quantize`: mixed precision, activations in 8 bits
KEPT = (  # entries of result.json
    *("version", "seed", "precision", "cpu", "float_bytes", "weight_bytes", "other_bytes", "onnx_bytes"),
    *("average_bits", "verification", "integer_nodes", "float_nodes", "integer_share", "seconds", "warnings"),
)


def main() -> None:
    parser = row_parser("benchmarks.network_row")
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("--images", type=int)
    parser.add_argument("--iterations", type=int)
    asked = parser.parse_args()
    options = {"images": asked.images, "iterations": asked.iterations, "threads": asked.threads}
    asked.out.write_bytes(json_bytes(measure(build(asked.network), asked.network, options)))


def measure(network: Built, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Quantize, and what the table says of it, as plain JSON."""
    example = torch.zeros(1, *network.preprocessing.input_shape)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, peaks_by_stage() as peaks:
        run = quantize(
            network.module, example, out=Path(folder) / "run", preprocess=network.preprocessing.to_dict(),
            task=network.task, decode=network.decode, name=name, **OPTIONS, **options,
        )  # fmt: skip
        images = run.result["divergence"]["images"]
        versions = read_json(run.directory / "run.json")["versions"]
    layers = {layer["name"] for layer in run.result["layers"]}
    reasons = {entry["name"]: entry["reason"] for entry in run.result["not_quantized"]}
    left = [name for name in layers if reasons.get(name, OUTPUT) != OUTPUT]
    return {
        **{entry: run.result[entry] for entry in KEPT},
        "input": list(network.preprocessing.input_shape),
        "layers": len(layers),
        "layers_quantized": len(layers) - len(left),
        "layers_by_bits": layers_by_bits(run.result),
        "not_quantized": run.result["not_quantized"],
        "peak_memory_mb": peaks,
        "held_out_images": images,
        "versions": versions,
        "threads": torch.get_num_threads() if options["threads"] is None else options["threads"],
        "integer_instructions": devices.integer_instructions(),
    }


if __name__ == "__main__":
    main()
