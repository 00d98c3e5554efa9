"""Network -> Network without the BatchNorms that a layer can take in."""

from __future__ import annotations

import copy

import torch
from torch import fx

from zeroq.graph.network import Network, Norm, describe


def fold(network: Network) -> Network:
    """Merge each BatchNorm into the layer before it, exactly: w' = w g / sigma, b' = (b - mu) g / sigma + beta.

    A layer with several sites is folded only if it has one; a BatchNorm whose input has other consumers, or follows
    something else than a layer, stays an affine step. Sums are taken in 64 bits.
    """
    graph, tensors = copy.deepcopy(network.graph), dict(network.tensors)
    nodes = {node.name: node for node in graph.nodes}
    single = {layer.name: layer for layer in network.layers if len(layer.sites) == 1}
    for norm in network.norms:
        if norm.layer not in single:
            continue
        layer = single[norm.layer]
        site, batch_norm = nodes[layer.sites[0]], nodes[norm.node]
        gain, shift = affine(network, norm)
        weight = tensors[layer.weight]
        bias = tensors[layer.bias].double() if layer.bias else torch.zeros(weight.shape[0], dtype=torch.float64)
        bias_name = layer.bias if layer.bias else f"{layer.name}.bias"
        if layer.bias is None:
            with graph.inserting_before(site):
                attribute = graph.get_attr(bias_name)
            site.args = (site.args[0], site.args[1], attribute, *site.args[3:])
        tensors[layer.weight] = (weight.double() * gain.reshape(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
        tensors[bias_name] = (bias * gain + shift).to(weight.dtype)
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
