"""Where quantizers stand: one per value, not per consumer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from zeroq.graph.network import LAYER_OPERATORS, Network

aten = torch.ops.aten

WIDE_BITS = 8  # of the input, sums, products, concatenations, pooling and outputs

PASSING = {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.reshape.default, aten.view.default, aten.flatten.using_ints,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.transpose.int, aten.permute.default,
    aten.slice.Tensor, aten.select.int, aten.expand.default, aten.pixel_shuffle.default, aten.channel_shuffle.default,
    aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default,
}  # fmt: skip
POOLING = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.avg_pool1d.default}
BINARY = {aten.add.Tensor, aten.mul.Tensor}
CONCATENATION = aten.cat.default


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
    consumer is a ReLU or ReLU6 is quantized behind that, and the range takes the rectifier in. What only moves values
    (max-pooling, reshape, slices, zero padding) shares the quantizer of what it moves; so do the inputs of a
    concatenation. A linear layer that gives the network's output leaves its sums in floating point, as its integer
    kernel can.
    """
    floating = {site for layer in network.layers if layer.name in set(float_layers) for site in layer.sites}
    nodes = [node for node in network.graph.nodes if node.name in network.shapes and node.op != "get_attr"]
    chosen = [node for node in nodes if is_quantized(node, floating)]
    names = {node.name for node in chosen}
    groups = Groups(node.name for node in chosen)
    for node in chosen:
        if is_passing(node) and node.args[0].name in names:
            groups.join(node.args[0].name, node.name)
        if node.target == CONCATENATION:
            for part in node.args[0]:
                groups.join(node.name, part.name)
    by_name = {node.name: node for node in chosen}
    quantizers = tuple(make_quantizer([by_name[name] for name in members], floating) for members in groups.members())
    return Placement(quantizers, frozenset(node.name for node in chosen if is_rectifier(node)))


def make_quantizer(members: list[fx.Node], floating: set[str]) -> Quantizer:
    """The quantizer that a group of values shares."""
    measured = [node for node in members if not is_passing(node) and node.target != CONCATENATION] or members[:1]
    ceilings = [float(node.args[2]) if node.target == aten.hardtanh.default else None for node in measured]  # type: ignore[arg-type]
    return Quantizer(
        name=members[0].name,
        values=tuple(node.name for node in members),
        measured=tuple(node.name for node in measured),
        ceiling=max(bound for bound in ceilings if bound is not None) if None not in ceilings else None,
        wide=any(node.op == "placeholder" or feeds_more_than_layers(node, floating) for node in members),
    )


def is_layer(node: fx.Node, floating: set[str]) -> bool:
    """Whether a node is a site of a layer that runs in integers."""
    return node.target in LAYER_OPERATORS and node.name not in floating and node.args[1].op == "get_attr"  # type: ignore[union-attr]


def has_integer_kernel(node: fx.Node, floating: set[str]) -> bool:
    """Whether onnxruntime runs an operator in integers between quantizers."""
    if node.target in BINARY:
        return all(isinstance(argument, fx.Node) and argument.op != "get_attr" for argument in node.args[:2])
    return is_layer(node, floating) or node.target in POOLING or node.target == CONCATENATION


def is_passing(node: fx.Node) -> bool:
    """Whether an operator only moves values, or adds zeros to them."""
    if node.target == aten.pad.default:
        return len(node.args) < 4 or (node.args[2] == "constant" and not node.args[3])
    return node.target in PASSING


def is_rectifier(node: fx.Node) -> bool:
    """Whether a node is a ReLU or a clamp from 0 on, which a range can take in."""
    return node.target == aten.relu.default or (node.target == aten.hardtanh.default and bool(node.args[1] == 0))


def is_quantized(node: fx.Node, floating: set[str]) -> bool:
    """Whether a node's value is quantized; see place()."""
    users = list(node.users)
    if not users or (len(users) == 1 and is_rectifier(users[0]) and is_quantized(users[0], floating)):
        return False
    if node.target == aten.linear.default and all(user.op == "output" for user in users):
        return False
    if is_passing(node):
        return is_quantized(node.args[0], floating) or taken_by_kernel(node, floating)  # type: ignore[arg-type]
    if node.op == "placeholder" or has_integer_kernel(node, floating) or taken_by_kernel(node, floating):
        return True
    return is_rectifier(node) and has_integer_kernel(node.args[0], floating)  # type: ignore[arg-type]


def taken_by_kernel(node: fx.Node, floating: set[str]) -> bool:
    """Whether an integer kernel reads a value, perhaps through operators that pass it on."""
    return any(
        has_integer_kernel(user, floating) or (is_passing(user) and taken_by_kernel(user, floating))
        for user in node.users
    )


def feeds_more_than_layers(node: fx.Node, floating: set[str]) -> bool:
    """Whether something else than layers (and what passes on to them) reads a value."""
    return any(not is_layer(user, floating) and not is_passing(user) for user in node.users)


class Groups:
    """Disjoint sets of names; joining keeps the earlier name as the set's."""

    def __init__(self, names: Iterable[str]) -> None:
        self.parent = {name: name for name in names}
        self.order = {name: index for index, name in enumerate(self.parent)}

    def find(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        one, other = sorted((self.find(first), self.find(second)), key=self.order.__getitem__)
        self.parent[other] = one

    def members(self) -> list[list[str]]:
        """The sets, each in order, in order of their first names."""
        sets: dict[str, list[str]] = {}
        for name in self.parent:
            sets.setdefault(self.find(name), []).append(name)
        return list(sets.values())


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


def again(quantizer: str, bits: int) -> str:
    """Name of the quantizer that quantizes a value again at fewer bits."""
    return f"{quantizer}/{bits}"
