"""Tiny networks with one difficulty each, shared by all tests. All take 3 channels of 8 x 8 unless they say otherwise.

network = NETWORKS["residual"]()               # seeded weights, statistics as if it had been trained, eval mode
example = example_of("residual")               # [2, C, H, W]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHAPES = {"one_channel": (1, 8, 8), "one_pixel_maps": (3, 2, 2), "wide_input": (3, 8, 12), "five_channels": (5, 8, 8)}


class Residual(nn.Module):
    """A sum of two branches, each a convolution with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.body = nn.Sequential(block(8, 8), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.head(torch.relu(stem + self.body(stem)).mean((2, 3)))


class ConcatenateAndShuffle(nn.Module):
    """Two branches concatenated, channels shuffled by view and transpose, then a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(3, 4), block(3, 4)
        self.last = block(8, 8, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        joined = torch.cat([self.first(images), self.second(images)], 1)
        batch, channels, height, width = joined.shape
        shuffled = (
            joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        )
        return self.head(self.last(shuffled).mean((2, 3)))


class SharedHead(nn.Module):
    """One convolution with its BatchNorm runs on maps of two sizes: one layer, two sites; a list as output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = block(3, 8), block(8, 4)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.stem(images)
        return [self.head(fine), self.head(self.pool(fine))]


class PreActivation(nn.Module):
    """BatchNorm and ReLU before each convolution: a BatchNorm that follows a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.body = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False))
        self.last = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.head(torch.relu(self.last(stem + self.body(stem))).mean((2, 3)))


class OneConvolution(nn.Module):
    """A single layer: it is the first and the last at once."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 4, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.only(images).flatten(1)


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def classifier(*layers: nn.Module, channels: int = 8) -> nn.Sequential:
    """Layers, then the spatial mean and a linear layer to 4 classes."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


def relu6() -> nn.Module:
    """Inverted residual's parts: expansion, depthwise, linear bottleneck, with ReLU6."""
    clipped = [nn.Sequential(*part[:2], nn.ReLU6(inplace=True)) for part in (block(3, 12, 1), block(12, 12, groups=12))]
    return classifier(*clipped, nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8))


def norm_after_relu() -> nn.Module:
    """Convolution, ReLU, BatchNorm: the BatchNorm cannot be folded into the convolution before it."""
    return classifier(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)
    )


def dead_channels() -> nn.Module:
    """Two channels of the first BatchNorm never saw anything: zero weights, variance near 0 and 0."""
    network = classifier(block(3, 8), block(8, 8))
    convolution, norm = network[0][0], network[0][1]
    with torch.no_grad():
        convolution.weight[:2] = 0
        norm.running_mean[:2] = 0
        norm.running_var[:2] = torch.tensor([1e-45, 0.0])
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {}
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: classifier(block(3, 8), block(8, 8, stride=2)),
    "residual": Residual,
    "concatenate_and_shuffle": ConcatenateAndShuffle,
    "depthwise": lambda: classifier(block(3, 8), block(8, 8, groups=8), block(8, 8, 1)),
    "grouped": lambda: classifier(block(3, 8), block(8, 8, groups=4)),
    "relu6": relu6,
    "shared_head": SharedHead,
    "norm_after_relu": norm_after_relu,
    "pre_activation": PreActivation,
    "no_norm": lambda: classifier(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
    "one_convolution": OneConvolution,
    "long_kernels": lambda: classifier(block(3, 8), nn.Conv2d(8, 8, (1, 3), padding="same"), nn.ReLU(), nn.Conv2d(8, 8, (3, 1))),
    "linear_only": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)),
    "max_pool": lambda: classifier(block(3, 8), nn.MaxPool2d(2), block(8, 8), nn.AvgPool2d(2)),
    "dead_channels": dead_channels,
    "one_channel": lambda: classifier(block(1, 8), block(8, 8)),
    "five_channels": lambda: classifier(block(5, 8), block(8, 8)),
    "one_pixel_maps": lambda: classifier(block(3, 8, stride=2), block(8, 8)),
    "wide_input": lambda: classifier(block(3, 8), block(8, 8)),
}  # fmt: skip


def made(name: str) -> Callable[[], nn.Module]:
    """A function that makes the network, always with the same weights, whatever the generator's state."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return settle(MAKERS[name](), (64, *shape_of(name)))

    return make


def settle(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Running statistics those of random images, gains and shifts of BatchNorms unlike 1 and 0; eval mode."""
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    kept = [(norm, norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        network.train()(torch.randn(shape))
    for norm, mean, variance in kept:
        norm.momentum = 0.1
        dead = variance < 1e-6
        norm.running_mean[dead], norm.running_var[dead] = mean[dead], variance[dead]  # type: ignore[index]
    return network.eval()


def shape_of(name: str) -> tuple[int, int, int]:
    """Channels, height and width of a network's input."""
    return SHAPES.get(name, (3, 8, 8))


def example_of(name: str, images: int = 2, seed: int = 0) -> Tensor:
    """Random inputs [images, C, H, W]."""
    return torch.randn(images, *shape_of(name), generator=torch.Generator().manual_seed(seed))


NETWORKS |= {name: made(name) for name in MAKERS}
