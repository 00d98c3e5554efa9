"""What one step of distillation cannot do without: multiply-accumulates and bytes, operator by operator.

A step is a pass forward through the network up to its last BatchNorm, a pass backward to the images (weights have no
gradients), and Adam's step. Each operator reads its operands and writes its result once in either direction, in the
precision of the run; nothing is fused and nothing stays in a cache.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from zeroq.distillation.measuring import is_measured, measuring_graph
from zeroq.graph import Network
from zeroq.graph.network import LAYER_OPERATORS, TRANSPOSED

CONVOLUTIONS, DEPTHWISE, STATISTICS, ACTIVATIONS, OPTIMISER, REST = (
    "convolutions", "depthwise convolutions", "statistics and BatchNorms", "activations", "optimiser", "rest",
)  # fmt: skip
KINDS = (CONVOLUTIONS, DEPTHWISE, STATISTICS, ACTIVATIONS, OPTIMISER, REST)
RECTIFYING = {  # functions of one value, by the letters of their names
    *("relu", "hardtanh", "relu6", "silu", "hardswish", "sigmoid", "hardsigmoid", "gelu", "leakyrelu", "elu", "prelu"),
    *("tanh", "clamp", "mish", "threshold"),
}
VIEWS = {  # that compute nothing
    *("reshape", "view", "flatten", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice", "select"),
    *("split", "splitwithsizes", "chunk", "getitem", "dropout", "symsize", "alias", "detach"),
}
FLOAT = 4  # bytes; images and what Adam keeps of them are in 32 bits


@dataclass(frozen=True)
class Pass:
    """One operator in one direction."""

    kind: str  # of KINDS
    multiply_accumulates: int  # per image
    bytes_per_image: int
    bytes_of_weights: int = 0  # read once for all images

    def bytes_moved(self, images: int) -> int:
        return images * self.bytes_per_image + self.bytes_of_weights


def passes_of(network: Network, value_bytes: int) -> list[Pass]:
    """All of a step; value_bytes: of one value in the precision of the run."""
    graph = measuring_graph(network)
    found = [each for node in graph.nodes for each in of_node(network, node, value_bytes)]
    added = sum(max(0, readers(node) - 1) * elements(network, node) for node in graph.nodes)
    images = of_images(math.prod(network.example[0].shape[1:]), value_bytes)
    return [*found, Pass(REST, 0, 3 * added * value_bytes), *images]  # gradients of values that several read are added


def of_node(network: Network, node: fx.Node, value_bytes: int) -> Iterator[Pass]:
    """Forward and backward; nothing of what computes nothing."""
    if node.op != "call_function" or word(node) in VIEWS or not elements(network, node):
        return
    result = elements(network, node)
    read = sum(elements(network, each) for each in node.all_input_nodes if each.op != "get_attr")
    if is_measured(node):  # backward: both gradients and the input that moments were taken of
        yield Pass(STATISTICS, 0, 2 * result * value_bytes)
        yield Pass(STATISTICS, 0, 3 * result * value_bytes)
    elif (weights := weights_of(network, node)) is not None:
        of_weights = math.prod(weights) * value_bytes
        depthwise = any(layer.depthwise for layer in network.layers if node.name in layer.sites)
        kind = DEPTHWISE if depthwise else CONVOLUTIONS
        each = Pass(kind, products(network, node, weights), (read + result) * value_bytes, of_weights)
        yield from (each, each)
    elif word(node) in RECTIFYING:
        yield Pass(ACTIVATIONS, 0, (read + result) * value_bytes)
        yield Pass(ACTIVATIONS, 0, (2 * read + result) * value_bytes)
    else:
        count = network.products.get(node.name, 0)
        yield Pass(REST, count, (read + result) * value_bytes)
        if word(node) not in ("add", "cat"):  # whose gradients are handed on as they are
            yield Pass(REST, 2 * count, (read + result) * value_bytes)


def of_images(values: int, value_bytes: int) -> list[Pass]:
    """What is done to the images themselves, of so many values each."""
    return [
        Pass(REST, 0, 2 * values * (FLOAT + value_bytes)),  # into the precision of the run, and their gradient back
        Pass(STATISTICS, 0, values * FLOAT),  # their own moments,
        Pass(STATISTICS, 0, 2 * values * FLOAT),  # and the gradient of these
        Pass(OPTIMISER, 0, 7 * values * FLOAT),  # reads the gradient, writes and reads images and both of Adam's means
    ]


def weights_of(network: Network, node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the stored weight of a convolution or linear layer."""
    weight = node.args[1] if node.target in LAYER_OPERATORS | TRANSPOSED else None
    stored = isinstance(weight, fx.Node) and weight.op == "get_attr"
    return tuple(network.tensors[str(weight.target)].shape) if stored and isinstance(weight, fx.Node) else None


def products(network: Network, node: fx.Node, weights: tuple[int, ...]) -> int:
    """Multiply-accumulates per image of a layer whose weight has that shape."""
    across = node.all_input_nodes[0] if node.target in TRANSPOSED else node
    return elements(network, across) * math.prod(weights[1:])


def elements(network: Network, node: fx.Node) -> int:
    """Values per image of a node's result; 0 where it is none that images have, such as their number."""
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node) and is_measured(node.args[0]):
        return elements(network, node.args[0]) if node.args[1] == 0 else 0
    return math.prod(network.shapes[node.name]) if node.name in network.shapes else 0


def readers(node: fx.Node) -> int:
    """How many operators a value's gradient comes from; the three results of a BatchNorm are its own affair."""
    return 0 if is_measured(node) else len([user for user in node.users if user.op == "call_function"])


def word(node: fx.Node) -> str:
    """What an operator is called, its letters alone."""
    name = str(node.target).split(".")[1] if "." in str(node.target) else getattr(node.target, "__name__", "")
    return letters(name)


def letters(name: str) -> str:
    """A name in one spelling, of graph and profiler: "hardtanh_", "HardTanh" -> "hardtanh"."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
