"""Quantizers behind output layers, which nothing else needs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from tests.networks import NETWORKS, block, example_of
from tests.quantized import quantize
from zeroq.graph import capture, fold
from zeroq.graph.network import describe
from zeroq.simulate import place
from zeroq.simulate.outputs import output_quantizers, without

aten = torch.ops.aten


class Heads(nn.Module):
    """Convolutions that give the output: as they are, rectified, behind a sigmoid, in a concatenation, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.plain, self.rectified, self.gated, self.joined, self.left, self.right = (
            nn.Conv2d(8, 4, 1) for _ in range(6)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        stem = self.stem(images)
        joined = torch.cat([self.joined(stem), self.gated(stem).sigmoid()], 1)
        return self.plain(stem), torch.relu(self.rectified(stem)), joined, self.left(stem) + self.right(stem)


def test_only_layers_that_no_integer_kernel_reads() -> None:
    torch.manual_seed(0)
    folded = fold(capture(Heads().eval(), torch.randn(2, 3, 6, 6)))
    placement = place(folded)
    found = output_quantizers(folded, placement)
    assert set(found) == {"plain", "rectified", "gated", "joined", "left", "right"}
    assert set(output_quantizers(folded, placement, ("plain",))) == set(found) - {"plain"}
    left = without(placement, [found["rectified"]])
    assert len(left.quantizers) == len(placement.quantizers) - 1
    assert placement.absorbed - left.absorbed == set(found["rectified"].values)


@pytest.mark.parametrize("name", ["residual", "plain", "linear_only"])
def test_a_linear_layer_that_gives_the_output_has_none(name: str) -> None:
    stages = quantize(NETWORKS[name](), example_of(name, 8))
    assert output_quantizers(stages.folded, stages.placement) == {}


def test_networks_of_any_depth() -> None:
    """What reads a value is found in one pass: a sum has two readers, the next sum and its layer, and so has that."""
    graph = fx.Graph()
    value = graph.placeholder("images")
    weight = graph.get_attr("layer.weight")
    for _ in range(1200):
        layer = graph.call_function(aten.conv2d.default, (value, weight))
        value = graph.call_function(aten.add.Tensor, (value, layer))
    graph.output(value)
    network = describe(graph, {"layer.weight": torch.zeros(1, 1, 1, 1)}, (torch.zeros(2, 1, 2, 2),))
    placement = place(network)
    assert len(placement.quantizers) == 2400, "what layers and sums are given, and what layers give"
    assert output_quantizers(network, placement) == {}
