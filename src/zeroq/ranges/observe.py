"""Network + images -> the range of every activation quantizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from zeroq.graph import Inputs, Network, chunks, replay
from zeroq.graph.walk import CHUNK
from zeroq.numbers.values import Ranges
from zeroq.ranges.histogram import Histogram, merge
from zeroq.ranges.search import range_of
from zeroq.simulate.placement import Placement, quantizer_bits


def observe(
    network: Network,
    placement: Placement,
    images: Inputs,
    input_bits: Mapping[str, int],
    *,
    source: str = "distilled",
    on_step: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Ranges of all quantizers, measured on the values of the folded network in floating point.

    images: [N, C, H, W], of several inputs a tuple.  input_bits: of each quantized layer's input.
    source: where the images came from, for Ranges.
    """
    histograms = {name: Histogram(name) for quantizer in placement.quantizers for name in quantizer.measured}

    def note(node: fx.Node, value: Any) -> None:
        if node.name in histograms:
            histograms[node.name].update(value)

    parts = chunks(images, CHUNK)
    with torch.inference_mode():
        for index, part in enumerate(parts):
            replay(network.graph, network.tensors, network.feed(part), visit=note)
            if on_step is not None:
                on_step(index + 1, len(parts))
    quantizers = {quantizer.name: quantizer for quantizer in placement.quantizers}
    merged = {name: merge(histograms[value] for value in quantizer.measured) for name, quantizer in quantizers.items()}
    found = {}
    for name, bits in quantizer_bits(network, placement, input_bits).items():
        of = name.split("/")[0]
        histogram = merged[of]
        found[name] = range_of(
            histogram, bits, source, unsigned=histogram.low >= 0, ceiling=quantizers[of].ceiling
        )
    return Ranges(found)
