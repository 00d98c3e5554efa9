"""Values whose channels can have a factor each: at no cost where depthwise layers alone read them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from zeroq.graph.fold import insert_limit
from zeroq.graph.network import LINEAR, Layer, Network
from zeroq.graph.replay import is_batch_size
from zeroq.repair.equalization import is_one_to_one, with_inputs_scaled
from zeroq.repair.links import HOMOGENEOUS, WITHIN_CHANNELS, is_spatial_padding, sole_layers
from zeroq.simulate.kernels import is_limit, is_rectifier, joins_two

aten = torch.ops.aten


@dataclass(frozen=True)
class Family:
    """Values that have one factor for each channel in common: of what layers give and what is made of it, up to those
    that read it."""

    values: tuple[str, ...]  # by name, in order of execution
    given: tuple[Layer, ...]
    read: tuple[Layer, ...]

    @property
    def name(self) -> str:
        return self.values[0]

    @property
    def free(self) -> bool:
        """Whether factors cost nothing, as each reader has one filter for each channel."""
        return all(map(is_one_to_one, self.read))


def families(network: Network) -> tuple[Family, ...]:
    """All such values of a folded network, in order of execution.

    Factors pass rectifiers, limits, pooling, zero padding, resizing and sums. Weights have a scale for each filter, and
    so a factor of what a layer gives costs nothing; nor does one of what a depthwise layer reads. Of another
    convolution it makes the weights of a filter more or less alike. A ReLU6 that a range takes in costs nothing, though
    its ceiling becomes one for each channel: no range needs to reach beyond any of them.
    Left are values that any other node reads or makes, and those of layers that share their weights or run twice.
    """
    layers, sets = sole_layers(network), {}
    fixed: set[str] = set()
    given: dict[str, Layer] = {}
    for node in network.graph.nodes:
        if node.op == "get_attr" or is_batch_size(node):
            continue
        sources = [each.name for each in node.all_input_nodes if each.op != "get_attr" and not is_batch_size(each)]
        sets[node.name] = [node.name]  # shared by all of a set
        if node.name in layers and node.target != LINEAR:
            given[node.name] = layers[node.name]
        elif sources and passes(network, node):
            for source in sources:
                join(sets, source, node.name)
        else:
            fixed |= {node.name, *sources}
    order = {name: index for index, name in enumerate(sets)}
    every = {(own := sorted(values, key=order.__getitem__))[0]: own for values in sets.values()}
    first = {value: name for name, values in every.items() for value in values}
    read: dict[str, list[Layer]] = {}
    for site, layer in given.items():
        read.setdefault(first[network.node(site).all_input_nodes[0].name], []).append(layer)
    return tuple(
        Family(tuple(values), tuple(given[each] for each in values if each in given), tuple(read[name]))
        for name, values in every.items()
        if name in read and fixed.isdisjoint(values)
    )


def join(sets: dict[str, list[str]], earlier: str, later: str) -> None:
    """Make one set of those of two values."""
    first, second = sets[earlier], sets[later]
    if first is not second:
        first += second
        sets |= dict.fromkeys(second, first)


def passes(network: Network, node: fx.Node) -> bool:
    """Whether f(s x) = s f(x) for positive factors s of the channels, the first axis behind the batch."""
    if is_limit(node):
        return all(len(bound.users) == 1 for bound in bounds_of(node))
    if has_ceiling(node):
        return True
    shapes = [network.shapes.get(each.name, ()) for each in node.all_input_nodes if each.op != "get_attr"]
    if joins_two(node):
        return node.target == aten.add.Tensor and len({(len(shape), shape[:1]) for shape in shapes}) == 1
    return node.target in HOMOGENEOUS | WITHIN_CHANNELS or is_spatial_padding(node, len(shapes[0]))


def has_ceiling(node: fx.Node) -> bool:
    """Whether a node is a ReLU6, or a ReLU of another ceiling above 0."""
    return is_rectifier(node) and len(node.args) == 3 and float(node.args[2]) > 0  # type: ignore[arg-type]


def bounds_of(limit: fx.Node) -> list[fx.Node]:
    """Where the bounds of a limit are stored."""
    return [bound for bound in limit.args[1:] if isinstance(bound, fx.Node)]


def scaled(network: Network, factors: Mapping[str, Tensor]) -> Network:
    """The same function with each channel of some families times its factor, float64 [channels], by their names."""
    chosen = [family for family in families(network) if family.name in factors]
    network = with_limits(network, {value for family in chosen for value in family.values})
    changed: dict[str, Tensor] = {}
    nodes = {node.name: node for node in network.graph.nodes}

    def multiplied(name: str, factor: Tensor) -> None:
        value = changed.get(name, network.tensors[name].detach().double())
        changed[name] = value * factor.to(value.device).reshape(-1, *[1] * (value.dim() - 1))

    for family in chosen:
        factor = factors[family.name]
        for layer in family.given:
            for name in (layer.weight, layer.bias):
                if name is not None:
                    multiplied(name, factor)
        for layer in family.read:
            value = changed.get(layer.weight, network.tensors[layer.weight].detach().double())
            changed[layer.weight] = with_inputs_scaled(value, 1 / factor.to(value.device), layer)
        for bound in (bound for value in family.values if is_limit(nodes[value]) for bound in bounds_of(nodes[value])):
            multiplied(str(bound.target), factor)
    return network.with_tensors({name: value.to(network.tensors[name].dtype) for name, value in changed.items()})


def with_limits(network: Network, values: Collection[str]) -> Network:
    """With a limit, whose bounds are stored for each channel, in place of each ReLU6 among some values."""
    if not any(has_ceiling(node) for node in network.graph.nodes if node.name in values):
        return network
    graph, tensors, device = copy.deepcopy(network.graph), dict(network.tensors), network.example[0].device
    for node in [each for each in graph.nodes if each.name in values and has_ceiling(each)]:
        channels, *places = network.shapes[node.name]
        lower, upper = (torch.full((channels,), float(bound), device=device) for bound in node.args[1:])
        insert_limit(graph, tensors, node, node.name, (lower, upper), len(places))
    return replace(network, graph=graph, tensors=tensors)
