"""Images of Sony's model-compression-toolkit for one network; runs in an environment that has it and torchvision:

PYTHONPATH=src PYTHON -m benchmarks.peer_row NETWORK --data FOLDER --iterations 4 --tensors FILE --out FILE.json

Nothing of it is set but the number of images and iterations, and how the network normalises pictures.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed_subject import NETWORKS, find
from zeroq.devices import threads
from zeroq.numbers.tensor_file import tensor_file_bytes
from zeroq.preprocessing import Preprocessing
from zeroq.run_directory import json_bytes

PACKAGE = "model_compression_toolkit"
VERSIONS = ("model-compression-toolkit", "torch", "torchvision")
PIXEL = 255  # the greatest value of the toolkit's pictures


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.peer_row", description="See benchmarks.speed --peer.")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tensors", type=Path, required=True, help="where the images go")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    module, preprocessing = find(asked.network, asked.data)
    with threads(asked.threads):
        generated(module, preprocessing, asked.images, 1)  # what comes first allocates and chooses kernels
        _, one = generated(module, preprocessing, asked.images, 1)
        images, seconds = generated(module, preprocessing, asked.images, asked.iterations)
    asked.tensors.write_bytes(tensor_file_bytes({"images": images}))
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    asked.out.write_bytes(json_bytes({"one_seconds": one, "seconds": seconds, "versions": versions}))


def generated(module: nn.Module, preprocessing: Preprocessing, images: int, iterations: int) -> tuple[Tensor, float]:
    """Images [N, C, H, W] as the network takes them, and the seconds that they took."""
    toolkit: Any = importlib.import_module(PACKAGE).data_generation
    pipeline = importlib.import_module(f"{PACKAGE}.data_generation.common.image_pipeline")
    normalisation = [[PIXEL * value for value in values] for values in (preprocessing.mean, preprocessing.std)]
    pipeline.image_normalization_dict[toolkit.ImageNormalizationType.TORCHVISION] = normalisation
    settings = toolkit.get_pytorch_data_generation_config(n_iter=iterations, data_gen_batch_size=images)
    torch.manual_seed(0)
    begin = time.perf_counter()
    found = toolkit.pytorch_data_generation_experimental(
        model=module, n_images=images, output_image_size=preprocessing.size, data_generation_config=settings
    )
    return torch.cat(found), time.perf_counter() - begin


if __name__ == "__main__":
    main()
