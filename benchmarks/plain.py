"""Quantization without any choice: ranges from given ends, scales that clip nothing, rounding to nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zeroq.graph import Layer, Network
from zeroq.numbers.grid import Grid
from zeroq.numbers.values import ActivationRange, IntegerWeight, Ranges
from zeroq.rounding.filters import from_filters, is_limited, to_filters
from zeroq.rounding.nearest import round_nearest
from zeroq.rounding.scales import enlarge_saturating
from zeroq.simulate import Placement
from zeroq.simulate.placement import Quantizer, again, quantizer_bits
from zeroq.simulate.quantized_network import least_scales

Span = tuple[float, float]
LEAST_SPAN = 1e-6  # of a value that is 0 everywhere


def ranges_between(
    network: Network,
    placement: Placement,
    input_bits: Mapping[str, int],
    span: Callable[[Quantizer], Span],
    source: str,
) -> Ranges:
    """Ranges of all quantizers from the ends that `span` gives, 0 among them; source: as in Ranges."""
    quantizers = {quantizer.name: quantizer for quantizer in placement.quantizers}
    found = {}
    for name, bits in quantizer_bits(network, placement, input_bits).items():
        low, high = span(quantizers[name.split("/")[0]])
        low, high = min(low, 0.0), max(high, 0.0)
        found[name] = ActivationRange(low, high if high > low else low + LEAST_SPAN, bits, source)
    return Ranges(found)


def least_scales_of(network: Network, placement: Placement, ranges: Ranges, layer: Layer, bits: int) -> Tensor:
    """Smallest weight scales for which a layer's biases fit 32 bits; bits: of its input."""
    nodes, of_value = {node.name: node for node in network.graph.nodes}, placement.of_value
    found = []
    for site, bias in zip(layer.sites, layer.biases, strict=True):
        source: Any = nodes[site].args[0]
        name = of_value[source.name].name
        name = name if ranges[name].bits <= bits else again(name, bits)
        own = network.tensors[bias] if bias else None
        found.append(least_scales(own, ranges[name].scale, network.tensors[layer.weight]))
    return torch.stack(found).amax(0)


def nearest_within_ends(weight: Tensor, bits: int, groups: int, least: Tensor) -> IntegerWeight:
    """A weight rounded to nearest with the scale of each channel's largest magnitude.

    The scale is enlarged where 8-bit pairs could saturate on some processors, as all files here are the same on all.
    least: [out], bounds of the scales from below.
    """
    grid = Grid(bits, signed=True)
    filters = to_filters(weight.detach().float(), groups)
    rows = filters.flatten(0, 1)
    scale = torch.maximum(rows.abs().amax(1) / grid.high, least.float())
    if is_limited(tuple(weight.shape), groups, bits):
        scale = enlarge_saturating(rows, scale, grid)
    integers = round_nearest(filters, scale.reshape(filters.shape[:2]), grid, None, limited=False)
    return IntegerWeight(from_filters(integers, tuple(weight.shape)).to(torch.int8), scale, bits, "nearest")


def plain_weights(
    network: Network, placement: Placement, ranges: Ranges, widths: Mapping[str, int], input_bits: Mapping[str, int]
) -> dict[str, IntegerWeight]:
    """All layers that `widths` names, by layer; see nearest_within_ends()."""
    found = {}
    for layer in network.layers:
        if layer.name in widths:
            least = least_scales_of(network, placement, ranges, layer, input_bits[layer.name])
            found[layer.name] = nearest_within_ends(
                network.tensors[layer.weight], widths[layer.name], layer.groups, least
            )
    return found
