"""How much memory the values between a quantized network's layers take at one time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from zeroq.graph.network import Network
from zeroq.simulate.kernels import is_passing
from zeroq.simulate.placement import WIDE_BITS, Placement

aten = torch.ops.aten

FLOAT_BITS = 32
IN_PLACE = {  # the value stays where it is; a layer that reads zeros around its input needs no copy either
    aten.reshape.default, aten.view.default, aten.flatten.using_ints, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default, aten.pad.default,
}  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """What is in memory while one operator runs, for one image."""

    operator: str
    fixed: int  # bits of the values whose width no layer decides
    elements: Mapping[str, int]  # numbers in the others, by their quantizer


@dataclass(frozen=True)
class Memory:
    """All moments of a network's run, in their order."""

    moments: tuple[Moment, ...]
    readers: Mapping[str, tuple[str, ...]]  # layers that decide the width of a quantizer, which is that of the widest

    def widths(self, input_bits: Mapping[str, int]) -> dict[str, int]:
        """Of every quantizer that layers decide, from the bits of the layers' inputs."""
        return {name: max(input_bits[layer] for layer in layers) for name, layers in self.readers.items()}

    def worst(self, input_bits: Mapping[str, int]) -> tuple[int, Moment]:
        """The most bits that are in memory at a time, and the first moment when they are."""
        widths = self.widths(input_bits)
        return max(((taken(moment, widths), moment) for moment in self.moments), key=lambda pair: pair[0])

    def peak(self, input_bits: Mapping[str, int]) -> int:
        """The most bits that are in memory at a time."""
        return self.worst(input_bits)[0]


def taken(moment: Moment, widths: Mapping[str, int]) -> int:
    """Bits in memory at a moment."""
    return moment.fixed + sum(count * widths[name] for name, count in moment.elements.items())


def memory_of(network: Network, placement: Placement, layers: Collection[str]) -> Memory:
    """What is in memory while each operator of a folded network runs in order, for a batch of one.

    While an operator runs, the values that it reads, the value that it makes, and every other one that is still to be
    read are in memory, each number at the bits of the value's quantizer, and at 32 where none stands behind it. A
    rectifier that a range takes in, a change of shape and zeros around a layer's input make no value of their own. A
    layer that reads a wide value at fewer bits takes it as it is, without a copy. Weights and what a kernel needs for
    itself are not counted. (onnxruntime holds 8 bits for fewer; packed so tightly, values are what hardware and
    kernels made for few bits hold.)
    layers: whose inputs are quantized.
    """
    order = {node: index for index, node in enumerate(network.graph.nodes)}
    homes = homes_of(network, placement)
    born: dict[fx.Node, int] = {}
    read: dict[fx.Node, int] = {}
    for node, home in homes.items():
        born.setdefault(home, order[node] if node.op != "placeholder" else 0)
        read[home] = max([read.get(home, 0), order[node], *(order[user] for user in node.users)])
    readers = readers_of(network, placement, layers)
    quantizers = quantizers_of(homes, placement)
    moments = []
    for node, home in homes.items():
        if node is not home or node.op == "placeholder":
            continue
        fixed, elements = 0, dict.fromkeys(readers, 0)
        for value in born:
            if born[value] <= order[node] <= read[value]:
                count, name = math.prod(network.shapes[value.name]), quantizers.get(value)
                if name in elements:
                    elements[name] += count
                else:
                    fixed += count * (WIDE_BITS if name is not None else FLOAT_BITS)
        moments.append(Moment(node.name, fixed, {name: count for name, count in elements.items() if count}))
    return Memory(tuple(moments), readers)


def homes_of(network: Network, placement: Placement) -> dict[fx.Node, fx.Node]:
    """By value: the one whose place in memory it takes, in order of execution."""
    of_value = placement.of_value
    homes: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        if node.op not in ("call_function", "placeholder") or node.name not in network.shapes:
            continue
        source = next(iter(node.all_input_nodes), None)
        absorbed = source is not None and node.name in placement.absorbed and source.name not in of_value
        stays = absorbed or (node.target in IN_PLACE and is_passing(node))
        homes[node] = homes[source] if stays and source in homes else node
    return homes


def quantizers_of(homes: Mapping[fx.Node, fx.Node], placement: Placement) -> dict[fx.Node, str]:
    """By value: the first quantizer behind it, or behind what takes its place."""
    of_value = placement.of_value
    found: dict[fx.Node, str] = {}
    for node, home in homes.items():
        if node.name in of_value:
            found.setdefault(home, of_value[node.name].name)
    return found


def readers_of(network: Network, placement: Placement, layers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """By quantizer that feeds layers alone: those of the given layers that read a value of its."""
    found: dict[str, dict[str, None]] = {}
    of_value = placement.of_value
    nodes = {node.name: node for node in network.graph.nodes}
    for layer in network.layers:
        for site in layer.sites if layer.name in layers else ():
            source = nodes[site].all_input_nodes[0]
            quantizer = of_value[source.name]
            if not quantizer.wide:
                found.setdefault(quantizer.name, {})[layer.name] = None
    return {name: tuple(names) for name, names in found.items()}
