"""Which operators of a network run in integers, and whether what they need reaches them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import fx

from zeroq.graph.network import LAYER_OPERATORS, LIMIT, Network

aten = torch.ops.aten

PASSING = {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.reshape.default, aten.view.default, aten.flatten.using_ints,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.transpose.int, aten.permute.default,
    aten.slice.Tensor, aten.select.int, aten.expand.default, aten.pixel_shuffle.default, aten.channel_shuffle.default,
    aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default,
}  # fmt: skip
POOLING = {
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default, aten.adaptive_avg_pool2d.default,
}  # fmt: skip
BINARY = {aten.add.Tensor, aten.mul.Tensor}
PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}  # of two computed values: attention
SIGMOIDS = {aten.sigmoid.default, aten.hardsigmoid.default, aten.softmax.int}
CONCATENATION = aten.cat.default


@dataclass(frozen=True)
class Kernels:
    """The nodes that run in integers, and for each value what becomes of it; all found in one pass from the back."""

    floating: frozenset[str]  # names of the sites of layers that are to compute in floating point
    own: set[fx.Node] = field(default_factory=set)  # that run in integers: onnxruntime has a kernel
    taken: set[fx.Node] = field(default_factory=set)  # that an integer kernel reads, perhaps passed on to it
    needed: set[fx.Node] = field(default_factory=set)  # that an integer kernel depends on
    leading_out: set[fx.Node] = field(default_factory=set)  # read by the output alone, moved or joined perhaps

    @classmethod
    def of(cls, network: Network, float_layers: Iterable[str] = ()) -> Kernels:
        """Of a network; float_layers: by name, those that are to compute in floating point."""
        found = cls(frozenset(sites_of(network, float_layers)))
        for node in reversed(network.graph.nodes):  # users before what they read
            found.note(node)
        return found

    def note(self, node: fx.Node) -> None:
        """What a node is, all of its readers being known."""
        users = list(node.users)
        if any(user in self.own or (is_passing(user) and user in self.taken) for user in users):
            self.taken.add(node)
        if any(user in self.own or user in self.needed for user in users):
            self.needed.add(node)
        if all(
            user.op == "output" or ((is_passing(user) or user.target == CONCATENATION) and user in self.leading_out)
            for user in users
        ):
            self.leading_out.add(node)
        if self.runs_in_integers(node):
            self.own.add(node)

    def runs_in_integers(self, node: fx.Node) -> bool:
        """Whether there is a kernel for a node, and the result of a sum or a concatenation is wanted in integers."""
        if joins_two(node):
            return node in self.taken or any(is_rectifier(user) and user in self.taken for user in node.users)
        if is_product(node) or self.is_layer(node):
            return True
        return node.target in POOLING or (node.target == CONCATENATION and node in self.needed)

    def is_layer(self, node: fx.Node) -> bool:
        """Whether a node is a site of a layer that runs in integers."""
        return (
            node.target in LAYER_OPERATORS and node.name not in self.floating and node.args[1].op == "get_attr"  # type: ignore[union-attr]
        )

    def feeds_more_than_layers(self, node: fx.Node) -> bool:
        """Whether something else than layers (and what passes on to them) reads a value."""
        return any(not self.is_layer(user) and not is_passing(user) for user in node.users)


def sites_of(network: Network, layers: Iterable[str]) -> set[str]:
    """Names of the nodes that use the layers' weights."""
    names = set(layers)
    return {site for layer in network.layers if layer.name in names for site in layer.sites}


def joins_two(node: fx.Node) -> bool:
    """Whether a node is the plain sum or product of two values, neither of them stored."""
    both = all(isinstance(argument, fx.Node) and argument.op != "get_attr" for argument in node.args[:2])
    return node.target in BINARY and both and not node.kwargs


def is_product(node: fx.Node) -> bool:
    """Whether a node is the matrix product of two values, neither of them stored."""
    return node.target in PRODUCTS and all(argument.op != "get_attr" for argument in node.args)  # type: ignore[union-attr]


def is_average(node: fx.Node) -> bool:
    """Whether a node is the average over all positions."""
    return node.target == aten.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]  # type: ignore[arg-type]


def is_limit(node: fx.Node) -> bool:
    """Whether a node cuts each channel off at stored bounds."""
    return node.target == LIMIT and all(bound is None or bound.op == "get_attr" for bound in node.args[1:])  # type: ignore[union-attr]


def is_passing(node: fx.Node) -> bool:
    """Whether an operator only moves values, adds zeros to them, or limits them."""
    if is_limit(node):
        return True
    if node.target == aten.pad.default:
        return len(node.args) < 4 or (node.args[2] == "constant" and not node.args[3])
    return node.target in PASSING


def is_rectifier(node: fx.Node) -> bool:
    """Whether a node is a ReLU or a clamp from 0 on, which a range can take in."""
    return node.target == aten.relu.default or (node.target == aten.hardtanh.default and bool(node.args[1] == 0))
