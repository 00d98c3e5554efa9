"""Biases that take back what rounding a layer's weights shifts its outputs by, without any image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zeroq.graph.network import Layer, Network
from zeroq.graph.normal import Normal
from zeroq.numbers.values import IntegerWeight
from zeroq.repair.equalization import by_input


def correct_biases(
    network: Network, weights: Mapping[str, IntegerWeight], expected: Mapping[str, Normal]
) -> dict[str, IntegerWeight]:
    """Each layer's weight with the bias b - (w~ - w) E[x], w~ its rounded weight (DFQ, arXiv:1906.04721, section 4.2).

    As in the paper, E[x] is one mean for each channel: zeros around a map are not counted.
    network: folded.  weights: by layer.  expected: of its values, from `expected_values`.
    A layer with several sites, or of whose input nothing is known, keeps its bias.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    corrected = dict(weights)
    for name, rounded in weights.items():
        layer = network.layer(name)
        source: Any = nodes[layer.sites[0]].args[0]
        if len(layer.sites) > 1 or source.name not in expected:
            continue
        weight = network.tensors[layer.weight].detach().double()
        bias = 0.0 if layer.bias is None else network.tensors[layer.bias].detach().double()
        moved = shift(rounded.dequantized().double() - weight, channel_means(expected[source.name], layer), layer)
        corrected[name] = replace(rounded, bias=(bias - moved).float())
    return corrected


def channel_means(normal: Normal, layer: Layer) -> Tensor:
    """E[x] of each input channel of a layer, [in]."""
    means = normal.mean[0].movedim(-1 if layer.operator == "linear" else 0, 0)
    return means.reshape(len(means), -1).mean(1)


def shift(error: Tensor, means: Tensor, layer: Layer) -> Tensor:
    """What an error of a weight adds to the mean of each output channel, [out]."""
    by_group = by_input(error, layer).sum(2).unflatten(1, (layer.groups, -1))  # [out / groups, groups, in / groups]
    return torch.einsum("fgc,gc->gf", by_group, means.reshape(layer.groups, -1)).flatten()
