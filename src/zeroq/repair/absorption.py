"""Biases so high that a ReLU behind them never cuts, handed on to the next layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import Layer, Network
from zeroq.graph.normal import Normal
from zeroq.repair.equalization import by_input
from zeroq.repair.links import links

aten = torch.ops.aten

DEVIATIONS = 3.0  # a normal number lies further below its mean once in 740 times


def absorb_high_biases(network: Network, normals: Mapping[str, Normal]) -> tuple[Network, dict[str, Normal]]:
    """Take c = max(0, mean - 3 deviations) from a channel's bias and add W2 c to that of the layer that reads it (DFQ,
    arXiv:1906.04721, section 4.1.3): ReLU(x - c) = ReLU(x) - c wherever x >= c, as nearly all of x is.

    The channel's values then begin near 0 and its range is that much smaller. Only through a ReLU (and reshaping), and
    not into a layer that pads: zeros around a map would have to become -c. (The paper absorbs there as well, and is
    wrong at the border.) Both layers need a bias.

    network: folded, perhaps equalized.  normals: of its values, from `normal_values`, or from equalize().
    Gives the network, and the normals of what it has become.
    """
    changed: dict[str, Tensor] = {}
    shifted = dict(normals)
    nodes = {node.name: node for node in network.graph.nodes}
    for link in links(network):
        site, first, second = link.first.sites[0], link.first.bias, link.second.bias
        if site not in normals or first is None or second is None or pads(nodes[link.second.sites[0]], link.second):
            continue
        rectifiers = [node.target for node in link.between if node.target != aten.reshape.default]
        if rectifiers != [aten.relu.default]:
            continue
        normal = normals[site]
        surplus = torch.clamp(normal.mean - DEVIATIONS * normal.deviation, min=0)
        read = by_input(network.tensors[link.second.weight].detach().double(), link.second).sum(2)
        inputs = surplus.repeat_interleave(link.repeated).reshape(link.second.groups, -1)
        passed = torch.einsum("fgc,gc->gf", read.unflatten(1, inputs.shape), inputs).flatten()
        for name, change in ((first, -surplus), (second, passed)):
            changed[name] = changed.get(name, network.tensors[name].detach().double()) + change
        shifted[site] = Normal(normal.mean - surplus, normal.deviation)
    return network.with_tensors({
        name: value.to(network.tensors[name].dtype) for name, value in changed.items()
    }), shifted  # fmt: skip


def pads(site: fx.Node, layer: Layer) -> bool:
    """Whether a layer surrounds what it reads by zeros."""
    if layer.operator == "linear" or len(site.args) < 5:
        return False
    padding: Any = site.args[4]
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
