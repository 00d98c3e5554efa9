"""Network + images -> the range of every activation quantizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from zeroq.graph import Inputs, Network, chunks, replay
from zeroq.graph.walk import CHUNK
from zeroq.numbers.values import Ranges
from zeroq.ranges.histogram import Histogram, merge, stretched
from zeroq.ranges.knowledge import Knowledge, site_of
from zeroq.ranges.reach import LEAST_SHARE, reach
from zeroq.ranges.search import range_of
from zeroq.simulate.placement import Placement, Quantizer, again, every_width

NOTHING = Knowledge()


def observe(
    network: Network,
    placement: Placement,
    images: Inputs,
    input_bits: Mapping[str, int],
    *,
    input_widths: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    source: str = "distilled",
    knowledge: Knowledge = NOTHING,
    on_step: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Ranges of all quantizers, measured on the values of the folded network in floating point.

    images: [N, C, H, W], of several inputs a tuple.  input_bits: of each quantized layer's input.
    input_widths: where these are a choice, all that each may be; ranges are of every one (`at_widths` picks).
    source: where the images came from, for Ranges.
    knowledge: outputs that a BatchNorm holds never get a range beyond it; those of which none knows are taken to reach
    LEAST_SHARE of what the norms of their filters and patches allow, should the images reach less.
    """
    histograms = {name: Histogram(name) for quantizer in placement.quantizers for name in quantizer.measured}
    nodes = {node.name: node for node in network.graph.nodes}
    reading, reaches = bare_readers(network, nodes, knowledge), dict.fromkeys(knowledge.bare, 0.0)

    def note(node: fx.Node, value: Any) -> None:
        if node.name in histograms:
            histograms[node.name].update(value)
        for weight, site in reading.get(node.name, ()):
            reaches[site.name] = max(reaches[site.name], reach(site, network.tensors[weight], value))

    parts = chunks(images, CHUNK)
    with torch.inference_mode():
        for index, part in enumerate(parts):
            replay(network.graph, network.tensors, network.feed(part), visit=note)
            if on_step is not None:
                on_step(index + 1, len(parts))
    quantizers = {quantizer.name: quantizer for quantizer in placement.quantizers}
    merged = {
        name: reaching(merge(histograms[value] for value in quantizer.measured), quantizer, nodes, reaches)
        for name, quantizer in quantizers.items()
    }
    found = {}
    for name, bits in every_width(network, placement, input_bits, input_widths).items():
        of = name.split("/")[0]
        histogram, quantizer = merged[of], quantizers[of]
        found[name] = range_of(
            histogram, bits, source, unsigned=histogram.low >= 0, ceiling=quantizer.ceiling,
            span=knowledge.span(nodes[value] for value in quantizer.measured),
        )  # fmt: skip
    return Ranges(found)


def at_widths(ranges: Ranges, bits: Mapping[str, int]) -> Ranges:
    """Ranges of quantizers of some widths, from those of every width.

    bits: by the quantizers' names, as `quantizer_bits` gives them.
    """
    found = {}
    for name, width in bits.items():
        of = name.split("/")[0]
        found[name] = ranges[of] if ranges[of].bits == width else ranges[again(of, width)]
    return Ranges(found)


def bare_readers(
    network: Network, nodes: Mapping[str, fx.Node], knowledge: Knowledge
) -> dict[str, list[tuple[str, fx.Node]]]:
    """Weights and sites whose output no BatchNorm knows, by the value that they read."""
    found: dict[str, list[tuple[str, fx.Node]]] = {}
    for layer in network.layers:
        for site in layer.sites:
            if site in knowledge.bare:
                source: Any = nodes[site].args[0]
                found.setdefault(source.name, []).append((layer.weight, nodes[site]))
    return found


def reaching(
    histogram: Histogram, quantizer: Quantizer, nodes: Mapping[str, fx.Node], reaches: Mapping[str, float]
) -> Histogram:
    """The histogram of a quantizer's values, stretched where they reach less than LEAST_SHARE of what they could."""
    extreme = max(-histogram.low, histogram.high)
    least = LEAST_SHARE * max(reaches.get(site_of(nodes[value]), 0.0) for value in quantizer.measured)
    least = min(least, quantizer.ceiling or least)
    return stretched(histogram, least / extreme) if 0 < extreme < least else histogram
