"""The networks that the paper reports, built without trained weights, as if they had been trained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.plausible import make_plausible
from tests.retinanet import decode, retinanet
from zeroq.divergence import Decode
from zeroq.models.zoo import find_in_zoo
from zeroq.preprocessing import Preprocessing, imagenet

DETECTOR_SIDE = 320


@dataclass(frozen=True)
class Built:
    """A network with statistics, and what it takes."""

    module: nn.Module
    preprocessing: Preprocessing
    task: str
    decode: Decode | None = None


def of_zoo(name: str) -> Callable[[], Built]:
    """A network of pytorchcv."""

    def build() -> Built:
        found = find_in_zoo("pytorchcv", name, pretrained=False)
        assert found.preprocessing is not None
        return Built(found.module, found.preprocessing, "classification")

    return build


def detector() -> Built:
    """RetinaNet-ResNet50-FPN: backbone, pyramid and heads."""
    preprocessing = imagenet((DETECTOR_SIDE, DETECTOR_SIDE))
    return Built(retinanet(), preprocessing, "detection", functools.partial(decode, side=DETECTOR_SIDE))


NETWORKS: dict[str, Callable[[], Built]] = {  # in the order in which they are measured
    "resnet18": of_zoo("resnet18"),
    "mobilenetv2_w1": of_zoo("mobilenetv2_w1"),
    "shufflenet_g1_w1": of_zoo("shufflenet_g1_w1"),
    "sqnxt23_w2": of_zoo("sqnxt23_w2"),
    "resnet50": of_zoo("resnet50"),
    "inceptionv3": of_zoo("inceptionv3"),
    "retinanet_resnet50_fpn": detector,
    "resnet152": of_zoo("resnet152"),
}


def build(name: str, **options: Any) -> Built:
    """One of NETWORKS, or any other of pytorchcv, always with the same numbers; options: of make_plausible."""
    torch.manual_seed(0)
    built = NETWORKS.get(name, of_zoo(name))()
    make_plausible(built.module, built.preprocessing, **options)
    return built
