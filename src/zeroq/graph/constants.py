"""Tensors that the forward pass fills in by itself, the same for every input: computed once, and stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.purity import aliases, is_inplace, is_view

aten = torch.ops.aten

MAKERS = {  # of a tensor from numbers alone
    aten.zeros.default, aten.ones.default, aten.full.default, aten.arange.default, aten.arange.start,
    aten.arange.start_step, aten.scalar_tensor.default, aten.eye.default, aten.linspace.default,
}  # fmt: skip
MAKERS_LIKE = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default}  # of another tensor's type


def store_constants(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Replace tensors that are the same for every input and are changed through views by stored ones.

    Attention within windows fills its mask so, slice by slice, or clears a part of a copied bias: each change goes
    through a view, which no rewriting of single operators could untangle. A reader gets the value as it was when it
    read. Constants that nothing changes stay as they are.
    """
    constant = find_constants(graph)
    changed = {owner(node) for node in constant if is_inplace(node) and is_view(node.args[0])}  # type: ignore[arg-type]
    if not changed:
        return
    values: dict[fx.Node, Tensor] = {}
    stored: dict[str, Tensor] = {}

    def value_of(node: fx.Node) -> Tensor:
        return values[node] if node in values else tensors[str(node.target)]

    for node in list(graph.nodes):
        if node in constant:
            values[node] = evaluate(node, value_of)
        if owner(node) in changed:
            continue
        for argument in [each for each in node.all_input_nodes if owner(each) in changed]:
            name = store(values[argument], stored, name_of(owner(argument)))
            with graph.inserting_before(node):
                attribute = graph.get_attr(name)
            attribute.meta = dict(argument.meta)
            node.replace_input_with(argument, attribute)
    for node in reversed(list(graph.nodes)):
        if owner(node) in changed or (not node.users and (node in constant or node.op == "get_attr")):
            graph.erase_node(node)
    tensors.update(stored)


def find_constants(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that are the same for every input: no views of stored tensors, and no memory that others change."""
    excluded: set[fx.Node] = set()  # makers of memory that something else is written into
    while True:
        constant: set[fx.Node] = set()
        for node in graph.nodes:
            inputs = node.all_input_nodes
            computed = inputs and all(each in constant or each.op == "get_attr" for each in inputs)
            made = (is_maker(node) or computed) and owner(node) not in excluded and owner(node).op != "get_attr"
            random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            if node.op == "call_function" and made and not random and isinstance(node.meta.get("val"), Tensor):
                constant.add(node)
        written = (node.args[0] for node in graph.nodes if is_inplace(node) and node not in constant)
        others = {owner(target) for target in written if target in constant}
        if not others:
            return constant
        excluded |= others


def is_maker(node: fx.Node) -> bool:
    """Whether a node makes a tensor from numbers that do not depend on the batch."""
    if node.target in MAKERS_LIKE:
        return all(not isinstance(each, fx.Node) for each in flat([node.args[1:], node.kwargs]))
    return node.target in MAKERS and not node.all_input_nodes


def flat(value: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value, is_leaf=lambda each: isinstance(each, fx.Node))


def owner(node: fx.Node) -> fx.Node:
    """The node that made the memory of which a node's value is a view."""
    while aliases(node) or is_inplace(node):
        node = node.args[0]  # type: ignore[assignment]
    return node


def evaluate(node: fx.Node, value_of: Any) -> Tensor:
    """A constant node's value; views of it see later changes, as in the user's program."""
    operator: Any = node.target
    if node.target in MAKERS_LIKE:
        like: Any = node.args[0].meta["val"]  # type: ignore[union-attr]
        return operator(torch.empty(0, dtype=like.dtype), *node.args[1:], **node.kwargs)
    return operator(*fx.node.map_arg(node.args, value_of), **fx.node.map_arg(node.kwargs, value_of))


def name_of(made: fx.Node) -> str:
    """What a changed tensor is called: as the stored one that it is a copy of, if nothing else reads that."""
    sources = made.all_input_nodes if made.target not in MAKERS_LIKE else []
    if len(sources) == 1 and sources[0].op == "get_attr" and list(sources[0].users) == [made]:
        return str(sources[0].target)
    return f"constants/{made.name}"


def store(value: Tensor, stored: dict[str, Tensor], name: str) -> str:
    """The name under which a value is stored as it is now; an equal one is not stored again."""
    for known, other in stored.items():
        if other.dtype == value.dtype and torch.equal(other, value):
            return known
    while name in stored:
        name += "_later"
    stored[name] = value.detach().clone()
    return name
