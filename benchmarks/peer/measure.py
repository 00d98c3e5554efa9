"""One row of `benchmarks.accuracy --peer`, in the toolkit's environment, PYTHONPATH=src:

PYTHON -m benchmarks.peer.measure NETWORK SETTING --iterations 500 --data FOLDER --out FILE.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.halves import Half, float_scores, halves, scores
from benchmarks.measure import compared
from benchmarks.peer import toolkit
from benchmarks.peer.rows import IMAGES, PeerRow
from benchmarks.rows import CACHE, program
from zeroq import devices
from zeroq.accuracy import in_inference
from zeroq.models import LoadedModel, load_model
from zeroq.numbers.tensor_file import read_tensor_file, tensor_file_bytes
from zeroq.whole_files import json_bytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.peer.measure", description="See benchmarks.accuracy --peer.")
    parser.add_argument("network")
    parser.add_argument("setting")
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    row = PeerRow(asked.network, asked.setting, asked.iterations)
    model = load_model(f"{asked.data / 'networks' / row.network}.py:{row.network}")
    with devices.threads(asked.threads):
        record = measure(row, model, halves(row.network, model, asked.data), CACHE / "peer")
    asked.out.write_bytes(json_bytes(record))


def measure(row: PeerRow, model: LoadedModel, pictures: list[Half], cache: Path) -> dict[str, Any]:
    """Images and the quantized network by the toolkit, its answers beside the float network's on both halves.

    cache: of what this environment computes; the float scores of ours are by another version of torch.
    """
    expected = {half.role: float_scores(model.name, model, half, cache) for half in pictures}
    images, image_seconds = images_of(row, model, cache)
    begin = time.perf_counter()
    network = toolkit.quantized(model.module, images, row.average_bits)
    seconds = time.perf_counter() - begin
    predict, tensors = in_inference(network.eval()), toolkit.weight_bits(network)
    widths = [bits for bits, _ in tensors]
    return {
        "sets": {half.role: compared(half, expected[half.role], scores(predict, half.data)) for half in pictures},
        "average_bits": sum(bits * count for bits, count in tensors) / sum(count for _, count in tensors),
        "layers_by_bits": {str(width): widths.count(width) for width in sorted(set(widths))},
        "seconds": {"images": round(image_seconds, 1), "quantization": round(seconds, 1)},
        "weights_sha256": model.weights_sha256,
        "versions": toolkit.versions(),
        "cpu": devices.processor(),
        "threads": torch.get_num_threads(),
    }


def images_of(row: PeerRow, model: LoadedModel, cache: Path) -> tuple[Tensor, float]:
    """The toolkit's images and the seconds that they took, made once for all settings of a network."""
    text = program(Path(toolkit.__file__).read_text(encoding="utf-8"))
    identity = json.dumps([model.weights_sha256, IMAGES, row.iterations, text, toolkit.versions()])
    path = cache / f"{model.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"
    if not path.is_file():
        images, seconds = toolkit.generated(model.module, model.picture(), IMAGES, row.iterations)
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(tensor_file_bytes({"images": images}, {"seconds": repr(seconds)}))
        partial.replace(path)
    tensors, facts = read_tensor_file(path)
    return tensors["images"], float(facts["seconds"])


if __name__ == "__main__":
    main()
