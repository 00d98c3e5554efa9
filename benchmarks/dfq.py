"""DFQ (arXiv:1906.04721) as a whole, from its description: no image is made or used."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.plain import Span, plain_weights, ranges_between
from zeroq.distillation import InputStatistic
from zeroq.graph import Network
from zeroq.graph.network import describe
from zeroq.graph.normal import Normal, normal_values
from zeroq.repair import absorb_high_biases, correct_biases, equalize, expected_values
from zeroq.simulate import QuantizedNetwork, place, quantize_network
from zeroq.simulate.kernels import is_rectifier
from zeroq.simulate.placement import Quantizer, bounds

aten = torch.ops.aten

DEVIATIONS = 6.0  # the paper's n: a range is beta +- n gamma
CEILING_DEVIATIONS = 3.0  # a ceiling so far above a channel's mean cuts one value in 740


def quantized(
    captured: Network, folded: Network, statistic: InputStatistic, widths: Mapping[str, int],
    input_bits: Mapping[str, int],
) -> QuantizedNetwork:  # fmt: skip
    """The quantized network: needless ReLU6 replaced by ReLU, equalization, absorption, ranges, rounding, biases.

    captured, folded: the network with its BatchNorms, and without.  widths, input_bits: by layer.
    """
    normals = normal_values(captured)
    network, normals = equalize(without_ceilings(folded, normals), normals)
    network, normals = absorb_high_biases(network, normals)
    (name,) = network.inputs
    pixels = Normal(*(torch.tensor(each, dtype=torch.float64) for each in (statistic.mean, statistic.deviation)))
    expected = expected_values(network, {**normals, name: pixels})
    placement, nodes, limits = place(network), {node.name: node for node in network.graph.nodes}, bounds(network)

    def span(quantizer: Quantizer) -> Span:
        """Of all values that share a quantizer; rectified ones from what they are before."""
        if name in quantizer.values:
            return min(statistic.low), max(statistic.high)
        ends = []
        for value in quantizer.measured:
            source: Any = nodes[value].args[0] if is_rectifier(nodes[value]) else nodes[value]
            normal, (lowest, highest) = expected[source.name], limits[value]
            reach = DEVIATIONS * normal.deviation
            low, high = float((normal.mean - reach).amin()), float((normal.mean + reach).amax())
            ends.append((max(low, lowest), min(high, highest)))
        return min(low for low, _ in ends), max(high for _, high in ends)

    ranges = ranges_between(network, placement, input_bits, span, "batchnorm")
    weights = plain_weights(network, placement, ranges, widths, input_bits)
    return quantize_network(network, placement, ranges, correct_biases(network, weights, expected), input_bits)


def without_ceilings(network: Network, normals: Mapping[str, Normal]) -> Network:
    """The same network with a ReLU in place of each ReLU6 whose ceiling BatchNorms say is hardly ever reached.

    The paper replaces all of them (section 5.1.1), which its networks bear and others do not.
    network: folded.  normals: of its values.
    """
    graph = copy.deepcopy(network.graph)
    for node in graph.nodes:
        if node.target == aten.hardtanh.default and is_rectifier(node) and node.args[0].name in normals:
            normal = normals[node.args[0].name]
            if (normal.mean + CEILING_DEVIATIONS * normal.deviation).amax() <= node.args[2]:
                node.target, node.args = aten.relu.default, (node.args[0],)
    return describe(graph, network.tensors, network.example)
