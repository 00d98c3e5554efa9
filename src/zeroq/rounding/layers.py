"""All layers of a network rounded in order, each on what the layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from zeroq.graph import Inputs, Layer, Network
from zeroq.graph.live import IN_MEMORY, Room
from zeroq.graph.network import LINEAR
from zeroq.graph.walk import Walk
from zeroq.numbers.grid import MOST_BITS
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.numbers.values import IntegerWeight
from zeroq.rounding.filters import from_filters, to_filters
from zeroq.rounding.methods import round_widths
from zeroq.rounding.moments import Moments, MomentSum
from zeroq.rounding.targets import corrected
from zeroq.simulate.quantized_network import least_scales

Rounded = dict[str, dict[int, IntegerWeight]]  # by layer and width


def round_weights(
    graph: fx.Graph,
    tensors: Mapping[str, Tensor],
    layers: tuple[Layer, ...],
    widths: Mapping[str, tuple[int, ...]],
    images: Inputs,
    *,
    method: str = "gptq",
    portable: bool = True,
    settle: bool = True,
    correct: bool = False,
    reference: Network | None = None,
    room: Room = IN_MEMORY,
    on_step: Callable[[int, int], None] | None = None,
) -> Rounded:
    """Round every layer that `widths` names, at each of its widths.

    graph, tensors: the network with its activation quantizers.
    images: [N, C, H, W] (of several inputs a tuple), for the moments of inputs.
    settle: each layer runs with its first width's integers once it is rounded, so that later layers see the inputs
    that they will have (GPTQ, arXiv:2210.17323); otherwise all inputs are those of unrounded weights.
    correct: layers of one site get biases that keep the mean of every output channel what unrounded weights give on
    the same inputs (DFQ, arXiv:1906.04721, section 4.2, from images), and are rounded for the deviations from it.
    reference: the folded network in floating point. With `correct`, means are kept to its own, and where any layer has
    fewer than 8 bits, each is rounded to the weight that comes nearest to its outputs (`targets.corrected`). Where all
    have 8, what a layer sees of errors is mostly the images' own: there ESPNet lost 1.7 points of mIoU by it, and 0.8
    without.
    room: for the images' values; what lies on disk is the same to the last bit.
    """
    walk = Walk.over(graph, tensors, images, room)
    float_walk = None if reference is None else Walk.over(reference.graph, reference.tensors, images, room)
    rounded: Rounded = {}
    ordered = [layer for layer in layers if layer.name in widths]
    lossy = any(min(own) < MOST_BITS for own in widths.values())
    for index, layer in enumerate(ordered):
        problem = problem_of(walk, float_walk, layer, correct=correct, lossy=lossy)
        rounded[layer.name] = problem.solved(widths[layer.name], method=method, portable=portable)
        if settle:
            settle_in(walk, layer, rounded[layer.name][widths[layer.name][0]])
        if on_step is not None:
            on_step(index + 1, len(ordered))
    return rounded


@dataclass(frozen=True)
class Problem:
    """What one layer's integers should do."""

    layer: Layer
    weight: Tensor  # [out, in / groups, *kernel]
    target: Tensor  # that the integers should come near, likewise
    moments: Moments  # of the inputs
    means: Tensor | None  # of the outputs, which a bias is to keep, float32 [out]; None where the bias is left alone
    least_scale: Tensor  # [out]

    def solved(self, widths: tuple[int, ...], *, method: str, portable: bool) -> dict[int, IntegerWeight]:
        """Integers of each width, with the bias that keeps the means."""
        found = round_widths(
            self.target, widths, self.moments.hessian(centred=self.means is not None), groups=self.layer.groups,
            method=method, portable=portable, least_scale=self.least_scale, name=self.layer.name,
        )  # fmt: skip
        return {bits: self.with_bias(weight) for bits, weight in found.items()}

    def with_bias(self, weight: IntegerWeight) -> IntegerWeight:
        """And the bias that keeps the means, where it is to."""
        if self.means is None:
            return weight
        return replace(weight, bias=self.means - mean_product(weight.dequantized(), self.moments, self.layer.groups))


def problem_of(walk: Walk, float_walk: Walk | None, layer: Layer, *, correct: bool, lossy: bool) -> Problem:
    """What a layer is to be rounded for; the walks come to its first site."""
    corrects = correct and len(layer.sites) == 1  # several sites share one bias, and their errors differ
    taken = taken_in(walk, float_walk if corrects else None, layer)
    moments, weight = taken.moments(), walk.tensors[layer.weight]
    target = weight
    biases = [walk.tensors[bias] if bias else None for bias in layer.biases]
    means = None
    if corrects and float_walk is None:
        means = mean_product(weight, moments, layer.groups) + (0.0 if biases[0] is None else biases[0])
    elif corrects:
        means = moments.output_mean.flatten()
        if lossy:
            filters = corrected(to_filters(weight.float(), layer.groups), *taken.halves(), moments)
            target = from_filters(filters, layer.shape)
    least = torch.stack([
        least_scales(bias, input_scale(walk, site), weight)
        for site, bias in zip(layer.sites, biases, strict=True)
    ]).amax(0)  # fmt: skip
    return Problem(layer, weight, target, moments, means, least)


def taken_in(walk: Walk, float_walk: Walk | None, layer: Layer) -> MomentSum:
    """Of a layer's inputs over all images and sites, and of its outputs in floating point; the walk stops before it."""
    total = MomentSum(layer, outputs=float_walk is not None, device=walk.tensors[layer.weight].device)
    walk.to(walk.source(layer.sites[0]))
    if float_walk is not None:
        float_walk.to(layer.sites[0])
    for index in range(len(walk.live)):
        outputs = None if float_walk is None else float_walk.live[index][layer.sites[0]]
        for site, value in walk.ahead(index, layer.sites):
            total.add(walk.nodes[site], value, outputs)
    return total


def mean_product(weight: Tensor, moments: Moments, groups: int) -> Tensor:
    """w E[a] of each filter, [out]."""
    return torch.einsum("gfc,gc->gf", to_filters(weight.float(), groups), moments.input_mean).flatten()


def settle_in(walk: Walk, layer: Layer, weight: IntegerWeight) -> None:
    """Let what lies behind a layer see what its integers give."""
    walk.tensors[layer.weight] = weight.dequantized()
    if weight.bias is None:
        return
    (site,) = layer.sites
    walk.to(site)
    own = walk.tensors[layer.bias] if layer.bias else torch.zeros(())
    change = weight.bias - own
    for index, live in enumerate(walk.live):
        linear = walk.nodes[site].target == LINEAR
        changed = live[site] + (change if linear else change.reshape(-1, *[1] * (live[site].dim() - 2)))
        walk.live[index] = {**live, site: changed}


def input_scale(walk: Walk, site: str) -> float:
    """Scale of the quantizer in front of a site."""
    quantizer = walk.nodes[walk.source(site)]
    assert quantizer.target == QUANTIZE_DEQUANTIZE, f"{site} reads a value that is not quantized"
    return walk.tensors[str(quantizer.args[1].target)].item()  # type: ignore[union-attr]
