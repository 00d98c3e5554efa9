"""What one layer makes of an input and of another has one range; what differs in anything has its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroq.graph import capture, fold
from zeroq.ranges import observe
from zeroq.ranges.twins import functions_of, measured_together
from zeroq.simulate import place

FIRST, SECOND = torch.randn(2, 3, 8, 8), 3 * torch.randn(2, 3, 8, 8)


class Siamese(nn.Module):
    """Two pictures through the same layers, compared; `scale` makes the second branch another function."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.hidden, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 2)
        self.scale = scale

    def branch(self, images: Tensor, scale: float) -> Tensor:
        return self.hidden(self.layer(images).relu().mean(dim=(2, 3)) * scale)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.head((self.branch(one, 1.5) - self.branch(other, 1.5 * self.scale)).abs())


class Levels(nn.Module):
    """One head at two sizes of the same picture, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 5, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.first(images).relu()
        return self.head(fine), self.head(self.second(fine).relu())


def ranges_of(module: nn.Module) -> dict[str, tuple[float, float]]:
    network = fold(capture(module.eval(), (FIRST, SECOND)))
    bits = {layer.name: 8 for layer in network.layers}
    found = observe(network, place(network), (FIRST, SECOND), bits).by_name
    return {name: (each.low, each.high) for name, each in found.items()}


POOLED = ("adaptive_avg_pool2d_default", "adaptive_avg_pool2d_default_1")
PAIRS = [("relu", "relu_1"), POOLED, ("mul", "mul_1"), ("linear", "linear_1")]


def test_branches_of_one_network_have_one_range() -> None:
    found = ranges_of(Siamese())
    assert all(found[one] == found[other] for one, other in PAIRS)
    assert found["one"] != found["other"]  # what no layer has computed may be of different kinds


def test_other_functions_keep_their_own() -> None:
    found = ranges_of(Siamese(scale=2.0))
    assert [found[one] == found[other] for one, other in PAIRS] == [True, True, False, False]


def test_values_of_several_sizes_of_one_picture_are_no_twins() -> None:
    network = fold(capture(Levels().eval(), FIRST))
    together = measured_together(network, place(network).quantizers)
    assert all(len(values) == 1 for values in together.values())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_function_is_told_by_operators_constants_and_stored_tensors(scale: float) -> None:
    network = fold(capture(Siamese(scale).eval(), (FIRST, SECOND)))
    functions = functions_of(network)
    first, second = (network.layer("hidden").sites[index] for index in (0, 1))
    assert (functions[first] == functions[second]) == (scale == 1.0)
    convolutions = network.layer("layer").sites
    assert functions[convolutions[0]] == functions[convolutions[1]]
    assert not set(network.inputs) & set(functions)
