"""All layers of a network rounded in order, each on what the layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx

from zeroq.graph import Inputs, Layer
from zeroq.graph.walk import Walk
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.numbers.values import IntegerWeight
from zeroq.rounding.methods import round_weight
from zeroq.rounding.statistics import HessianSum
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
    on_step: Callable[[int, int], None] | None = None,
) -> Rounded:
    """Round every layer that `widths` names, at each of its widths.

    graph, tensors: the network with its activation quantizers.
    images: [N, C, H, W] (of several inputs a tuple), for the second moments of inputs.
    settle: each layer runs with its first width's integers once it is rounded, so that later layers see the inputs
    that they will have (GPTQ, arXiv:2210.17323); otherwise all inputs are those of unrounded weights.
    """
    walk = Walk.over(graph, tensors, images)
    rounded: Rounded = {}
    ordered = sorted(
        (layer for layer in layers if layer.name in widths), key=lambda layer: walk.position[layer.sites[0]]
    )
    for index, layer in enumerate(ordered):
        hessian = None if method == "nearest" else second_moments(walk, layer)
        biases = [walk.tensors[bias] if bias else None for bias in layer.biases]
        least = torch.stack([
            least_scales(bias, input_scale(walk, site), layer.shape[0])
            for site, bias in zip(layer.sites, biases, strict=True)
        ]).amax(0)  # fmt: skip
        rounded[layer.name] = {
            bits: round_weight(
                walk.tensors[layer.weight], bits, hessian, groups=layer.groups, method=method, portable=portable,
                least_scale=least, name=layer.name,
            )
            for bits in widths[layer.name]
        }  # fmt: skip
        if settle:
            walk.tensors[layer.weight] = rounded[layer.name][widths[layer.name][0]].dequantized()
        if on_step is not None:
            on_step(index + 1, len(ordered))
    return rounded


def second_moments(walk: Walk, layer: Layer) -> Tensor:
    """Of a layer's inputs over all images and sites, [groups, columns, columns]; the walk stops at its first site."""
    total = HessianSum(layer)
    walk.to(walk.source(layer.sites[0]))
    for live in walk.live:
        for site, value in walk.ahead(live, layer.sites):
            total.add(walk.nodes[site], value)
    return total.hessian()


def input_scale(walk: Walk, site: str) -> float:
    """Scale of the quantizer in front of a site."""
    quantizer = walk.nodes[walk.source(site)]
    assert quantizer.target == QUANTIZE_DEQUANTIZE, f"{site} reads a value that is not quantized"
    return walk.tensors[str(quantizer.args[1].target)].item()  # type: ignore[union-attr]
