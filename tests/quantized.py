"""A tiny network taken through all stages by the shortest way, for tests that need what comes after some of them."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto
from torch import Tensor, nn

from zeroq.deploy.onnx_file import export_onnx
from zeroq.graph import Network, capture, fold
from zeroq.numbers.values import IntegerWeight, Ranges
from zeroq.ranges import observe
from zeroq.rounding.layers import round_weights
from zeroq.simulate import Placement, QuantizedNetwork, place, quantize_activations, quantize_network

SETTINGS = ((8, 8), (4, 8), (3, 4), (2, 2))  # bits of weights and of activations
SETTING_NAMES = [f"w{weight}a{activation}" for weight, activation in SETTINGS]


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
    images: Tensor,
    weight_bits: int,
    activation_bits: int,
    *,
    method: str = "gptq",
    float_layers: tuple[str, ...] = (),
    edge_bits: int | None = None,
) -> Stages:
    """All stages up to the quantized network; `images` serve for everything, `edge_bits` the first and last layer."""
    folded = fold(capture(module, images))
    position = {node.name: index for index, node in enumerate(folded.graph.nodes)}
    layers = sorted(
        (layer for layer in folded.layers if layer.name not in float_layers), key=lambda layer: position[layer.sites[0]]
    )
    edges = {layers[0].name, layers[-1].name} if edge_bits is not None else set()
    widths = {layer.name: (edge_bits if layer.name in edges else weight_bits,) for layer in layers}
    input_bits = {layer.name: edge_bits if layer.name in edges else activation_bits for layer in layers}
    placement = place(folded, float_layers)
    ranges = observe(folded, placement, images, input_bits)
    graph, tensors, _ = quantize_activations(folded, placement, ranges, input_bits)
    rounded = round_weights(graph, tensors, folded.layers, widths, images, method=method)
    weights = {name: next(iter(of_width.values())) for name, of_width in rounded.items()}
    return Stages(folded, placement, ranges, weights, quantize_network(folded, placement, ranges, weights, input_bits))
