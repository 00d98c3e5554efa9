"""Network + images -> the distribution of every quantized value, and from it the range of its quantizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from zeroq.divergence import Meaning
from zeroq.graph import Inputs, Network, chunks, replay
from zeroq.graph.walk import CHUNK
from zeroq.numbers.values import ActivationRange, Ranges
from zeroq.ranges.histogram import Histogram, merge, stretched
from zeroq.ranges.knowledge import Knowledge, site_of
from zeroq.ranges.probe import Probe
from zeroq.ranges.reach import LEAST_SHARE, reach
from zeroq.ranges.search import range_of
from zeroq.ranges.twins import measured_together
from zeroq.simulate.kernels import is_average
from zeroq.simulate.placement import Placement, Quantizer, again, every_width


class Counts(Protocol):
    """What numbers of a value are counted in, with the gradient by them where there is one."""

    def update(self, values: Tensor, gradient: Tensor | None) -> None: ...


NOTHING = Knowledge()
NONE: Mapping[str, Counts] = MappingProxyType({})
GRADIENT_BYTES = 4e9  # of values and their gradients at once, at most


def observe(
    network: Network,
    placement: Placement,
    images: Inputs,
    input_bits: Mapping[str, int],
    *,
    input_widths: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    source: str = "distilled",
    knowledge: Knowledge = NOTHING,
    meaning: Meaning | None = None,
    chunk: int = CHUNK,
    on_step: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Ranges of all quantizers, measured on the values of the folded network in floating point.

    `histograms_of` and `ranges_of` in one.  meaning: with it, errors count by what they do to the output.
    """
    histograms = histograms_of(
        network, placement, images, knowledge=knowledge, meaning=meaning, chunk=chunk, on_step=on_step
    )
    return ranges_of(
        network, placement, histograms, input_bits, source=source, knowledge=knowledge, weighed=meaning is not None,
        input_widths=input_widths,
    )  # fmt: skip


def histograms_of(
    network: Network,
    placement: Placement,
    images: Inputs,
    *,
    knowledge: Knowledge = NOTHING,
    meaning: Meaning | None = None,
    chunk: int = CHUNK,
    on_step: Callable[[int, int], None] | None = None,
    beside: Mapping[str, Counts] = NONE,
) -> dict[str, Histogram]:
    """Histograms of the values of all quantizers, by name, measured on the folded network in floating point.

    Quantizers of one function of several inputs have one histogram (`measured_together`).
    images: [N, C, H, W], of several inputs a tuple.
    knowledge: values of outputs of which no BatchNorm knows are taken to reach LEAST_SHARE of what the norms of their
    filters and patches allow, should the images reach less.
    meaning: of the output; with it, every number weighs the squared gradient of a probe of the output besides.
    chunk: images at a time, fewer where their values and gradients are more than GRADIENT_BYTES.
    beside: in what else some of these values are counted, by the node's name.
    """
    histograms = {name: Histogram(name) for quantizer in placement.quantizers for name in quantizer.measured}
    nodes = {node.name: node for node in network.graph.nodes}
    reading, reaches = bare_readers(network, nodes, knowledge), dict.fromkeys(knowledge.bare, 0.0)

    def note(node: fx.Node, value: Tensor) -> None:
        for weight, site in reading.get(node.name, ()):
            reaches[site.name] = max(reaches[site.name], reach(site, network.tensors[weight], value.detach()))

    for values in watched(network, histograms, images, meaning, chunk, note, on_step):
        for name, value in values.items():
            for counts in (histograms[name], *([beside[name]] if name in beside else [])):
                counts.update(value.detach(), None if meaning is None else value.grad)
    together = measured_together(network, placement.quantizers)
    return {
        quantizer.name: reaching(
            merge(histograms[name] for name in together[quantizer.name]),
            replace(quantizer, measured=together[quantizer.name]), nodes, reaches,
        )
        for quantizer in placement.quantizers
    }  # fmt: skip


def watched(
    network: Network,
    names: Container[str],
    images: Inputs,
    meaning: Meaning | None,
    chunk: int,
    note: Callable[[fx.Node, Tensor], None],
    on_step: Callable[[int, int], None] | None,
) -> Iterator[dict[str, Tensor]]:
    """Values of some nodes, by name, of some images at a time: of `chunk`, fewer where gradients need the room.

    meaning: of the output; with it, each value has the gradient of a probe of the output in its `grad`.
    note: called with every node and value.
    """
    probe = None if meaning is None else Probe(meaning)
    tensors = {name: plain(tensor) for name, tensor in network.tensors.items()}
    found: dict[str, Tensor] = {}

    def visit(node: fx.Node, value: Any) -> Any:
        note(node, value)
        if node.name not in names:
            return None
        found[node.name] = value if probe is None else followed(value)
        return found[node.name]

    parts = chunks(images, chunk if probe is None else min(chunk, followed_images(network)))
    for index, part in enumerate(parts):
        with torch.inference_mode(probe is None), torch.set_grad_enabled(probe is not None):
            inputs = network.feed([each.detach() for each in part])
            output = replay(network.graph, tensors, inputs, visit=visit)["output"]
            if probe is not None:
                probe.backward(output)
        yield found
        found.clear()
        if on_step is not None:
            on_step(index + 1, len(parts))


def plain(tensor: Tensor) -> Tensor:
    """A tensor that gradients can pass by: one that inference mode has made cannot be kept for them."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def followed_images(network: Network) -> int:
    """How many images' values, each with its gradient, fit into GRADIENT_BYTES; at least one."""
    numbers = sum(math.prod(shape) for shape in network.shapes.values())
    return max(1, int(GRADIENT_BYTES / (2 * 4 * numbers)))


def followed(value: Tensor) -> Tensor:
    """A value whose gradient is kept; where none leads to it, as behind stored numbers, it starts here."""
    kept = value if value.requires_grad else value.detach().clone().requires_grad_()
    kept.retain_grad()
    return kept


def ranges_of(
    network: Network,
    placement: Placement,
    histograms: Mapping[str, Histogram],
    input_bits: Mapping[str, int],
    *,
    input_widths: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    source: str = "distilled",
    knowledge: Knowledge = NOTHING,
    weighed: bool = False,
) -> Ranges:
    """Ranges of all quantizers.

    input_bits: of each quantized layer's input.
    input_widths: where these are a choice, all that each may be; ranges are of every one (`at_widths` picks).
    source: where the images came from, for Ranges.
    knowledge: outputs that a BatchNorm holds never get a range beyond it.
    weighed: errors count by what they do to the output, where that was observed, and not all alike.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    quantizers = {quantizer.name: quantizer for quantizer in placement.quantizers}
    found = {}
    for name, bits in every_width(network, placement, input_bits, input_widths).items():
        of = name.split("/")[0]
        histogram, quantizer = histograms[of], quantizers[of]
        found[name] = range_of(
            histogram, bits, source, unsigned=histogram.low >= 0, ceiling=quantizer.ceiling, weighed=weighed,
            span=knowledge.span(nodes[value] for value in quantizer.measured),
        )  # fmt: skip
    return Ranges(found | wide_averages(found, network, placement), weighed)


def wide_averages(
    found: Mapping[str, ActivationRange], network: Network, placement: Placement
) -> dict[str, ActivationRange]:
    """Those of averages over all positions whose step is too fine, wider: of n integers of step s they are multiples of
    s / n, and onnxruntime computes none that is finer by far. Behind an InstanceNorm they are nothing but rounding.
    """
    of_value = placement.of_value
    averages = {
        of_value[node.name].name: node.all_input_nodes[0].name
        for node in network.graph.nodes if is_average(node) and node.name in of_value
    }  # fmt: skip
    changed = {}
    for name, each in found.items():
        source = averages.get(name.split("/")[0])
        if source in of_value:
            least = found[of_value[source].name].scale / math.prod(network.shapes[source][1:])
            if (ratio := least / each.scale) > 1:
                changed[name] = replace(each, low=each.low * ratio, high=each.high * ratio)
    return changed


def at_widths(ranges: Ranges, bits: Mapping[str, int]) -> Ranges:
    """Ranges of quantizers of some widths, from those of every width.

    bits: by the quantizers' names, as `quantizer_bits` gives them.
    """
    found = {}
    for name, width in bits.items():
        of = name.split("/")[0]
        found[name] = ranges[of] if ranges[of].bits == width else ranges[again(of, width)]
    return replace(ranges, by_name=found)


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
