"""torchvision's RetinaNet-ResNet50-FPN with its weights of COCO, as a user's file: backbone and heads, wrapped.

    zeroq quantize benchmarks/retinanet_coco.py:retinanet_coco

torchvision's own forward pass resizes pictures, makes anchors and suppresses boxes, none of which can be captured.
Pictures are brought to 800 x 800 here, where torchvision keeps the shorter side at 800: mAP is a little lower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIDE = 800
PREPROCESS = {
    "size": (SIDE, SIDE), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channels": "RGB",
    "resize": "letterbox",
}  # fmt: skip
TASK = "detection"
UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of the 91 outputs: no category of COCO has these numbers
LEAST_SCORE, CANDIDATES, MOST_OVERLAP, KEPT = 0.05, 1000, 0.5, 100


class Wrapped(nn.Module):
    """Pictures [N, 3, H, W] to class scores [N, anchors, 91] and changes of the anchors [N, anchors, 4]."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = list(self.backbone(images).values())
        outputs = self.head(levels)
        return outputs["cls_logits"], outputs["bbox_regression"]


def detector(*, pretrained: bool) -> Any:
    """torchvision's own module."""
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights, retinanet_resnet50_fpn

    weights = RetinaNet_ResNet50_FPN_Weights.DEFAULT if pretrained else None
    return retinanet_resnet50_fpn(weights=weights, weights_backbone=None).eval()


def retinanet_coco() -> nn.Module:
    return Wrapped(detector(pretrained=True)).eval()


def decode(outputs: tuple[Tensor, Tensor]) -> list[Tensor]:
    """For each picture [k, 6]: x0, y0, x1, y1 in fractions of the input, score, class in order of COCO's numbers."""
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.ops import batched_nms

    around = anchors()
    used = [number for number in range(91) if number not in UNUSED]
    found = []
    for logits, changes in zip(*outputs, strict=True):
        scores = logits[:, used].sigmoid().flatten()
        best = scores.topk(CANDIDATES).indices
        best = best[scores[best] > LEAST_SCORE]
        place, label = best // len(used), best % len(used)
        boxes = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(changes[place], around[place]).clamp(0, SIDE)
        kept = batched_nms(boxes, scores[best], label, MOST_OVERLAP)[:KEPT]
        rows = torch.cat([boxes / SIDE, scores[best, None], label[:, None]], 1)
        found.append(rows[kept])
    return found


def anchors() -> Tensor:
    """Corners of all anchors in pixels, [anchors, 4]."""
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.retinanet import _default_anchorgen

    maps = [torch.zeros(1, 1, -(-SIDE // stride), -(-SIDE // stride)) for stride in (8, 16, 32, 64, 128)]
    boxes: Tensor = _default_anchorgen()(ImageList(torch.zeros(1, 3, SIDE, SIDE), [(SIDE, SIDE)]), maps)[0]
    return boxes
