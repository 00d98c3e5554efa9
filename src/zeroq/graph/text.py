"""A graph of operators as plain data and back, so that a saved network needs no pickle and no code of its user."""

from __future__ import annotations

import math
import operator as builtin
from typing import Any

import torch
from torch import fx

from zeroq.errors import CaptureError, RunError

# What a program asks of tuples and computes of the number of images, by the names it is written with.
PLAIN_FUNCTIONS: dict[str, Any] = {
    "getitem": builtin.getitem, "add": builtin.add, "sub": builtin.sub, "mul": builtin.mul, "neg": builtin.neg,
    "floordiv": builtin.floordiv, "truediv": builtin.truediv, "mod": builtin.mod, "pow": builtin.pow,
    "floor": math.floor, "ceil": math.ceil, "trunc": math.trunc, "sym_int": torch.sym_int,
    "sym_float": torch.sym_float, "sym_max": torch.sym_max, "sym_min": torch.sym_min,
}  # fmt: skip
NAMES = {function: name for name, function in PLAIN_FUNCTIONS.items()}


def graph_to_data(graph: fx.Graph) -> list[list[Any]]:
    """Nodes in order, each [kind, name, target, arguments, keywords]; a node as an argument is {"node": name}."""
    return [
        [node.op, node.name, target_name(node), encode(list(node.args)), encode(dict(node.kwargs))]
        for node in graph.nodes
    ]


def graph_from_data(data: list[list[Any]]) -> fx.Graph:
    """The graph that graph_to_data wrote. Operators of other packages than torch and zeroq are refused."""
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for kind, name, target, arguments, keywords in data:
        made = operator(target) if kind == "call_function" else target
        node = graph.create_node(kind, made, tuple(decode(arguments, nodes)), decode(keywords, nodes), name=name)
        nodes[name] = node
    graph.lint()
    return graph


def target_name(node: fx.Node) -> str:
    """An operator by its registered name, "aten::conv2d.default"; an attribute or input by its own.

    Raises CaptureError for a function that is no operator, nor one of PLAIN_FUNCTIONS.
    """
    if node.op != "call_function":
        return str(node.target)
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return f"{schema.name}.{schema.overload_name or 'default'}"
    if node.target not in NAMES:
        raise CaptureError(
            f"The network computes {getattr(node.target, '__name__', node.target)} of the number of images, which "
            "cannot be stored: let sizes follow from the shapes of tensors (-1 in a reshape)."
        )
    return NAMES[node.target]


def operator(name: str) -> Any:
    """The operator of that registered name."""
    if name in PLAIN_FUNCTIONS:
        return PLAIN_FUNCTIONS[name]
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.rpartition(".")
    if namespace not in ("aten", "zeroq"):
        raise RunError(f"The saved network uses the operator {name}, which this version does not know.")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload)


def encode(value: Any) -> Any:
    """Arguments as JSON: nodes, types and layouts become small dictionaries."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):  # which JSON would turn into words
            return {"items": [[key, encode(item)] for key, item in value.items()]}
        return {"dict": {key: encode(item) for key, item in value.items()}}
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, complex):
        raise CaptureError(
            f"The network computes with the complex number {value}: compute with real and imaginary parts apart."
        )
    return value


def decode(value: Any, nodes: dict[str, fx.Node]) -> Any:
    """The inverse of encode()."""
    if isinstance(value, list):
        return [decode(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    if "node" in value:
        return nodes[value["node"]]
    if "torch" in value:
        return getattr(torch, value["torch"])
    if "device" in value:
        return torch.device(value["device"])
    if "items" in value:
        return {key: decode(item, nodes) for key, item in value["items"]}
    return {key: decode(item, nodes) for key, item in value["dict"].items()}
