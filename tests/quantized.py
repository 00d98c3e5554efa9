"""A tiny network taken through all stages by the shortest way, for tests that need what comes after some of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import ModelProto
from torch import nn

from zeroq.deploy.onnx_file import export_onnx
from zeroq.graph import Inputs, Network, capture, fold
from zeroq.numbers.values import IntegerWeight, Ranges
from zeroq.ranges import observe
from zeroq.rounding.layers import round_weights
from zeroq.simulate import Placement, QuantizedNetwork, place, quantize_activations, quantize_network

SETTINGS: dict[str, tuple[int | tuple[int, ...], int | tuple[int, ...]]] = {  # bits of weights, of layers' inputs
    "w8a8": (8, 8),
    "w4a8": (4, 8),
    "w3a4": (3, 4),
    "w2a2": (2, 2),
    "mixed": ((8, 3, 2, 4, 6), (8, 4, 2)),
}


@dataclass(frozen=True)
class Stages:
    """What each stage gave."""

    folded: Network
    placement: Placement
    ranges: Ranges
    weights: dict[str, IntegerWeight]
    quantized: QuantizedNetwork

    @property
    def weight_bits(self) -> dict[str, int]:
        """Width of each integer weight, by the name of its tensor."""
        return {self.folded.layer(name).weight + "_integers": weight.bits for name, weight in self.weights.items()}

    def export(self, **metadata: object) -> ModelProto:
        """The ONNX file."""
        return export_onnx(self.quantized, self.folded.example, self.weight_bits, {"version": "0.1.0", **metadata})


def quantize(
    module: nn.Module,
    images: Inputs,
    weight_bits: int | Sequence[int] = 8,
    activation_bits: int | Sequence[int] = 8,
    *,
    method: str = "gptq",
    float_layers: tuple[str, ...] = (),
) -> Stages:
    """All stages up to the quantized network; `images` serve for everything.

    Several bits are taken in turns: the first for the first layer, and so on.
    """
    folded = fold(capture(module, images))
    position = {node.name: index for index, node in enumerate(folded.graph.nodes)}
    layers = sorted(
        (layer for layer in folded.layers if layer.name not in float_layers), key=lambda layer: position[layer.sites[0]]
    )
    widths = {layer.name: (bits,) for layer, bits in zip(layers, turns(weight_bits), strict=False)}
    input_bits = {layer.name: bits for layer, bits in zip(layers, turns(activation_bits), strict=False)}
    placement = place(folded, float_layers)
    ranges = observe(folded, placement, images, input_bits)
    graph, tensors, _ = quantize_activations(folded, placement, ranges, input_bits)
    rounded = round_weights(graph, tensors, folded.layers, widths, images, method=method)
    weights = {name: next(iter(of_width.values())) for name, of_width in rounded.items()}
    return Stages(folded, placement, ranges, weights, quantize_network(folded, placement, ranges, weights, input_bits))


def turns(bits: int | Sequence[int]) -> Iterator[int]:
    """The numbers again and again."""
    return itertools.cycle([bits] if isinstance(bits, int) else bits)
