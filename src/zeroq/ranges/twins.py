"""Values that are one function of several inputs, as the branches of a Siamese network give them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import fx

from zeroq.graph import Network
from zeroq.simulate.placement import Quantizer


def measured_together(network: Network, quantizers: Iterable[Quantizer]) -> dict[str, tuple[str, ...]]:
    """By quantizer the values whose numbers its range is fitted to: its own, and those of its twins.

    Twins quantize what the same layers make of one input and of another. Inputs that go through the same weights are of
    one kind, so these values are as well, and a range for each would be of chance: a network that compares two pictures
    would answer otherwise when they change places.
    """
    quantizers = list(quantizers)
    functions = functions_of(network)
    together: dict[Any, list[str]] = {}
    keys = {}
    for each in quantizers:
        own = tuple(functions.get(name, name) for name in each.measured)
        keys[each.name] = own, each.ceiling
        together.setdefault(keys[each.name], []).extend(each.measured)
    return {each.name: tuple(dict.fromkeys(together[keys[each.name]])) for each in quantizers}


def functions_of(network: Network) -> dict[str, int]:
    """By value of a layer, and of what lies behind layers, a number for the function that it is of the inputs.

    Inputs of one shape count as one; what no layer has computed is left out.
    """
    known: dict[Any, int] = {}
    numbers: dict[fx.Node, int] = {}
    sites = {site for layer in network.layers for site in layer.sites}
    behind: set[fx.Node] = set()
    for node in network.graph.nodes:
        said: Any = node.target
        if node.op == "placeholder":
            said = network.shapes.get(node.name), node.name in network.whole
        arguments = fx.node.map_arg((node.args, node.kwargs), lambda value: f"value {numbers[value]}")
        numbers[node] = known.setdefault((node.op, said, repr(arguments)), len(known))
        if node.name in sites or any(value in behind for value in node.all_input_nodes):
            behind.add(node)
    return {node.name: numbers[node] for node in behind}
