"""A network as values: a graph of pure ATen operators, its tensors, and what was found in it."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.places import on_device
from zeroq.graph.products import multiply_accumulates
from zeroq.graph.replay import replay

aten = torch.ops.aten

CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
LINEAR = aten.linear.default
LAYER_OPERATORS = CONVOLUTIONS | {LINEAR}
BATCH_NORM = aten.batch_norm.default
RECTIFIERS = {aten.relu.default, aten.hardtanh.default}  # ReLU, and clamps between two constants
LIMIT = aten.clamp.Tensor  # bounds for each channel: a rectifier whose BatchNorm is folded into the layer before it


@dataclass(frozen=True)
class Layer:
    """A weight parameter together with the nodes that use it."""

    name: str  # the module's path: "stage1.0.conv1"
    weight: str  # key in Network.tensors
    biases: tuple[str | None, ...]  # of each site: layers that share a weight may have their own
    operator: str  # "conv2d", "linear", ...
    sites: tuple[str, ...]  # names of the nodes that use the weight, in order of execution
    shape: tuple[int, ...]  # of the weight, output channels first (in a folded network: it has no transposed ones)
    groups: int
    multiply_accumulates: int  # per image, over all sites

    @property
    def bias(self) -> str | None:
        """The bias of its first site, which most layers have alone."""
        return self.biases[0]

    @property
    def parameters(self) -> int:
        """Number of weights, without biases."""
        return math.prod(self.shape)

    @property
    def depthwise(self) -> bool:
        """Whether every filter sees a single channel."""
        return self.operator != "linear" and self.groups > 1 and self.shape[1] == 1


@dataclass(frozen=True)
class Norm:
    """A BatchNorm with running statistics: the layer whose output it alone consumes, if there is one.

    Between the two there may be a rectifier.
    """

    node: str
    input: str  # the node whose value it normalises
    layer: str | None
    site: str | None  # of that layer
    mean: Tensor  # [channels]
    variance: Tensor  # [channels]
    epsilon: float


@dataclass(frozen=True)
class Network:
    """A graph of pure ATen operators with its tensors; graphs are never changed in place, but copied."""

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    example: tuple[Tensor, ...]  # inputs of batch 2
    shapes: Mapping[str, tuple[int, ...]]  # of every tensor value, without the batch
    layers: tuple[Layer, ...]  # in order of execution, by their first sites
    norms: tuple[Norm, ...]
    not_quantized: tuple[tuple[str, str], ...]  # (name, reason)
    products: Mapping[str, int] = field(default_factory=dict)  # multiply-accumulates per image of two computed values
    whole: frozenset[str] = frozenset()  # values of integers or truths, which nothing quantizes

    def node(self, name: str) -> fx.Node:
        """The node of that name."""
        return next(node for node in self.graph.nodes if node.name == name)

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the network's inputs."""
        return tuple(node.name for node in self.graph.nodes if node.op == "placeholder")

    def feed(self, values: Iterable[Tensor]) -> dict[str, Tensor]:
        """One value for each input, by the inputs' names."""
        return dict(zip(self.inputs, values, strict=True))

    def run(self, *inputs: Tensor) -> Any:
        """The network's output."""
        return replay(self.graph, self.tensors, self.feed(inputs))["output"]

    def to(self, device: torch.device) -> Network:
        """The same network, its tensors on a device; itself where they are."""
        if self.example[0].device == device:
            return self
        return replace(
            self,
            graph=on_device(self.graph, device),
            tensors={name: tensor.to(device) for name, tensor in self.tensors.items()},
            example=tuple(value.to(device) for value in self.example),
            norms=tuple(
                replace(norm, mean=norm.mean.to(device), variance=norm.variance.to(device)) for norm in self.norms
            ),
        )

    def with_tensors(self, changed: Mapping[str, Tensor]) -> Network:
        """The same graph with some tensors replaced by others of the same shape."""
        return replace(self, tensors={**self.tensors, **changed})


def describe(graph: fx.Graph, tensors: Mapping[str, Tensor], example: tuple[Tensor, ...]) -> Network:
    """Find layers, BatchNorms and shapes in a graph of pure operators, by one pass over the example."""
    shapes: dict[str, tuple[int, ...]] = {}
    full: dict[str, tuple[int, ...]] = {}  # with the batch
    products: dict[str, int] = {}
    whole: set[str] = set()

    def note(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor):
            shapes[node.name], full[node.name] = tuple(value.shape[1:]), tuple(value.shape)
            if not value.is_floating_point():
                whole.add(node.name)
            if count := multiply_accumulates(node, full[node.name], full):
                products[node.name] = count // len(example[0])

    names = [node.name for node in graph.nodes if node.op == "placeholder"]
    with torch.inference_mode():
        replay(graph, tensors, dict(zip(names, example, strict=True)), visit=note)
    layers, others = find_layers(graph, tensors, shapes)
    norms = find_norms(graph, tensors, layers)
    network = Network(graph, tensors, example, shapes, layers, norms, (), products, frozenset(whole))
    return replace(network, not_quantized=(*others, *unfolded_norms(network)))


def find_layers(
    graph: fx.Graph, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[Layer, ...], tuple[tuple[str, str], ...]]:
    """Layers that can run in integers, and every other use of a stored tensor with the reason why not."""
    sites: dict[str, list[fx.Node]] = {}
    others: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "call_function" or is_norm(node):
            continue
        weighted = node.target in LAYER_OPERATORS | TRANSPOSED
        for argument in node.all_input_nodes:
            if argument.op != "get_attr" or (weighted and argument in node.args[2:]):
                continue
            if weighted and argument is node.args[1]:
                sites.setdefault(str(argument.target), []).append(node)
            elif (limited := LIMIT_NAME.fullmatch(str(argument.target))) is not None:
                others[limited[1]] = LIMITED
            else:
                reason = f"{operator_name(node)} with a stored tensor has no integer kernel"
                others[layer_name(str(argument.target))] = reason
    names = collections.Counter(map(layer_name, sites))
    layers = tuple(
        make_layer(layer_name(weight) if names[layer_name(weight)] == 1 else weight, weight, nodes, tensors, shapes)
        for weight, nodes in sites.items()
    )
    return layers, tuple(others.items())


LIMIT_NAME = re.compile(r"(.*)\.(?:lower|upper)_limit")  # of what fold() stores
LIMITED = "a ReLU before a BatchNorm becomes a limit for each channel, in floating point"
UNFOLDED = "a BatchNorm that the layer before it cannot take in is an affine step in floating point"


def unfolded_norms(network: Network) -> list[tuple[str, str]]:
    """BatchNorms that leave a step in floating point, by the path of their module, with the reason."""
    folded = {norm.node: norm for norms in foldable(network).values() for norm in norms}
    limits = {norm_name(network, norm): LIMITED for norm in folded.values() if norm.input != norm.site}
    others = {norm_name(network, norm): UNFOLDED for norm in network.norms if norm.node not in folded}
    return [*limits.items(), *others.items()]


def norm_name(network: Network, norm: Norm) -> str:
    """The path of a BatchNorm's module."""
    mean: Any = network.node(norm.node).args[3]
    return str(mean.target).removesuffix(".running_mean")


def norm_places(network: Network) -> dict[str, list[int]]:
    """The places in network.norms of each BatchNorm, by the path of its module: several where it runs several times."""
    found: dict[str, list[int]] = {}
    for index, norm in enumerate(network.norms):
        found.setdefault(norm_name(network, norm), []).append(index)
    return found


def foldable(network: Network) -> dict[str, tuple[Norm, ...]]:
    """Layers that can take in the BatchNorms behind them, with these: one behind each site, all of the same numbers.

    Rectifiers before them must be alike, too, and the layer's weight must have no other reader. A linear layer's
    channels are its last axis, a BatchNorm's the second: the two must be one.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    found = {}
    for layer in network.layers:
        norms = tuple(norm for norm in network.norms if norm.layer == layer.name)
        sites = [nodes[site] for site in layer.sites]
        alike = len({str((nodes[norm.node].args[1:5], norm.epsilon, between(nodes, norm))) for norm in norms}) == 1
        readers = {user for site in sites for user in site.args[1].users}
        second = layer.operator != "linear" or all(len(network.shapes[site]) == 1 for site in layer.sites)
        alike = alike and len(set(layer.biases)) == 1
        if alike and second and len(norms) == len(sites) and readers == set(sites):
            found[layer.name] = norms
    return found


def between(nodes: Mapping[str, fx.Node], norm: Norm) -> tuple[Any, ...]:
    """The rectifier between a BatchNorm and its layer: the operator and its bounds; () where there is none."""
    node = nodes[norm.input]
    return () if norm.input == norm.site else (node.target, *node.args[1:])


def make_layer(
    name: str,
    weight: str,
    nodes: list[fx.Node],
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> Layer:
    """The layer of one weight and the nodes that use it."""
    first = nodes[0]
    biases = [node.args[2] if len(node.args) > 2 else None for node in nodes]
    shape = tuple(tensors[weight].shape)
    groups = int(first.args[6]) if first.target != LINEAR and len(first.args) > 6 else 1  # type: ignore[arg-type]
    # Each value that a transposed convolution reads, or that another layer gives, takes part in a filter's products.
    counted: list[Any] = [node.args[0] if node.target in TRANSPOSED else node for node in nodes]
    positions = sum(math.prod(shapes[value.name]) // shape[0] for value in counted)
    return Layer(
        name=name,
        weight=weight,
        biases=tuple(str(bias.target) if isinstance(bias, fx.Node) else None for bias in biases),
        operator=operator_name(first),
        sites=tuple(node.name for node in nodes),
        shape=shape,
        groups=groups,
        multiply_accumulates=positions * math.prod(shape),
    )


def find_norms(graph: fx.Graph, tensors: Mapping[str, Tensor], layers: tuple[Layer, ...]) -> tuple[Norm, ...]:
    """BatchNorms with running statistics, each with the layer whose only consumer it is."""
    layer_of = {site: layer.name for layer in layers for site in layer.sites}
    norms = []
    for node in graph.nodes:
        if not is_norm(node):
            continue
        source = node.args[0]
        site = source.args[0] if source.target in RECTIFIERS and len(source.users) == 1 else source
        alone = site.name in layer_of and len(site.users) == 1
        norms.append(
            Norm(
                node=node.name,
                input=source.name,
                layer=layer_of[site.name] if alone else None,
                site=site.name if alone else None,
                mean=tensors[str(node.args[3].target)],
                variance=tensors[str(node.args[4].target)],
                epsilon=float(node.args[7]),
            )
        )
    return tuple(norms)


def is_norm(node: fx.Node) -> bool:
    """Whether a node is a BatchNorm that uses stored statistics (not those of its batch)."""
    return node.target == BATCH_NORM and node.args[5] is False and node.args[3] is not None


def layer_name(attribute: str) -> str:
    """The module's path of a weight or bias: "stage1.0.conv1.weight" -> "stage1.0.conv1"."""
    return attribute.removesuffix(".weight").removesuffix(".bias")


def operator_name(node: fx.Node) -> str:
    """An operator's plain name: aten.conv2d.default -> "conv2d"."""
    schema = getattr(node.target, "_schema", None)
    return getattr(node.target, "__name__", str(node.target)) if schema is None else str(schema.name).split("::")[1]
