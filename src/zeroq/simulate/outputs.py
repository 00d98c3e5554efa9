"""Quantizers behind output layers, which nothing but the layers' own integer kernels need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import fx

from zeroq.graph.network import Network
from zeroq.simulate.kernels import Kernels
from zeroq.simulate.placement import Placement, Quantizer


def output_quantizers(network: Network, placement: Placement, float_layers: Iterable[str] = ()) -> dict[str, Quantizer]:
    """By layer: the quantizer of its output, where no integer kernel reads what becomes of it.

    Only of a layer that runs in integers, and whose quantizer serves no other layer.
    """
    kernels = Kernels.of(network, float_layers)
    nodes = {node.name: node for node in network.graph.nodes}
    found: dict[str, Quantizer] = {}
    for layer in network.layers:
        quantizers = {quantizer for site in layer.sites if (quantizer := behind(nodes[site], placement)) is not None}
        makers = {
            value for quantizer in quantizers for value in quantizer.measured
            if rectified(nodes[value]) in kernels.own
        }  # fmt: skip
        alone = makers <= {
            value for site in layer.sites for value in (site, *(user.name for user in nodes[site].users))
        }
        if len(quantizers) == 1 and alone and all(is_last(nodes[site], kernels) for site in layer.sites):
            found[layer.name] = next(iter(quantizers))
    return found


def behind(site: fx.Node, placement: Placement) -> Quantizer | None:
    """The quantizer of a layer's value, behind the rectifier that it takes in."""
    value = next((user for user in site.users if user.name in placement.absorbed), site)
    return placement.of_value.get(value.name)


def rectified(value: fx.Node) -> fx.Node:
    """What a rectifier reads; any other value as it is."""
    return value.all_input_nodes[0] if len(value.all_input_nodes) == 1 else value


def is_last(site: fx.Node, kernels: Kernels) -> bool:
    """Whether a node is a layer in integers, and no other integer kernel depends on its value."""
    return kernels.is_layer(site) and site not in kernels.needed


def without(placement: Placement, quantizers: Iterable[Quantizer]) -> Placement:
    """The placement without some quantizers, whose values stay as they are; rectifiers that they took in come back."""
    left_out = set(quantizers)
    values = {value for quantizer in left_out for value in quantizer.values}
    return replace(
        placement,
        quantizers=tuple(each for each in placement.quantizers if each not in left_out),
        absorbed=placement.absorbed - values,
    )
