"""What others have published, to be printed beside ours: top-1 in per cent on ImageNet, mAP in per cent on COCO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RESNET18, RESNET50, INCEPTION, SQUEEZENEXT = "resnet18", "resnet50", "inceptionv3", "sqnxt23_w2"
SHUFFLENET, MOBILENET, RETINANET = "shufflenet_g1_w1", "mobilenetv2_w1", "retinanet_resnet50_fpn"
CLASSIFIERS = (RESNET18, RESNET50, INCEPTION, SQUEEZENEXT, SHUFFLENET, MOBILENET)  # of pytorchcv

SETTINGS: dict[str, dict[str, Any]] = {  # options of `zeroq quantize`
    "W8A8": {},
    "W6A6": {"weight_bits": 6, "activation_bits": 6, "edge_bits": "same"},
    "W4A4": {"weight_bits": 4, "activation_bits": 4, "edge_bits": "same"},
    "mixed at 6-bit size, A6": {"average_bits": 6, "activation_bits": 6},
    "mixed at 4-bit size, A8": {"average_bits": 4},
    "mixed at 6-bit size, A8": {"average_bits": 6},
}
DETECTOR_SETTINGS = ("W8A8", "mixed at 6-bit size, A8", "mixed at 4-bit size, A8")


@dataclass(frozen=True)
class Published:
    """One row of a table: accuracies in per cent by network."""

    setting: str
    method: str
    accuracy: Mapping[str, float]


FLOAT = Published(
    "float",
    "pytorchcv's weights, as the papers give them",
    {RESNET18: 71.47, RESNET50: 77.72, MOBILENET: 73.03, SHUFFLENET: 65.07, INCEPTION: 78.81, SQUEEZENEXT: 69.38},
)
ROWS = (
    Published(
        "W8A8", "ZeroQ, its README",
        {RESNET18: 71.43, RESNET50: 77.67, INCEPTION: 78.72, SQUEEZENEXT: 69.17, SHUFFLENET: 64.94, MOBILENET: 72.91},
    ),
    Published(
        "W8A8", "SQuant",
        {RESNET18: 71.47, RESNET50: 77.71, INCEPTION: 78.79, SQUEEZENEXT: 69.22, SHUFFLENET: 64.68},
    ),
    Published(
        "W6A6", "ZeroQ, a third party's run",
        {RESNET18: 69.84, RESNET50: 72.93, INCEPTION: 74.94, SQUEEZENEXT: 16.54, SHUFFLENET: 35.21},
    ),
    Published(
        "W6A6", "SQuant",
        {RESNET18: 70.74, RESNET50: 77.05, INCEPTION: 78.30, SQUEEZENEXT: 67.34, SHUFFLENET: 60.25},
    ),
    Published(
        "W4A4", "ZeroQ, a third party's run", {RESNET18: 19.09, RESNET50: 7.75, INCEPTION: 18.20, SQUEEZENEXT: 0.09}
    ),
    Published("W4A4", "DSG", {RESNET18: 34.53, RESNET50: 23.10}),
    Published("W4A4", "SQuant", {RESNET18: 66.14, RESNET50: 70.80, INCEPTION: 73.26, SQUEEZENEXT: 43.45}),
    Published(
        "mixed at 6-bit size, A6", "ZeroQ, the paper",
        {RESNET18: 71.30, RESNET50: 77.43, SHUFFLENET: 62.90, MOBILENET: 72.85},
    ),
    Published(
        "mixed at 6-bit size, A6", "rebuilt by others, best percentile",
        {RESNET18: 71.33, RESNET50: 76.27, SHUFFLENET: 61.59, MOBILENET: 72.20},
    ),
    Published(
        "mixed at 6-bit size, A6", "rebuilt by others, least and greatest",
        {RESNET18: 69.86, RESNET50: 70.97, SHUFFLENET: 36.42, MOBILENET: 72.14},
    ),
    Published("mixed at 4-bit size, A8", "ZeroQ, the paper", {RESNET50: 75.80, SHUFFLENET: 58.96, MOBILENET: 69.44}),
    Published("mixed at 4-bit size, A8", "rebuilt by others", {RESNET50: 72.97, SHUFFLENET: 50.97, MOBILENET: 53.5}),
)  # fmt: skip
DETECTOR_FLOAT = Published("float", "ZeroQ, the paper", {RETINANET: 36.4})
DETECTOR_ROWS = (
    Published("W8A8", "ZeroQ, the paper", {RETINANET: 36.4}),
    Published("mixed at 6-bit size, A8", "ZeroQ, the paper", {RETINANET: 35.9}),
    Published("mixed at 4-bit size, A8", "ZeroQ, the paper", {RETINANET: 33.7}),
)
