"""Network -> Network without the BatchNorms that a layer can take in."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from zeroq.graph.network import Network, Norm, describe, foldable


def fold(network: Network) -> Network:
    """Merge each BatchNorm into the layer before it, exactly: w' = w g / sigma, b' = (b - mu) g / sigma + beta.

    A layer with several sites is folded if the same BatchNorm follows each of them; a BatchNorm whose input has other
    consumers, or follows something else than a layer, stays an affine step. Sums are taken in 64 bits.
    """
    graph, tensors = copy.deepcopy(network.graph), dict(network.tensors)
    nodes = {node.name: node for node in graph.nodes}
    for name, norms in foldable(network).items():
        layer = network.layer(name)
        gain, shift = affine(network, norms[0])
        weight = network.tensors[layer.weight]
        before = network.tensors[layer.bias].double() if layer.bias else torch.zeros_like(gain)
        tensors[layer.weight] = (weight.double() * gain.reshape(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
        bias = f"{name}.folded_bias"
        tensors[bias] = (before * gain + shift).to(weight.dtype)
        first = nodes[layer.sites[0]]
        with graph.inserting_before(first):
            attribute = graph.get_attr(bias)
        for norm in norms:
            batch_norm = nodes[norm.node]
            site: Any = batch_norm.args[0]
            site.args = (*site.args[:2], attribute, *site.args[3:])
            batch_norm.replace_all_uses_with(site)
            graph.erase_node(batch_norm)
    remove_unused(graph, tensors)
    return describe(graph, tensors, network.example)


def affine(network: Network, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """Gain and shift of a BatchNorm per channel, in 64 bits."""
    node = network.node(norm.node)
    weight, bias = node.args[1], node.args[2]
    deviation = torch.sqrt(norm.variance.double() + norm.epsilon)
    gain = (network.tensors[str(weight.target)].double() if isinstance(weight, fx.Node) else 1.0) / deviation
    shift = (
        network.tensors[str(bias.target)].double() if isinstance(bias, fx.Node) else 0.0
    ) - norm.mean.double() * gain
    return gain, shift


def remove_unused(graph: fx.Graph, tensors: dict[str, torch.Tensor]) -> None:
    """Drop attributes that no node uses, and their tensors."""
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for name in set(tensors) - used:
        del tensors[name]
