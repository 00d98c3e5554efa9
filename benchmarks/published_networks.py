"""The networks that the paper reports, built without trained weights, as if they had been trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.plausible import make_plausible
from tests.retinanet import retinanet
from zeroq.models.zoo import find_in_zoo
from zeroq.preprocessing import Preprocessing, imagenet

DETECTOR_SIDE = 320


@dataclass(frozen=True)
class Built:
    """A network with statistics, and what it takes."""

    module: nn.Module
    preprocessing: Preprocessing
    task: str


def of_zoo(name: str) -> Callable[[], tuple[nn.Module, Preprocessing, str]]:
    """A network of pytorchcv."""

    def build() -> tuple[nn.Module, Preprocessing, str]:
        found = find_in_zoo("pytorchcv", name, pretrained=False)
        assert found.preprocessing is not None
        return found.module, found.preprocessing, "classification"

    return build


def detector() -> tuple[nn.Module, Preprocessing, str]:
    """RetinaNet-ResNet50-FPN: backbone, pyramid and heads."""
    return retinanet(), imagenet((DETECTOR_SIDE, DETECTOR_SIDE)), "detection"


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Preprocessing, str]]] = {  # in the order in which they are measured
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
    """One of NETWORKS, always with the same numbers; options: of make_plausible."""
    torch.manual_seed(0)
    module, preprocessing, task = NETWORKS[name]()
    return Built(make_plausible(module, preprocessing, **options), preprocessing, task)
