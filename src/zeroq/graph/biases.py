"""Stored vectors added behind a layer are its bias, which an integer kernel adds at no cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import CONVOLUTIONS, LAYER_OPERATORS

aten = torch.ops.aten


def absorb_biases(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Turn layer(x) + b, b one stored number per output channel, into a layer of bias b, or of its own bias and b.

    Only where the sum is the layer's only reader, no other node uses the layer's weight, and b is of its type.
    """
    for node in list(graph.nodes):
        pair = layer_and_vector(node)
        if pair is None:
            continue
        layer, vector = pair
        row = per_channel(tensors[str(vector.target)], layer)
        weight = tensors[str(layer.args[1].target)]
        channels = len(weight)
        if row is None or row.dtype != weight.dtype or len(row) not in (1, channels):
            continue
        own = layer.args[2] if len(layer.args) > 2 else None
        total = row.expand(channels) if own is None else tensors[str(own.target)] + row
        name = str(vector.target) if own is None else f"{own.target}_and_{vector.target}"
        name = name if own is not None or len(vector.users) == 1 else f"{name}_as_bias_of_{layer.name}"
        tensors[name] = total.contiguous()
        with graph.inserting_before(layer):
            bias = graph.get_attr(name)
        layer.args = (*layer.args[:2], bias, *layer.args[3:])
        node.replace_all_uses_with(layer)
        graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)


def layer_and_vector(node: fx.Node) -> tuple[Any, Any] | None:
    """The two operands of a sum of a layer, which nothing else reads, and a stored tensor."""
    if node.target != aten.add.Tensor or node.kwargs or not all(isinstance(each, fx.Node) for each in node.args):
        return None
    operands: list[Any] = list(node.args)
    layers = [each for each in operands if each.target in LAYER_OPERATORS and len(each.users) == 1]
    stored = [each for each in operands if each.op == "get_attr"]
    if len(layers) != 1 or len(stored) != 1:
        return None
    weight = layers[0].args[1]
    alone = isinstance(weight, fx.Node) and weight.op == "get_attr" and len(weight.users) == 1
    return (layers[0], stored[0]) if alone else None


def per_channel(stored: Tensor, layer: fx.Node) -> Tensor | None:
    """A stored tensor as one number per channel; None if it differs along another axis, or has more axes."""
    value = layer.meta.get("val")
    if not isinstance(value, Tensor) or stored.dim() > value.dim():
        return None
    if stored.numel() == 1:
        return stored.flatten()
    behind = value.dim() - 2 if layer.target in CONVOLUTIONS else 0  # axes behind the channels
    shape = list(stored.shape)
    before = shape[: max(len(shape) - behind - 1, 0)]
    after = shape[max(len(shape) - behind, 0) :]
    return stored.flatten() if len(shape) > behind and all(size == 1 for size in (*before, *after)) else None
