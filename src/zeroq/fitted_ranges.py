"""The activation ranges of a network: of two kinds the one with which it diverges less on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from zeroq.candidates import Images, divergence_of, outputs
from zeroq.graph.walk import CHUNK
from zeroq.numbers.values import Ranges
from zeroq.preparation import Prepared
from zeroq.ranges import Knowledge, histograms_of, knowledge_of, ranges_of
from zeroq.ranges.observe import NONE, Counts
from zeroq.ranks import ALONE, Ranks
from zeroq.simulate import quantize_activations

KINDS = ALIKE, WEIGHED = ("alike", "weighed")


def fit_ranges(
    prepared: Prepared,
    images: Images,
    chunk: int = CHUNK,
    on_step: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
    beside: Mapping[str, Counts] = NONE,
) -> tuple[Ranges, float]:
    """Ranges, and how far the network diverges with them on held-out images.

    They have the least squared error of each value, or of the output as far as it depends on the value. The second
    weighs every number by the squared gradient of the output. It is better in most networks, by far in some
    (MobileNetV2), and worse where a few distilled images decide, so the whole network with its activations alone
    quantized is compared with itself in floating point, on images that neither was fitted to (docs/ranges.md).
    Both are fitted to noise of natural spectrum beside the distilled images. Those have the mean and the variance of
    training in every channel, but fewer of the rare high values that the edges of pictures give the first layers, and
    ranges from them alone cut these off.
    chunk: images at a time.  ranks: processes of which each counts all values, as sums of gradients in another order
    have other last bits, and which share the two kinds out.  beside: as in `histograms_of`.
    """
    return min(compared_ranges(prepared, images, chunk, on_step, ranks, beside).values(), key=lambda each: each[1])


def compared_ranges(
    prepared: Prepared,
    images: Images,
    chunk: int = CHUNK,
    on_step: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
    beside: Mapping[str, Counts] = NONE,
) -> dict[str, tuple[Ranges, float]]:
    """Ranges of both kinds, each with the divergence of the network on held-out images; as in `fit_ranges`."""
    folded, placement, input_bits = prepared.folded, prepared.placement, prepared.plan.input_bits
    own = images.source == "calibration"  # pictures know better than statistics
    knowledge = Knowledge() if own else knowledge_of(
        prepared.network, prepared.trust.doubted, prepared.centres, prepared.factors
    )
    histograms = histograms_of(
        folded, placement, images.observed, knowledge=knowledge, meaning=prepared.meaning, chunk=chunk, on_step=on_step,
        beside=beside,
    )  # fmt: skip
    reference = outputs(folded.run, images.held_out, chunk)

    def tried(kind: str) -> tuple[Ranges, float]:
        """One kind, and how far the network with its activations quantized diverges."""
        found = ranges_of(
            folded, placement, histograms, input_bits, source=images.source, knowledge=knowledge,
            weighed=kind == WEIGHED, input_widths=prepared.plan.input_widths,
        )  # fmt: skip
        graph, tensors, _ = quantize_activations(folded, placement, found, input_bits)
        network = replace(folded, graph=graph, tensors=tensors)
        return found, divergence_of(prepared.meaning, reference, network.run, images.held_out, chunk)

    return dict(zip(KINDS, ranks.mapped(tried, KINDS), strict=True))
