"""A twin of torchvision's RetinaNet-ResNet50-FPN in plain PyTorch, its keys of the state_dict included.

What makes it hard to quantize is all there: frozen BatchNorms in the backbone, a pyramid of five levels that sums maps
of two sizes, heads whose weights run on all five, no BatchNorm behind the backbone, two outputs of unlike values.
Anchors, decoding and suppression stand outside, as they do for every detector: decode().

    retinanet()                                         # 71 layers, 38 million parameters
    retinanet(blocks=(1, 1, 1, 1), width=8, pyramid=16) # one of the same shape for tests
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4  # of a bottleneck's channels
ANCHORS = 9  # for each position: three sizes, three ratios
STACKED = 4  # convolutions of each head before its last
LEVELS = 5  # of the pyramid, a factor of two between each


class FrozenBatchNorm2d(nn.Module):
    """As torchvision writes it: buffers alone, and plain arithmetic."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            self.get_buffer(name).reshape(1, -1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * (variance + self.eps).rsqrt()
        return x * scale + (bias - mean * scale)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1, and the sum with the input, by a convolution where its shape differs."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), FrozenBatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), FrozenBatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shorter = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shorter, FrozenBatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class Body(nn.Module):
    """A residual network without its classifier: the maps of its last three stages."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False), FrozenBatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        inputs = width
        for number, count in enumerate(blocks):
            made = []
            for index in range(count):
                made.append(Bottleneck(inputs, width << number, 2 if number and not index else 1))
                inputs = EXPANSION * (width << number)
            self.add_module(f"layer{number + 1}", nn.Sequential(*made))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.get_submodule("layer1")(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        maps = []
        for number in (2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps


class Extra(nn.Module):
    """Two further levels of the pyramid, each half as large."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, padding=1)

    def forward(self, last: Tensor) -> list[Tensor]:
        sixth = self.p6(last)
        return [sixth, self.p7(functional.relu(sixth))]


class Pyramid(nn.Module):
    """Every level the sum of its own map and the coarser level's, enlarged."""

    def __init__(self, inputs: list[int], channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(each, channels, 1)) for each in inputs)
        smooth = [nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)) for _ in inputs]
        self.layer_blocks = nn.ModuleList(smooth)
        self.extra_blocks = Extra(channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        last = self.inner_blocks[-1](maps[-1])
        results = [self.layer_blocks[-1](last)]
        for level in range(len(maps) - 2, -1, -1):
            lateral = self.inner_blocks[level](maps[level])
            last = lateral + functional.interpolate(last, size=lateral.shape[-2:], mode="nearest")
            results.insert(0, self.layer_blocks[level](last))
        return [*results, *self.extra_blocks(results[-1])]


class Head(nn.Module):
    """Convolutions that run on every level: for each anchor a row of `values`."""

    def __init__(self, channels: int, values: int, last: str) -> None:
        super().__init__()
        stacked = [nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()) for _ in range(STACKED)]
        self.conv = nn.Sequential(*stacked)
        self.last, self.values = last, values
        self.add_module(last, nn.Conv2d(channels, ANCHORS * values, 3, padding=1))

    def forward(self, levels: list[Tensor]) -> Tensor:
        rows = []
        for level in levels:
            found = self.get_submodule(self.last)(self.conv(level))
            count, _, height, width = found.shape
            found = found.view(count, -1, self.values, height, width).permute(0, 3, 4, 1, 2)
            rows.append(found.reshape(count, -1, self.values))
        return torch.cat(rows, 1)


class RetinaNet(nn.Module):
    """Pictures [N, 3, H, W] to class scores [N, anchors of all levels, classes] and boxes [N, anchors, 4]."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int, pyramid: int, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = Body(blocks, width)
        self.backbone.fpn = Pyramid([EXPANSION * (width << stage) for stage in (1, 2, 3)], pyramid)
        self.head = nn.Module()
        self.head.classification_head = Head(pyramid, classes, "cls_logits")
        self.head.regression_head = Head(pyramid, 4, "bbox_reg")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.get_submodule("backbone.fpn")(self.get_submodule("backbone.body")(images))
        names = ("classification_head", "regression_head")
        scores, boxes = (self.head.get_submodule(name)(levels) for name in names)
        return scores, boxes


def retinanet(
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3), width: int = 64, pyramid: int = 256, classes: int = 91
) -> RetinaNet:
    """The network in eval mode; weights as PyTorch initialises them, statistics of zeros and ones."""
    return RetinaNet(blocks, width, pyramid, classes).eval()


SIZES, RATIOS = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)), (0.5, 1.0, 2.0)  # of anchors: side over 4 strides, height over width
FINEST = 8  # pixels between the positions of the finest level
LARGEST_GROWTH = math.log(1000 / 16)  # of a box over its anchor
KEPT, LEAST_SCORE, MOST_OVERLAP = 100, 0.05, 0.5


def anchors(side: int) -> Tensor:
    """Of all levels of a picture of side x side: [anchors, 4], centre x, y, width, height in pixels."""
    rows = []
    for level in range(LEVELS):
        stride = FINEST << level
        count = -(-side // stride)
        shapes = torch.tensor([[4 * stride * s / r**0.5, 4 * stride * s * r**0.5] for r in RATIOS for s in SIZES])
        places = torch.arange(count) * (side // count)
        y, x = torch.meshgrid(places, places, indexing="ij")
        centres = torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, ANCHORS, 2)
        rows.append(torch.cat([centres, shapes.expand(len(centres), -1, -1)], -1).reshape(-1, 4))
    return torch.cat(rows)


def decode(outputs: tuple[Tensor, Tensor], side: int) -> list[Tensor]:
    """For each picture [k, 6]: x0, y0, x1, y1 in fractions of the side, score, class."""
    around = anchors(side)
    found = []
    for logits, changes in zip(*outputs, strict=True):
        scores, classes = logits.sigmoid().max(1)
        best = scores.topk(min(10 * KEPT, len(scores))).indices
        best = best[scores[best] >= LEAST_SCORE]
        centre = around[best, :2] + changes[best, :2] * around[best, 2:]
        half = around[best, 2:] * changes[best, 2:].clamp(max=LARGEST_GROWTH).exp() / 2
        boxes = torch.cat([centre - half, centre + half], 1).clamp(0, side) / side
        kept = suppress(boxes + 2 * classes[best, None], KEPT)  # boxes of unlike classes lie apart
        found.append(torch.cat([boxes, scores[best, None], classes[best, None]], 1)[kept])
    return found


def suppress(boxes: Tensor, most: int) -> list[int]:
    """Places of boxes [k, 4], best first, that overlap none of those before them by much."""
    low, high = boxes[:, None, :2].maximum(boxes[None, :, :2]), boxes[:, None, 2:].minimum(boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    overlap = shared / (area[:, None] + area[None] - shared).clamp(min=1e-12)
    kept: list[int] = []
    for place in range(len(boxes)):
        if len(kept) < most and not any(overlap[place, other] > MOST_OVERLAP for other in kept):
            kept.append(place)
    return kept
