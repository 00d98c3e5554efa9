"""What later layers leave of an error."""

from __future__ import annotations

import math

import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.compensation import RATE, left_over, seen_by
from zeroq.graph import capture, fold


class Branches(nn.Module):
    """A stem, two branches side by side, one of two layers, and two heads: one reads both, the other the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.left = nn.Conv2d(4, 4, 1)
        self.right = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.both, self.second = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stem = torch.relu(self.stem(images))
        right = self.right(stem)
        return self.both(self.left(stem) + right), self.second(right)


def test_layers_are_counted_that_read_a_value_at_any_hand() -> None:
    network = fold(capture(Branches().eval(), torch.randn(2, 3, 4, 4)))
    counts = {"stem": 5, "left": 1, "right.0": 3, "right.2": 2, "both": 0, "second": 0}
    assert seen_by(network, network.layers) == counts
    left = left_over(network, network.layers)
    assert left == {name: math.exp(-RATE * count / 5) for name, count in counts.items()}
    assert left["both"] == 1.0 and left["stem"] == math.exp(-RATE)


def test_layers_that_stay_as_they_are_make_up_for_nothing() -> None:
    network = fold(capture(Branches().eval(), torch.randn(2, 3, 4, 4)))
    some = [layer for layer in network.layers if layer.name in {"stem", "right.2"}]
    assert seen_by(network, some) == {"stem": 1, "right.2": 0}
    assert left_over(network, some[:1]) == {"stem": 1.0}


def test_a_layer_of_two_sites_does_not_make_up_for_itself() -> None:
    network = fold(capture(NETWORKS["shared_head"](), example_of("shared_head")))
    assert seen_by(network, network.layers) == {"stem.0": 1, "head.0": 0}
