"""Run a graph from any value to any other, keeping only what is still needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from zeroq.graph.overwriting import overwritten, write_over

Visit = Callable[[fx.Node, Any], Any]


class Order(NamedTuple):
    """The place of each of a graph's nodes; for each the values that nobody reads behind it, and the place of an
    argument whose memory it may take; names keep no graph alive.
    """

    position: dict[str, int]
    used_up: list[list[str]]
    overwritten: list[int | None]


ORDERS: weakref.WeakKeyDictionary[fx.Graph, Order] = weakref.WeakKeyDictionary()


def replay(
    graph: fx.Graph,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    *,
    after: str | None = None,
    until: str | None = None,
    visit: Visit | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Execute the nodes behind `after` up to and including `until`; give the values that later nodes still need.

    values: those that are live behind `after` (the inputs, if that is None), by node name; what this function
    returned for an earlier stretch can be handed to a later one. The network's result has the name "output".
    visit(node, value) sees every value as it arises, and may give another to take its place. Where nobody sees them,
    nor are gradients asked for, values that arise here are written over by what alone reads them.
    batch: the number of images, where `values` holds no input of the network; by default the first value's.
    """
    nodes = list(graph.nodes)
    position, used_up, overwritable = order_of(graph)
    start = -1 if after is None else position[after]
    stop = len(nodes) - 1 if until is None else position[until]
    live = dict(values)
    images = batch if batch is not None else leading(values)
    unseen = visit is None and not torch.is_grad_enabled()

    def value_of(node: fx.Node) -> Any:
        if node.op == "get_attr":
            return tensors[str(node.target)]
        if is_batch_size(node):
            return images
        return live[node.name]

    for index in range(start + 1, stop + 1):
        node = nodes[index]
        if node.op == "get_attr" or is_batch_size(node) or (node.op == "placeholder" and node.name not in live):
            continue
        if node.op == "placeholder":
            value = live[node.name]
        elif node.op == "output":
            value = fx.node.map_arg(node.args[0], value_of)
        else:
            operator: Any = node.target
            arguments, keywords = fx.node.map_arg(node.args, value_of), fx.node.map_arg(node.kwargs, value_of)
            place = overwritable[index]
            if unseen and place is not None and position[node.args[place].name] > start:
                value = write_over(node, place, arguments, keywords)
            else:
                value = operator(*arguments, **keywords)
        if visit is not None:
            replaced = visit(node, value)
            value = value if replaced is None else replaced
        live[node.name] = value
        for name in used_up[index]:
            if name != until:
                live.pop(name, None)
    return live


def order_of(graph: fx.Graph) -> Order:
    """Kept, for a walk through a long graph asks at each of its steps; graphs are never changed in place."""
    if graph not in ORDERS:
        last_use = {argument.name: index for index, node in enumerate(graph.nodes) for argument in node.all_input_nodes}
        used_up: list[list[str]] = [[] for _ in graph.nodes]
        for name, index in last_use.items():
            used_up[index].append(name)
        position = {node.name: index for index, node in enumerate(graph.nodes)}
        ORDERS[graph] = Order(position, used_up, [overwritten(node) for node in graph.nodes])
    return ORDERS[graph]


def is_batch_size(node: fx.Node) -> bool:
    """Whether a node asks for the number of images: computed anew in every run, for runs may stack images."""
    return node.target == torch.ops.aten.sym_size.int and bool(node.args[1] == 0)


def leading(values: Mapping[str, Any]) -> int:
    """Length of the first axis of the first tensor."""
    return next(int(value.shape[0]) for value in values.values() if isinstance(value, Tensor))
