"""Amounts that go from the bias of one layer into that of the layer that reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import Layer, Network
from zeroq.repair.equalization import by_input
from zeroq.repair.links import Link, links

aten = torch.ops.aten


def shiftable(network: Network, *rectifiers: Any) -> list[Link]:
    """Links with these rectifiers and nothing else in between but reshaping, whose layers both have a bias.

    Not into a layer that pads: zeros around a map would have to become what was taken off, with the other sign.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    return [
        link for link in links(network)
        if link.first.bias and link.second.bias and not pads(nodes[link.second.sites[0]], link.second)
        and [node.target for node in link.between if node.target != aten.reshape.default] == list(rectifiers)
    ]  # fmt: skip


def shifted(network: Network, amounts: Iterable[tuple[Link, Tensor]]) -> Network:
    """With an amount a channel, float64 [out], taken off what the first layer of a link gives, and W2 times it added
    to what the second gives.
    """
    biases: dict[str, Tensor] = {}
    for link, amount in amounts:
        read = by_input(network.tensors[link.second.weight].detach().double(), link.second).sum(2)
        inputs = amount.repeat_interleave(link.repeated).reshape(link.second.groups, -1)
        passed = torch.einsum("fgc,gc->gf", read.unflatten(1, inputs.shape), inputs).flatten()
        for name, change in ((str(link.first.bias), -amount), (str(link.second.bias), passed)):
            biases[name] = biases.get(name, network.tensors[name].detach().double()) + change
    return network.with_tensors({name: value.to(network.tensors[name].dtype) for name, value in biases.items()})


def pads(site: fx.Node, layer: Layer) -> bool:
    """Whether a layer surrounds what it reads by zeros."""
    if layer.operator == "linear" or len(site.args) < 5:
        return False
    padding: Any = site.args[4]
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
