"""What of a quantized network computes in floating point: operators without an integer kernel, by modules."""

from __future__ import annotations

import operator
from collections.abc import Collection

from torch import fx, ops

from zeroq.graph.network import LAYER_OPERATORS, Network, operator_name
from zeroq.graph.replay import is_batch_size
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE
from zeroq.simulate.kernels import BINARY, CONCATENATION, POOLING, PRODUCTS, is_passing

aten = ops.aten

# Operators that onnxruntime runs in integers where quantizers stand before and behind them.
CAPABLE = LAYER_OPERATORS | BINARY | PRODUCTS | POOLING | {
    CONCATENATION, aten.sigmoid.default, aten.leaky_relu.default, aten.softmax.int,
}  # fmt: skip


def float_operators(graph: fx.Graph, network: Network, free: Collection[str] = ()) -> list[tuple[str, str]]:
    """Modules (or steps of the network's own forward pass) that compute in floating point, each with the reason.

    graph: of the quantized network.  network: that it was made from, whose nodes know their modules.
    free: nodes that are not worth naming.
    """
    modules = {node.name: node.meta.get("module") or node.name for node in network.graph.nodes}
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        computes = node.op == "call_function" and node.name in modules and not is_batch_size(node)
        if computes and node.name not in free and is_floating(node):
            names = found.setdefault(modules[node.name], [])
            if operator_name(node) not in names:
                names.append(operator_name(node))
    return [(name, f"{' and '.join(names)} in floating point: {NO_KERNEL}") for name, names in found.items()]


NO_KERNEL = "onnxruntime has no integer kernel for it here"


def is_floating(node: fx.Node) -> bool:
    """Whether a node computes, and not between quantizers; a linear layer may leave its sums in floating point."""
    if node.target in (QUANTIZE_DEQUANTIZE, DEQUANTIZE, operator.getitem) or is_passing(node):
        return False
    if node.target == aten.adaptive_avg_pool2d.default and list(node.args[1]) != [1, 1]:  # type: ignore[arg-type]
        return True  # windows of several sizes are products with matrices
    before = all(source.target in (QUANTIZE_DEQUANTIZE, DEQUANTIZE) for source in node.all_input_nodes)
    behind = all(user.target == QUANTIZE_DEQUANTIZE for user in node.users)
    return not (node.target in CAPABLE and before and (behind or node.target == aten.linear.default))
