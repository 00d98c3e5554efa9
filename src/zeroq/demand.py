"""What a run will hold in memory, in bytes, from its network's graph: before any of it is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from zeroq.candidates import HELD_OUT
from zeroq.distillation import BATCH_BYTES
from zeroq.graph import Layer, Network, replay
from zeroq.graph.blocks import Block
from zeroq.graph.network import is_norm
from zeroq.graph.replay import order_of
from zeroq.preparation import Prepared, any_ranges
from zeroq.ranges.channels import AT_ONCE, BINNING_BYTES, BINS
from zeroq.rounding.moments import ROWS_PER_IMAGE
from zeroq.rounding.reconstruction import blocks_between
from zeroq.rounding.task import OUTPUT
from zeroq.simulate import quantize_activations
from zeroq.simulate.quantized_network import value_of

aten = torch.ops.aten
KEEP_RESULTS = {aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.softmax.int}  # and not what they read
KEEP_NOTHING = KEEP_RESULTS | {
    aten.add.Tensor, aten.cat.default, aten.reshape.default, aten.view.default, aten.flatten.using_ints,
}  # fmt: skip


@dataclass(frozen=True)
class Rounding:
    """What rounding one layer needs, in bytes."""

    live: int  # of one image: values that are kept while the layer is rounded, in both walks
    moments: int  # a matrix [columns, columns] for each group
    patches: int  # of one image, those that are taken


@dataclass(frozen=True)
class Learning:
    """What learning one block needs, in bytes."""

    live: int  # of one image: values at its borders, which are kept of all images
    values: int  # of one image: all values in it
    weights: int


@dataclass(frozen=True)
class Demand:
    """What a run needs, in bytes; of one image where it says so."""

    images: int
    rounded: int  # images and their variants that weights are rounded on
    widths: int  # that a layer may have; 1 where none has a choice
    pixels: int  # of one image
    values: int  # of one image: all values, as distillation counts those of a batch
    backward: int  # of one image: those that its backward pass keeps
    floating: int  # of one image: values that are live at once in floating point
    quantized: int  # of one image: the same, with quantizers
    gradients: int  # of one image: all values in floating point, and as many gradients
    largest: int  # of one image: the largest value
    output: int  # of one image
    integers: int  # of one image: all quantized numbers, one byte each
    weights: int  # of the whole network, in floating point
    bins: int  # of values whose channels may have factors
    binning: int  # what it takes to put numbers into them
    layers: tuple[Rounding, ...]  # in order of execution
    blocks: tuple[Learning, ...] = ()  # that are reconstructed, in order of execution

    @property
    def batch_images(self) -> int:
        """That are distilled together without a limit."""
        return max(1, min(self.images, int(BATCH_BYTES / self.values)))


def demand_of(prepared: Prepared) -> Demand:
    """Measured on the network's own example, whose values are computed once; ranges do not matter for that."""
    options, network, folded = prepared.options, prepared.network, prepared.folded
    effort = prepared.effort
    if prepared.pictures is not None:
        images = len(prepared.pictures)
    else:
        images = effort.images if options.images is None else options.images
    graph, tensors, names = quantize_activations(
        folded, prepared.placement, any_ranges(prepared), prepared.plan.input_bits
    )
    floating = sizes(folded.graph, folded.tensors, folded.example)
    quantized = sizes(graph, tensors, folded.example)
    captured = sizes(network.graph, network.tensors, network.example)
    shares = 2 if options.precision == "bf16" else 1
    kept = dict(left(graph, quantized)), dict(left(folded.graph, floating))
    blocks = blocks_between(folded, graph, prepared.plan.layers) if options.reconstruction else ()
    sources = {node.name: node.all_input_nodes[0].name for node in graph.nodes if node.all_input_nodes}
    binned = [folded.shapes[value] for values in prepared.scalable.values() for value in values]
    numbers = [max(AT_ONCE, math.prod(shape)) + BINS * shape[0] for shape in binned]  # beside those in bins already
    rounded = min(effort.rounded, images - images // HELD_OUT)
    return Demand(
        images=images,
        rounded=rounded if prepared.pictures is not None else 2 * rounded,
        widths=most_widths(prepared),
        pixels=sum(value[0].numel() * value.element_size() for value in network.example),
        values=sum(4 * math.prod(shape) for shape in network.shapes.values()) // shares,
        backward=sum(captured.get(name, 0) for name in kept_backward(network)) // shares,
        floating=most_live(folded.graph, floating),
        quantized=most_live(graph, quantized),
        gradients=2 * sum(floating.values()),
        largest=max(floating.values()),
        output=floating["output"],
        integers=sum(quantized[name] for name in names) // 4,
        weights=sum(value.numel() * value.element_size() for value in network.tensors.values()),
        bins=sum(8 * BINS * shape[0] for shape in binned),
        binning=BINNING_BYTES * max(numbers, default=0),
        layers=tuple(rounding_of(layer, sources[layer.sites[0]], kept) for layer in prepared.plan.layers),
        blocks=tuple(learning_of(block, graph, quantized, floating, kept) for block in blocks),
    )


def rounding_of(layer: Layer, source: str, kept: Sequence[Mapping[str, int]]) -> Rounding:
    """Of a layer whose first site reads the quantizer `source`; kept: behind each node, in each of the walks."""
    columns = math.prod(layer.shape[1:])
    quantized, floating = kept
    return Rounding(
        live=max(quantized[source], quantized[layer.sites[0]]) + floating[layer.sites[0]],
        moments=4 * layer.groups * columns**2,
        patches=4 * layer.groups * columns * ROWS_PER_IMAGE,
    )


def learning_of(
    block: Block,
    graph: fx.Graph,
    quantized: Mapping[str, int],
    floating: Mapping[str, int],
    kept: Sequence[Mapping[str, int]],
) -> Learning:
    """Of one block of a graph with quantizers.

    quantized, floating: bytes of every value of one image, with them and without.  kept: as in `rounding_of`.
    """
    if block.start is None:
        given = sum(quantized[node.name] for node in graph.nodes if node.op == "placeholder")
    else:
        given = kept[0][block.start] + floating[value_of(block.start)]
    return Learning(
        live=given + kept[1][OUTPUT if block.end is None else value_of(block.end)],
        values=sum(quantized[name] for name in block.within(list(quantized))),
        weights=4 * sum(layer.parameters for layer in block.layers),
    )


def sizes(graph: fx.Graph, tensors: Mapping[str, Tensor], example: tuple[Tensor, ...]) -> dict[str, int]:
    """Bytes of every value of one image, by node."""
    found: dict[str, int] = {}

    def note(node: fx.Node, value: Any) -> None:
        leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        found[node.name] = math.ceil(sum(leaf.numel() * leaf.element_size() for leaf in leaves) / len(example[0]))

    inputs = [node.name for node in graph.nodes if node.op == "placeholder"]
    with torch.inference_mode():
        replay(graph, tensors, dict(zip(inputs, example, strict=True)), visit=note)
    return found


def kept_backward(network: Network) -> list[str]:
    """Values that the gradient of the images is computed from: up to the last BatchNorm, if there is one."""
    nodes = [node for node in network.graph.nodes if node.op in ("placeholder", "call_function")]
    last = max((index for index, node in enumerate(nodes) if is_norm(node)), default=len(nodes) - 1)
    within = set(nodes[: last + 1])
    return [
        node.name
        for node in nodes[: last + 1]
        if node.target in KEEP_RESULTS or any(user.target not in KEEP_NOTHING for user in node.users if user in within)
    ]


def most_live(graph: fx.Graph, sizes: Mapping[str, int]) -> int:
    """The most bytes that a run of a graph holds at once, while a node runs."""
    behind = dict(left(graph, sizes))
    before = dict(zip(behind, [0, *behind.values()], strict=False))
    return max(before[name] + sizes.get(name, 0) for name in behind)


def left(graph: fx.Graph, sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Each node with the bytes that are left behind it: of values that later ones read."""
    now = 0
    for node, done in zip(graph.nodes, order_of(graph).used_up, strict=True):
        now += sizes.get(node.name, 0) - sum(sizes.get(name, 0) for name in done)
        yield node.name, now


def most_widths(prepared: Prepared) -> int:
    """How many candidates a layer has at once, at most."""
    return max(len(own) for own in (*prepared.plan.widths.values(), *prepared.plan.input_widths.values()))
