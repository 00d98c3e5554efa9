"""Which pairs of layers a factor can pass between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, block
from zeroq.graph import capture, fold
from zeroq.repair.links import links


def pairs(module: nn.Module, *shape: int) -> list[tuple[str, str]]:
    network = fold(capture(module.eval(), torch.randn(2, *(shape or (3, 8, 8)))))
    return [(link.first.name, link.second.name) for link in links(network)]


def between(*parts: nn.Module, channels: int = 4) -> list[tuple[str, str]]:
    return pairs(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *parts, nn.Conv2d(channels, 5, 1)))


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (nn.ReLU(),),
        (nn.LeakyReLU(0.2),),
        (nn.PReLU(4),),
        (nn.PReLU(),),
        (nn.BatchNorm2d(4), nn.ReLU()),
        (nn.ReLU(), nn.MaxPool2d(2)),
        (nn.AvgPool2d(2), nn.ReLU()),
        (nn.AdaptiveAvgPool2d(1),),
        (nn.ZeroPad2d(1), nn.ReLU()),
        (nn.Upsample(scale_factor=2),),
        (nn.Dropout(), nn.ReLU()),
    ],
)
def test_a_factor_passes(parts: tuple[nn.Module, ...]) -> None:
    last = str(len(parts) + 1)
    assert between(*parts) == [("0", last)]


@pytest.mark.parametrize(
    "parts",
    [
        (nn.ReLU6(),),
        (nn.Hardtanh(-1, 1),),
        (nn.SiLU(),),
        (nn.Hardswish(),),
        (nn.ELU(),),
        (nn.ReLU(), nn.BatchNorm2d(4)),  # a limit of each channel
        (nn.ConstantPad2d(1, 0.5),),
        (nn.ChannelShuffle(2),),
    ],
)
def test_a_factor_does_not_pass(parts: tuple[nn.Module, ...]) -> None:
    assert between(*parts) == []


@pytest.mark.parametrize("step", [lambda x: x.squeeze(-1), lambda x: x.view(x.size(0)), lambda x: x.flatten()])
def test_one_number_for_an_image_has_no_channels(step: Callable[[Tensor], Tensor]) -> None:
    class Ages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, values: Tensor) -> Tensor:
            return torch.exp(step(self.layer(values)))

    assert pairs(Ages(), 4) == []


def test_channels_are_followed_through_a_reshape_to_the_linear_layer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    (link,) = links(fold(capture(module.eval(), torch.randn(2, 3, 8, 8))))
    assert link.repeated == 9
    mixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear(36, 2))  # a row of positions is no channel
    assert pairs(mixed) == []


def test_tokens_keep_channels_last() -> None:
    class Tokens(nn.Module):
        """Two linear layers on every token."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 6)

        def forward(self, values: Tensor) -> Tensor:
            return self.two(functional.relu(self.one(values)))

    assert pairs(Tokens(), 7, 6) == [("one", "two")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", [("0.0", "1.0"), ("1.0", "4")]),
        ("relu6", [("2", "6")]),
        ("shared_head", []),
        ("shared_concatenation", [("last.0", "head")]),
        ("reused_module", [("last.0", "head")]),
        ("depthwise", [("0.0", "1.0"), ("1.0", "2.0"), ("2.0", "5")]),
    ],
)
def test_networks(name: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(NETWORKS[name]()) == expected


def test_a_residual_reader_a_second_output_and_a_shared_weight_end_a_path() -> None:
    class Read(nn.Module):
        """A value that is read in three ways."""

        def __init__(self, way: str) -> None:
            super().__init__()
            self.one, self.two, self.way = block(3, 4), nn.Conv2d(4, 4, 1), way

        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            value = self.one(images)
            result = self.two(value)
            if self.way == "sum":
                return result + value
            if self.way == "output":
                return result, value
            if self.way == "borrowed":
                return result + functional.conv2d(value.abs(), self.two.weight)
            return result

    assert pairs(Read("plain")) == [("one.0", "two")]
    assert pairs(Read("sum")) == pairs(Read("output")) == pairs(Read("borrowed")) == []
