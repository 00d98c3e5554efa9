"""Pairs of layers of which the second alone reads the first, through what lets a positive factor pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx

from zeroq.graph.network import LAYER_OPERATORS, Layer, Network

aten = torch.ops.aten

# f(s x) = s f(x) for every s > 0, number by number. Not ReLU6, whose ceiling stays where it is, nor a clamp or a limit.
HOMOGENEOUS = {aten.relu.default, aten.leaky_relu.default, aten.prelu.default}
# The same, and no channel meets another: axes behind the channels alone are pooled, padded or resized.
WITHIN_CHANNELS = {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default, aten.upsample_bilinear2d.vec,
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """Two layers, each of one site, and the nodes between them."""

    first: Layer
    second: Layer
    between: tuple[fx.Node, ...]
    repeated: int  # inputs of the second layer that each output channel of the first becomes; 1 unless flattened


@dataclass(frozen=True)
class Channels:
    """Where in a value, less its batch, the channels of a layer's output are."""

    axis: int
    repeated: int = 1


def links(network: Network) -> tuple[Link, ...]:
    """All such pairs of a folded network, in order of execution.

    No other node reads a value between the two, nor the weights and biases of both: residual sums, concatenations and
    outputs end a path, and so does a layer that runs several times.
    """
    nodes, layer_of = {node.name: node for node in network.graph.nodes}, sole_layers(network)
    found = []
    for site, layer in layer_of.items():
        channels: Channels | None = Channels(0 if layer.operator != "linear" else len(network.shapes[site]) - 1)
        node = nodes[site]
        between: list[fx.Node] = []
        while channels is not None and len(node.users) == 1:
            (user,) = node.users
            if user.target in LAYER_OPERATORS:
                if user.name in layer_of and reads(network, node, layer_of[user.name], layer, channels):
                    found.append(Link(layer, layer_of[user.name], tuple(between), channels.repeated))
                break
            channels = behind(network, node, user, channels)
            node = user
            between.append(user)
    return tuple(found)


def sole_layers(network: Network) -> dict[str, Layer]:
    """By site, the layers that run once and whose weights and biases nothing else reads."""
    nodes = {node.name: node for node in network.graph.nodes}
    readers: dict[str, set[fx.Node]] = {}
    for node in network.graph.nodes:
        if node.op == "get_attr":
            readers.setdefault(str(node.target), set()).update(node.users)

    def alone(layer: Layer) -> bool:
        own = [layer.weight, *(bias for bias in layer.biases if bias)]
        return len(layer.sites) == 1 and all(readers[name] == {nodes[layer.sites[0]]} for name in own)

    return {layer.sites[0]: layer for layer in network.layers if alone(layer)}


def reads(network: Network, node: fx.Node, second: Layer, first: Layer, channels: Channels) -> bool:
    """Whether a layer takes the channels of a value as its input channels."""
    axes = len(network.shapes[node.name])
    if second.operator == "linear":
        return channels.axis == axes - 1 and second.shape[1] == first.shape[0] * channels.repeated
    inputs = second.shape[1] * second.groups
    return channels == Channels(0) and axes == len(second.shape) - 1 and inputs == first.shape[0]


def behind(network: Network, node: fx.Node, user: fx.Node, channels: Channels) -> Channels | None:
    """Where channels are in what a node's only reader gives; None where a factor does not pass."""
    before, after = network.shapes.get(node.name, ()), network.shapes.get(user.name, ())
    if user.args[0] is not node:
        return None
    if user.target in HOMOGENEOUS:
        return channels
    spatial = channels == Channels(0) and len(before) > 1
    if user.target in WITHIN_CHANNELS or is_spatial_padding(user, len(before)):
        return channels if spatial else None
    whole = before and after and math.prod(before) == math.prod(after)  # one number for an image has no channels
    if user.target == aten.reshape.default and channels == Channels(0) and whole:
        if after[0] == before[0]:
            return channels
        return Channels(0, after[0] // before[0]) if len(after) == 1 else None
    return None


def is_spatial_padding(node: fx.Node, axes: int) -> bool:
    """Whether a node adds zeros behind the channels; axes: of its value, less the batch."""
    if node.target != aten.pad.default or len(node.args[1]) > 2 * (axes - 1):  # type: ignore[arg-type]
        return False
    return len(node.args) < 4 or (node.args[2] == "constant" and not node.args[3])
