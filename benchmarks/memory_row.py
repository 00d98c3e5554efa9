"""One network quantized within a limit of memory, in a process of its own:

python -m benchmarks.memory_row NETWORK --images 64 --iterations 4 --limit 8.5 --out FILE.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peaks import peaks_by_stage
from benchmarks.process import row_parser
from benchmarks.published_networks import Built, build
from zeroq import devices, quantize
from zeroq.whole_files import json_bytes, read_json

OPTIONS: dict[str, Any] = {"average_bits": 4}  # of `zeroq quantize`, so that no stage has nothing to do


def main() -> None:
    parser = row_parser("benchmarks.memory_row", "network")
    parser.add_argument("--images", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--limit", type=float)
    asked = parser.parse_args()
    options = {"images": asked.images, "iterations": asked.iterations, "threads": asked.threads}
    asked.out.write_bytes(json_bytes(measure(build(asked.network), asked.network, asked.limit, options)))


def measure(network: Built, name: str, limit: float | None, options: dict[str, Any]) -> dict[str, Any]:
    """Quantize, and what the table says of it, as plain JSON; limit: in 10^9 bytes."""
    example = torch.zeros(1, *network.preprocessing.input_shape)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, peaks_by_stage() as peaks:
        run = quantize(
            network.module, example, out=Path(folder) / "run", preprocess=network.preprocessing.to_dict(),
            task=network.task, decode=network.decode, name=name, memory_limit=limit, **OPTIONS, **options,
        )  # fmt: skip
        record = read_json(run.directory / "run.json")
    plan = record.get("memory", {"amounts": None, "predicted_mb": None})
    return {
        **plan,
        "measured_mb": peaks,
        "seconds": run.result["seconds"],
        "precision": run.result["precision"],
        "cpu": run.result["cpu"],
        "threads": torch.get_num_threads() if options["threads"] is None else options["threads"],
        "integer_instructions": devices.integer_instructions(),
        "versions": record["versions"],
    }


if __name__ == "__main__":
    main()
