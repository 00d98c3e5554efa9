"""The activation ranges of a network: of two kinds the one with which it diverges less on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from zeroq.candidates import Images, divergence_of, outputs
from zeroq.graph.walk import CHUNK
from zeroq.numbers.values import Ranges
from zeroq.preparation import Prepared
from zeroq.ranges import Knowledge, histograms_of, knowledge_of, ranges_of
from zeroq.simulate import quantize_activations

ALIKE, WEIGHED = "alike", "weighed"


def fit_ranges(
    prepared: Prepared, images: Images, chunk: int = CHUNK, on_step: Callable[[int, int], None] | None = None
) -> Ranges:
    """Ranges with the least squared error of each value, or of the output as far as it depends on the value.

    The second weighs every number by the squared gradient of the output. It is better in most networks, by far in some
    (MobileNetV2), and worse where a few distilled images decide, so the whole network with its activations alone
    quantized is compared with itself in floating point, on images that neither was fitted to (docs/ranges.md).
    chunk: images at a time.
    """
    found = compared_ranges(prepared, images, chunk, on_step)
    return min(found.values(), key=lambda each: each[1])[0]


def compared_ranges(
    prepared: Prepared, images: Images, chunk: int = CHUNK, on_step: Callable[[int, int], None] | None = None
) -> dict[str, tuple[Ranges, float]]:
    """Ranges of both kinds, each with the divergence of the network on held-out images."""
    folded, placement, input_bits = prepared.folded, prepared.placement, prepared.plan.input_bits
    own = images.source == "calibration"  # pictures know better than statistics
    doubted = {doubt.norm for doubt in prepared.trust.doubts if doubt.kind != "dead"}
    knowledge = Knowledge() if own else knowledge_of(prepared.network, doubted)
    histograms = histograms_of(
        folded, placement, images.fitting, knowledge=knowledge, meaning=prepared.meaning, chunk=chunk, on_step=on_step
    )
    reference = outputs(folded.run, images.held_out, chunk)
    found = {}
    for kind in (ALIKE, WEIGHED):
        ranges = ranges_of(
            folded, placement, histograms, input_bits, source=images.source, knowledge=knowledge,
            weighed=kind == WEIGHED, input_widths=prepared.plan.input_widths,
        )  # fmt: skip
        graph, tensors, _ = quantize_activations(folded, placement, ranges, input_bits)
        network = replace(folded, graph=graph, tensors=tensors)
        found[kind] = ranges, divergence_of(prepared.meaning, reference, network.run, images.held_out, chunk)
    return found
