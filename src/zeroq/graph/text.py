"""A graph of operators as plain data and back, so that a saved network needs no pickle and no code of its user."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from zeroq.errors import RunError


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
    """An operator by its registered name, "aten::conv2d.default"; an attribute or input by its own."""
    if node.op != "call_function":
        return str(node.target)
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return "getitem"
    return f"{schema.name}.{schema.overload_name or 'default'}"


def operator(name: str) -> Any:
    """The operator of that registered name."""
    if name == "getitem":
        import operator as builtin

        return builtin.getitem
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
        return {"dict": {key: encode(item) for key, item in value.items()}}
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
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
    return {key: decode(item, nodes) for key, item in value["dict"].items()}
