"""What depends on stored tensors alone is computed once, when the network is captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# They read no more of their first argument than its type.
NEW = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default}


def compute_constants(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Weight normalisation, position tables, masks that are filled part by part: each becomes a stored tensor.

    Nodes run in order as they would in PyTorch, those that change a constant in place among them, so that each reader
    gets what it would have seen. A constant that something else than constants changes in place is none.
    """
    kept = {storage(value) for value in tensors.values()}  # of the user's module: never changed here
    values: dict[fx.Node, Any] = {}
    stored: dict[tuple[fx.Node, int], fx.Node] = {}
    made: dict[str, fx.Node] = {}  # computed tensor -> the node that it replaces

    def attribute(node: fx.Node) -> fx.Node:
        """A constant, as it is now, as a stored tensor; what is no tensor stays."""
        value = values[node]
        if not isinstance(value, Tensor):
            return node
        version = 0 if value.is_inference() else value._version
        if (node, version) not in stored:
            name = f"computed/{node.name}"
            name = name if name not in tensors else f"{name}_{version}"
            tensors[name], made[name] = value.detach().clone(), node
            stored[node, version] = graph.get_attr(name)
            stored[node, version].meta = dict(node.meta)
        return stored[node, version]

    for node in list(graph.nodes):
        sources = node.all_input_nodes
        if node.op == "get_attr":
            values[node] = tensors[str(node.target)]
        elif is_constant(node, values, kept):
            values[node] = evaluate(node, values)
        else:
            if is_inplace(node):
                forget(values, node.args[0])
            for source in sources:
                if source in values and source.op != "get_attr":
                    with graph.inserting_before(node):
                        node.replace_input_with(source, attribute(source))
    origin = origins(made)
    for node in reversed(list(graph.nodes)):
        if node in values and not node.users:
            graph.erase_node(node)
    name_computed(graph, tensors, origin)


def forget(values: dict[fx.Node, Any], changed: Any) -> None:
    """A constant that is changed by what is none, and all that shares memory with it, is constant no more."""
    memory = storage(values.get(changed))
    for node in [each for each, value in values.items() if each.op != "get_attr" and storage(value) == memory != 0]:
        del values[node]


def is_inplace(node: fx.Node) -> bool:
    """Whether an operator changes its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def storage(value: Any) -> int:
    """Which memory a value lies in; several views share one."""
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0


def is_constant(node: fx.Node, values: dict[fx.Node, Any], kept: set[int]) -> bool:
    """Whether a node can be computed now: from constants alone, without chance, and changing nothing of the user's."""
    if node.op != "call_function" or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return False
    if is_inplace(node) and storage(values.get(node.args[0])) in kept | {0}:  # type: ignore[arg-type]
        return False
    sources = node.all_input_nodes[1:] if node.target in NEW else node.all_input_nodes
    made_from_nothing = not sources and not isinstance(node.meta.get("val"), Tensor)
    return all(source in values for source in sources) and not made_from_nothing


def evaluate(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """A node's value from those of its arguments; of what is only asked for its type, an empty tensor."""
    operator: Callable[..., Any] = node.target  # type: ignore[assignment]
    like = node.meta.get("val")

    def value(source: fx.Node) -> Any:
        return values[source] if source in values else torch.empty(0, dtype=like.dtype)  # type: ignore[union-attr]

    with torch.no_grad():
        return operator(*fx.node.map_arg(node.args, value), **fx.node.map_arg(node.kwargs, value))


def origins(made: dict[str, fx.Node]) -> dict[str, str]:
    """Computed tensor -> the stored one that it comes from: a weight, else the first; nothing for what has none."""
    found = {}
    for name, node in made.items():
        sources, waiting, seen = [], [node], set()
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                sources += [str(each.target)] if each.op == "get_attr" else []
                waiting += reversed(each.all_input_nodes)
        if sources:
            found[name] = next((source for source in sources if source.endswith("weight")), sources[0])
    return found


def name_computed(graph: fx.Graph, tensors: dict[str, Tensor], origin: dict[str, str]) -> None:
    """Name computed tensors like the parameters of the user's module: those of weight_norm become "conv.weight"."""
    taken = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        if node.op != "get_attr" or node.target not in origin:
            continue
        wanted = parameter_name(origin[node.target])
        name = wanted if wanted not in taken else f"{wanted}_{str(node.target).partition('/')[2]}"
        taken.add(name)
        tensors[name] = tensors.pop(node.target)
        node.target = name


def parameter_name(stored: str) -> str:
    """The parameter that PyTorch's parametrizations compute from a stored tensor; other names as they are."""
    module, parametrized, rest = stored.partition("parametrizations.")
    if parametrized:
        return module + rest.partition(".")[0]
    return next((stored.removesuffix(end) for end in ("_orig", "_g", "_v") if stored.endswith(f"weight{end}")), stored)
