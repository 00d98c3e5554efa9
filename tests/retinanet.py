"""A twin of torchvision's RetinaNet-ResNet50-FPN in plain PyTorch, its keys of the state_dict included.

What makes it hard to quantize is all there: frozen BatchNorms in the backbone, a pyramid of five levels that sums maps
of two sizes, heads whose weights run on all five, no BatchNorm behind the backbone, two outputs of unlike values.
Anchors, decoding and suppression stand outside, as they do for every detector.

    retinanet()                                         # 71 layers, 38 million parameters
    retinanet(blocks=(1, 1, 1, 1), width=8, pyramid=16) # one of the same shape for tests
"""

from __future__ import annotations

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
            each.reshape(1, -1, 1, 1) for each in (self.weight, self.bias, self.running_mean, self.running_var)
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
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        maps = []
        for stage in (self.layer2, self.layer3, self.layer4):
            x = stage(x)
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
        levels = self.backbone.fpn(self.backbone.body(images))
        return self.head.classification_head(levels), self.head.regression_head(levels)


def retinanet(
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3), width: int = 64, pyramid: int = 256, classes: int = 91
) -> RetinaNet:
    """The network in eval mode; weights as PyTorch initialises them, statistics of zeros and ones."""
    return RetinaNet(blocks, width, pyramid, classes).eval()
