"""Operators of a step counted by hand, and against what capture counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.step_counts import (
    ACTIVATIONS,
    CONVOLUTIONS,
    DEPTHWISE,
    KINDS,
    OPTIMISER,
    REST,
    STATISTICS,
    Pass,
    letters,
    passes_of,
)
from tests.networks import NETWORKS, block, classifier, example_of
from zeroq.distillation.measuring import measuring_graph
from zeroq.graph import Network, capture

IMAGE, MAP = 3 * 6 * 6, 4 * 6 * 6  # values


def counted(network: Network, kind: str, value_bytes: int = 2) -> tuple[int, int, int]:
    """Multiply-accumulates per image, bytes per image, bytes of weights, of one kind."""
    passes = [each for each in passes_of(network, value_bytes) if each.kind == kind]
    of_one = sum(each.bytes_per_image for each in passes)
    return sum(each.multiply_accumulates for each in passes), of_one, sum(each.bytes_of_weights for each in passes)


def test_a_convolution_with_its_norm_and_relu() -> None:
    network = capture(classifier(block(3, 4), channels=4).eval(), torch.zeros(2, 3, 6, 6))
    weights = 4 * 3 * 9
    assert counted(network, CONVOLUTIONS) == (2 * 9 * 3 * MAP, 2 * 2 * (IMAGE + MAP), 2 * 2 * weights)
    assert counted(network, STATISTICS) == (0, 2 * 5 * MAP + 3 * 4 * IMAGE, 0)
    assert counted(network, ACTIVATIONS) == (0, 0, 0), "behind the last BatchNorm nothing is computed"
    assert counted(network, OPTIMISER) == (0, 7 * 4 * IMAGE, 0)
    assert counted(network, REST) == (0, 2 * (4 + 2) * IMAGE, 0)


def test_an_activation_reads_its_value_again_for_the_gradient() -> None:
    network = capture(classifier(block(3, 4), block(4, 8)).eval(), torch.zeros(2, 3, 6, 6))
    assert counted(network, ACTIVATIONS, 4) == (0, 4 * 5 * MAP, 0)


def test_gradients_of_a_value_that_two_read_are_added() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            first = self.first(value)
            return self.norm(first + self.second(first))

    network = capture(Sum().eval(), torch.zeros(2, 3, 6, 6))
    adding, summing = 3 * MAP, 3 * MAP
    assert counted(network, REST) == (0, 2 * (adding + summing) + 2 * (4 + 2) * IMAGE, 0)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_layers_before_the_last_norm_are_counted_as_capture_counts_them(name: str) -> None:
    network = capture(NETWORKS[name](), example_of(name))
    if not network.norms or len(network.example) != 1:
        pytest.skip("nothing is matched, or more than pictures")
    sites = {node.name for node in measuring_graph(network).nodes}
    layers = [layer for layer in network.layers if set(layer.sites) <= sites]
    passes = passes_of(network, 4)
    assert {each.kind for each in passes} <= set(KINDS)
    for kind in (CONVOLUTIONS, DEPTHWISE):
        own = [layer.multiply_accumulates for layer in layers if layer.depthwise == (kind == DEPTHWISE)]
        assert sum(each.multiply_accumulates for each in passes if each.kind == kind) == 2 * sum(own)


def test_weights_are_read_once_for_all_images() -> None:
    assert Pass(CONVOLUTIONS, 0, 10, 3).bytes_moved(4) == 43


def test_one_spelling() -> None:
    assert {letters(name) for name in ("hardtanh_", "HardTanh", "hard_tanh")} == {"hardtanh"}
