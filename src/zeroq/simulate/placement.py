"""Where quantizers stand: one per value, not per consumer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from zeroq.graph.network import Network
from zeroq.simulate.kernels import (
    CONCATENATION,
    POOLING,
    SIGMOIDS,
    Kernels,
    is_limit,
    is_passing,
    is_rectifier,
    joins_two,
)

aten = torch.ops.aten

WIDE_BITS = 8  # of the input, sums, products, concatenations, pooling and outputs

@dataclass(frozen=True)
class Quantizer:
    """One activation quantizer: the values that share it, and what its range must heed."""

    name: str
    values: tuple[str, ...]  # nodes whose output it quantizes, in order of execution
    measured: tuple[str, ...]  # those of them that make new values, rather than pass on or join others
    ceiling: float | None  # the upper end of a ReLU6 that the range takes in
    wide: bool  # feeds more than layers: stays at 8 bits


@dataclass(frozen=True)
class Placement:
    """All quantizers, and the rectifiers that their ranges take in."""

    quantizers: tuple[Quantizer, ...]
    absorbed: frozenset[str]

    @property
    def of_value(self) -> dict[str, Quantizer]:
        """Quantizer of each quantized value."""
        return {value: quantizer for quantizer in self.quantizers for value in quantizer.values}


def place(network: Network, float_layers: Iterable[str] = ()) -> Placement:
    """Find the values to quantize in a folded network.

    A value is quantized where an operator with an integer kernel makes it or takes it. A layer or sum whose only
    consumer is a ReLU or ReLU6 is quantized behind that, and the range takes the rectifier in. A sum or product that
    only operators in floating point read, such as a BatchNorm that is not folded, is left as it is, and so is an input:
    its channels may be so unlike that one range serves none of them. What only moves values
    (max-pooling, reshape, slices, zero padding) shares the quantizer of what it moves; so do the inputs of a
    concatenation, except a rectified one beside values below 0 or above its ceiling, which one range cannot both hold
    and cut off. A concatenation behind all integer kernels joins values as they are, in floating point: boxes beside
    scores would leave the scores none of 256 steps. A linear layer that gives the output leaves its sums in floating
    point, as its integer kernel can.
    """
    kernels = Kernels.of(network, float_layers)
    valued, wanted = network.shapes.keys() - network.whole, quantized(network, kernels)
    chosen = [node for node in network.graph.nodes if node in wanted and node.name in valued and node.op != "get_attr"]
    limits = bounds(network)
    groups = Groups(chosen, limits)
    for node in chosen:
        if is_passing(node):
            groups.join(node.args[0].name, node.name)
        if node.target == CONCATENATION and node.name in groups.parent:
            for part in node.args[0]:
                groups.join(part.name, node.name)
    by_name = {node.name: node for node in chosen}
    quantizers = tuple(
        make_quantizer([by_name[name] for name in members], ceiling, kernels) for members, ceiling in groups.members()
    )
    return Placement(quantizers, frozenset(node.name for node in chosen if is_rectifier(node)))


def with_ceilings_times(placement: Placement, factors: Mapping[str, float]) -> Placement:
    """With the ceilings of values times these factors, by name."""

    def changed(quantizer: Quantizer) -> Quantizer:
        factor = min((factors[value] for value in quantizer.values if value in factors), default=1.0)
        return quantizer if quantizer.ceiling is None else replace(quantizer, ceiling=quantizer.ceiling * factor)

    return replace(placement, quantizers=tuple(map(changed, placement.quantizers)))


def averages(node: fx.Node) -> bool:
    """Whether a node is a mean, of positions or zeros, rather than sums over a divisor of its own."""
    return node.target in POOLING and (node.target == aten.adaptive_avg_pool2d.default or len(node.args) < 7)


def make_quantizer(members: list[fx.Node], ceiling: float, kernels: Kernels) -> Quantizer:
    """The quantizer that a group of values shares."""
    measured = [node for node in members if not follows(node, set(members))] or members[:1]
    return Quantizer(
        name=members[0].name,
        values=tuple(node.name for node in members),
        measured=tuple(node.name for node in measured),
        ceiling=ceiling if math.isfinite(ceiling) else None,
        wide=any(node.op == "placeholder" or kernels.feeds_more_than_layers(node) for node in members),
    )


def follows(node: fx.Node, group: set[fx.Node]) -> bool:
    """Whether a value only moves or joins others of its group, or is limited within it before anything reads it."""
    if is_limit(node):
        return False
    if all(is_limit(user) and user in group for user in node.users):
        return True
    return (is_passing(node) or node.target == CONCATENATION) and group.issuperset(node.all_input_nodes)


def bounds(network: Network) -> dict[str, tuple[float, float]]:
    """Between what numbers each value must lie, whatever the input, as far as rectifiers and sigmoids say."""
    found: dict[str, tuple[float, float]] = {}
    for node in network.graph.nodes:
        sources = [found[source.name] for source in node.all_input_nodes]
        if node.target in SIGMOIDS:
            found[node.name] = (0.0, 1.0)
        elif is_rectifier(node):
            found[node.name] = (0.0, float(node.args[2]) if node.target == aten.hardtanh.default else math.inf)
        elif is_passing(node) or averages(node) or node.target == CONCATENATION:
            found[node.name] = (min(low for low, _ in sources), max(high for _, high in sources))
        elif (joins_two(node) or node.target in POOLING) and all(low == 0 for low, _ in sources):
            found[node.name] = (0.0, math.inf)
        else:
            found[node.name] = (-math.inf, math.inf)
    return found


def quantized(network: Network, kernels: Kernels) -> set[fx.Node]:
    """The nodes whose values are quantized; see place()."""
    found: set[fx.Node] = set()

    def is_quantized(node: fx.Node) -> bool:
        users = list(node.users)
        if not users or (len(users) == 1 and is_rectifier(users[0]) and is_quantized(users[0])):
            return False
        if node.target == aten.linear.default and node in kernels.leading_out:
            return False
        if is_passing(node):
            return node.args[0] in found or node in kernels.taken
        if node in kernels.own or node in kernels.taken:
            return True
        return is_rectifier(node) and node.args[0] in kernels.own

    for node in network.graph.nodes:
        if is_quantized(node):
            found.add(node)
    return found


class Groups:
    """Disjoint sets of values that can have one quantizer; the earliest value's name is the set's."""

    def __init__(self, values: list[fx.Node], limits: Mapping[str, tuple[float, float]]) -> None:
        self.parent = {node.name: node.name for node in values}
        self.order = {name: index for index, name in enumerate(self.parent)}
        self.limits = {name: limits[name] for name in self.parent}  # of all values of a set
        rectified = {node.name for node in values if is_rectifier(node)}
        # Of a set's range, which takes its rectifiers in.
        self.allowed = {name: limits[name] if name in rectified else ANYTHING for name in self.parent}

    def find(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Make one set of two, unless a value of one lies beyond what a rectifier of the other allows."""
        if first not in self.parent or second not in self.parent:
            return
        one, other = sorted((self.find(first), self.find(second)), key=self.order.__getitem__)
        limits = wider(self.limits[one], self.limits[other])
        allowed = narrower(self.allowed[one], self.allowed[other])
        if narrower(limits, allowed) == limits:
            self.parent[other], self.limits[one], self.allowed[one] = one, limits, allowed

    def members(self) -> list[tuple[list[str], float]]:
        """The sets, each in order, in order of their first names, with the ceiling of each set's range."""
        sets: dict[str, list[str]] = {}
        for name in self.parent:
            sets.setdefault(self.find(name), []).append(name)
        return [(names, self.allowed[root][1]) for root, names in sets.items()]


ANYTHING = (-math.inf, math.inf)


def wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The least interval around both."""
    return min(one[0], other[0]), max(one[1], other[1])


def narrower(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """What both intervals share."""
    return max(one[0], other[0]), min(one[1], other[1])


def quantizer_bits(network: Network, placement: Placement, input_bits: Mapping[str, int]) -> dict[str, int]:
    """Bits of every quantizer, those that quantize again for a narrower layer among them ("NAME/BITS").

    input_bits: of each quantized layer's input. A quantizer that feeds layers only has the width of the widest.
    """
    bits: dict[str, int] = {}
    of_value = placement.of_value
    wanted: dict[str, set[int]] = {}
    for layer in network.layers:
        if layer.name in input_bits:
            for site in layer.sites:
                source: Any = network.node(site).args[0]
                wanted.setdefault(of_value[source.name].name, set()).add(input_bits[layer.name])
    for quantizer in placement.quantizers:
        widths = wanted.get(quantizer.name, set())
        bits[quantizer.name] = WIDE_BITS if quantizer.wide or not widths else max(widths)
        for width in sorted(widths):
            if width < bits[quantizer.name]:
                bits[again(quantizer.name, width)] = width
    return bits


def every_width(
    network: Network,
    placement: Placement,
    input_bits: Mapping[str, int],
    input_widths: Mapping[str, tuple[int, ...]],
) -> dict[str, int]:
    """The same as `quantizer_bits`, and beside each quantizer the narrower ones that a choice may ask for.

    input_widths: by layer whose input has a choice, the widths of which input_bits holds the widest.
    """
    bits = quantizer_bits(network, placement, input_bits)
    of_value = placement.of_value
    for layer in network.layers:
        for site in layer.sites if layer.name in input_widths else ():
            name = of_value[network.node(site).all_input_nodes[0].name].name
            bits |= {again(name, width): width for width in input_widths[layer.name] if width < bits[name]}
    return bits


def busiest(network: Network, placement: Placement, input_widths: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Of the inputs that have a choice, bits that ask for the most quantizers: readers of one value differ in turns."""
    of_value = placement.of_value
    turns: dict[str, int] = {}
    found = {}
    for layer in network.layers:
        if layer.name in input_widths:
            quantizer = of_value[network.node(layer.sites[0]).all_input_nodes[0].name]
            widest_first = sorted(input_widths[layer.name], reverse=True)
            narrower = [width for width in widest_first if width < WIDE_BITS] if quantizer.wide else widest_first
            turn = turns[quantizer.name] = turns.get(quantizer.name, -1) + 1
            found[layer.name] = narrower[turn % len(narrower)]
    return found


def again(quantizer: str, bits: int) -> str:
    """Name of the quantizer that quantizes a value again at fewer bits."""
    return f"{quantizer}/{bits}"
