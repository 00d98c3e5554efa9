"""The toolkit's images and its quantization, with its own settings: the one module that knows its names.

What is set is how many images and iterations, how the network normalises pictures, and the bytes that weights may take.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zeroq.preprocessing import Preprocessing

PACKAGE = "model_compression_toolkit"
VERSIONS = ("model-compression-toolkit", "torch", "torchvision")
ITERATIONS = 500  # its own
PIXEL = 255  # the greatest value of its pictures
BATCH = 16  # images that it is shown at a time
WHOLE_BITS = 8  # of the weights whose bytes it tells


def versions() -> dict[str, str]:
    """Of what the figures hang on."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


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


def quantized(module: nn.Module, images: Tensor, average_bits: float | None) -> nn.Module:
    """The network as its post-training quantization leaves it, an nn.Module that simulates integers.

    images: [N, C, H, W], all that it is shown.  average_bits: of the weights, at most; each layer's are chosen among
    those of its default target platform (2, 4, 8). None for 8 everywhere.
    """
    toolkit: Any = importlib.import_module(PACKAGE)
    quantize = toolkit.ptq.pytorch_post_training_quantization

    def representative() -> Iterator[list[Tensor]]:
        for batch in images.split(BATCH):
            yield [batch]

    torch.manual_seed(0)
    if average_bits is None:
        return quantize(module, representative)[0]
    mixed = toolkit.core.CoreConfig(mixed_precision_config=toolkit.core.MixedPrecisionQuantizationConfig())
    whole = toolkit.core.pytorch_resource_utilization_data(module, representative, mixed)
    most = toolkit.core.ResourceUtilization(weights_memory=whole.weights_memory * average_bits / WHOLE_BITS)
    return quantize(module, representative, target_resource_utilization=most, core_config=mixed)[0]


def weight_bits(network: nn.Module) -> list[tuple[int, int]]:
    """Of each tensor of weights that it quantized: bits, and how many weights."""
    return [
        (int(quantizer.num_bits), getattr(module.layer, name).numel())
        for module in network.modules()
        for name, quantizer in getattr(module, "weights_quantizers", {}).items()
    ]
