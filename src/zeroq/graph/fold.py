"""Network -> Network without the BatchNorms that a layer can take in."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import LIMIT, Layer, Network, Norm, describe, foldable, norm_name
from zeroq.graph.operators import merge_rectifiers
from zeroq.graph.transposed import into_phases, is_transposed

aten = torch.ops.aten


def fold(network: Network) -> Network:
    """Merge each BatchNorm into the layer before it, exactly: w' = w g / sigma, b' = (b - mu) g / sigma + beta.

    Behind a rectifier as well, which then limits each channel by bounds of its own; see limits(). A layer with several
    sites is folded if the same BatchNorm follows each of them; a BatchNorm whose input has other consumers, or follows
    something else, stays an affine step. What becomes foldable by that is folded in turn: the second BatchNorm of
    convolution, BatchNorm, ReLU, BatchNorm. Sums are taken in 64 bits.
    """
    graph, tensors = copy.deepcopy(network.graph), dict(network.tensors)
    nodes = {node.name: node for node in graph.nodes}
    for name, norms in foldable(network).items():
        layer = network.layer(name)
        gain, shift = affine(network, norms[0])
        weight = network.tensors[layer.weight]
        before = network.tensors[layer.bias].double() if layer.bias else torch.zeros_like(gain)
        tensors[layer.weight] = scaled(weight, gain, layer).to(weight.dtype)
        bias = f"{name}.folded_bias"
        tensors[bias] = (before * gain + shift).to(weight.dtype)
        first = nodes[layer.sites[0]]
        with graph.inserting_before(first):
            attribute = graph.get_attr(bias)
        for norm in norms:
            site: Any = nodes[str(norm.site)]
            site.args = (*site.args[:2], attribute, *site.args[3:])
            if norm.input != norm.site:
                bounds = limits(nodes[norm.input], gain, shift)
                axes = len(network.shapes[norm.input]) - 1
                insert_limit(graph, tensors, nodes[norm.input], norm_name(network, norm), bounds, axes)
            batch_norm = nodes[norm.node]
            batch_norm.replace_all_uses_with(batch_norm.args[0])
            graph.erase_node(batch_norm)
    remove_unused(graph, tensors)
    folded = describe(graph, tensors, network.example)
    return fold(folded) if foldable(folded) else without_transposed(folded)


def without_transposed(network: Network) -> Network:
    """The same network, every transposed convolution a convolution with as many channels as it has phases."""
    if not any(is_transposed(node) for node in network.graph.nodes):
        return network
    graph, tensors = copy.deepcopy(network.graph), dict(network.tensors)
    into_phases(graph, tensors, network.shapes)
    merge_rectifiers(graph)
    remove_unused(graph, tensors)
    return describe(graph, tensors, network.example)


def scaled(weight: Tensor, gain: Tensor, layer: Layer) -> Tensor:
    """A weight with each output channel times its gain, in 64 bits; a transposed convolution has them second."""
    if not layer.operator.startswith("conv_transpose"):
        return weight.double() * gain.reshape(-1, *[1] * (weight.dim() - 1))
    gains = gain.reshape(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
    return (weight.double().unflatten(0, (layer.groups, -1)) * gains).flatten(0, 1)


def limits(rectifier: fx.Node, gain: Tensor, shift: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Bounds [channels] for which clamp(x, low, high) gain + shift = clamp(gain x + shift, lower, upper).

    A bound that no channel needs is None.
    """
    bounds: Any = (0.0, math.inf) if rectifier.target == aten.relu.default else rectifier.args[1:3]
    ends = [torch.where(gain == 0, shift, end * gain + shift) for end in bounds]  # inf * 0 is not a number
    lower, upper = torch.minimum(ends[0], ends[1]), torch.maximum(ends[0], ends[1])
    return (None if (lower == -math.inf).all() else lower), (None if (upper == math.inf).all() else upper)


def insert_limit(
    graph: fx.Graph,
    tensors: dict[str, Tensor],
    rectifier: fx.Node,
    name: str,
    bounds: tuple[Tensor | None, Tensor | None],
    axes: int,
) -> None:
    """Turn a rectifier into a limit whose bounds are stored.

    name: that they are stored under, as that of the BatchNorm that they come from.  bounds: [channels], or none.
    axes: of its value, behind the channels.
    """
    stored: list[fx.Node | None] = []
    for end, bound in zip(("lower", "upper"), bounds, strict=True):
        stored.append(None)
        if bound is not None:
            tensors[f"{name}.{end}_limit"] = bound.float().reshape(-1, *[1] * axes)
            with graph.inserting_before(rectifier):
                stored[-1] = graph.get_attr(f"{name}.{end}_limit")
    rectifier.target, rectifier.args = LIMIT, (rectifier.args[0], *stored)


def affine(network: Network, norm: Norm) -> tuple[Tensor, Tensor]:
    """Gain and shift of a BatchNorm per channel, in 64 bits."""
    node = network.node(norm.node)
    weight, bias = node.args[1], node.args[2]
    deviation = torch.sqrt(norm.variance.double() + norm.epsilon)
    gain = (network.tensors[str(weight.target)].double() if isinstance(weight, fx.Node) else 1.0) / deviation
    shift = (
        network.tensors[str(bias.target)].double() if isinstance(bias, fx.Node) else 0.0
    ) - norm.mean.double() * gain
    return gain, shift


def remove_unused(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Drop attributes that no node uses, and their tensors."""
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for name in set(tensors) - used:
        del tensors[name]
