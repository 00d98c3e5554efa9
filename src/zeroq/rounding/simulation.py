"""The quantized network as block reconstruction computes it: in floating point throughout, so that gradients pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph import Layer, Network
from zeroq.graph.blocks import Block
from zeroq.numbers.values import ActivationRange, IntegerWeight, Ranges
from zeroq.simulate import Placement, quantize_activations
from zeroq.simulate.quantized_network import least_scales

NEARLY = 1 + 1e-5  # what 32-bit floats may be off


@dataclass(frozen=True)
class Simulation:
    """Activation quantizers, the weights that integers stand for, and biases as tensors of their own."""

    graph: fx.Graph
    tensors: dict[str, Tensor]  # at the start
    layers: tuple[Layer, ...]  # that have integers, in order of execution
    biases: Mapping[str, str]  # by layer of one site: the tensor
    quantizers: Mapping[str, list[Any]]  # by name: nodes
    ceilings: Mapping[str, float | None]  # by name: the upper end that a range may not exceed

    def bias(self, layer: Layer) -> Tensor | None:
        """What a layer starts with, [out]; None where several sites share its weight."""
        return self.tensors[self.biases[layer.name]] if layer.name in self.biases else None

    def scale(self, quantizer: str) -> str:
        """The tensor of a quantizer's step."""
        return str(self.quantizers[quantizer][0].args[1].target)

    def within(self, block: Block) -> list[str]:
        """The quantizers that stand in a block and nowhere else."""
        inside = set(block.within([node.name for node in self.graph.nodes]))
        return [name for name, nodes in self.quantizers.items() if inside.issuperset(node.name for node in nodes)]

    def changed(self, weights: Mapping[str, IntegerWeight], ranges: Mapping[str, ActivationRange]) -> dict[str, Tensor]:
        """The tensors that stand for these."""
        found: dict[str, Tensor] = {}
        for layer in self.layers:
            if layer.name in weights:
                weight = weights[layer.name]
                assert weight.bias is not None
                found[layer.weight], found[self.biases[layer.name]] = weight.dequantized(), weight.bias
        for name, each in ranges.items():
            key = self.scale(name)
            found[key] = torch.full_like(self.tensors[key], each.scale)
        return found

    def holds_biases(self, weights: Mapping[str, IntegerWeight], tensors: Mapping[str, Tensor]) -> bool:
        """Whether all biases fit into integers with the steps of these tensors."""
        nodes = {node.name: node for node in self.graph.nodes}
        for layer in self.layers:
            if layer.name in self.biases:
                source: Any = nodes[layer.sites[0]].args[0]
                weight, bias = weights[layer.name], tensors[self.biases[layer.name]]
                least = least_scales(bias, float(tensors[str(source.args[1].target)]), weight.integers)
                if (least > weight.scale * NEARLY).any():
                    return False
        return True


def simulation_of(
    network: Network,
    placement: Placement,
    ranges: Ranges,
    input_bits: Mapping[str, int],
    weights: Mapping[str, IntegerWeight],
) -> Simulation:
    """The arguments are those of quantize_network."""
    graph, tensors, names = quantize_activations(network, placement, ranges, input_bits)
    nodes = {node.name: node for node in graph.nodes}
    layers = tuple(layer for layer in network.layers if layer.name in weights)
    biases = {}
    for layer in layers:
        weight = weights[layer.name]
        tensors[layer.weight] = weight.dequantized()
        if len(layer.sites) == 1:
            own = torch.zeros_like(weight.scale) if layer.bias is None else tensors[layer.bias]
            name = biases[layer.name] = f"{layer.name}.learned_bias"
            tensors[name] = own if weight.bias is None else weight.bias
            site = nodes[layer.sites[0]]
            with graph.inserting_before(site):
                site.args = (*site.args[:2], graph.get_attr(name), *site.args[3:])
    quantizers: dict[str, list[Any]] = {}
    for node, name in names.items():
        quantizers.setdefault(name, []).append(nodes[node])
    ceilings = {quantizer.name: quantizer.ceiling for quantizer in placement.quantizers}
    first = {name: ceilings[name.split("/")[0]] for name in quantizers}  # of what quantizes again, that of the first
    return Simulation(graph, tensors, layers, biases, quantizers, first)
