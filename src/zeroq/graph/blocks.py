"""Blocks of a network: stretches between values on which alone everything behind them depends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import fx

from zeroq.graph.network import Layer
from zeroq.graph.replay import is_batch_size


@dataclass(frozen=True)
class Block:
    """A stretch of a graph, found from the graph alone: residual branches, branches that are concatenated."""

    start: str | None  # the node that is all it reads; None: the network's inputs
    end: str | None  # the node that is all that is read behind it; None: the network's outputs
    layers: tuple[Layer, ...]  # all of whose sites lie in it

    def within(self, names: Sequence[str]) -> Sequence[str]:
        """Of the names of all nodes, in order, those of its own: behind its start, with its end."""
        first = 0 if self.start is None else names.index(self.start) + 1
        last = len(names) if self.end is None else names.index(self.end) + 1
        return names[first:last]


def blocks_of(graph: fx.Graph, layers: Sequence[Layer], may_end: Callable[[fx.Node], bool]) -> tuple[Block, ...]:
    """The shortest blocks that each hold a site of a layer; one for all where nothing separates any.

    layers: in order of execution.  may_end: whether a value may be a border; it is asked of `bottlenecks` alone.
    The last block reaches to all outputs. A layer whose sites lie in several blocks belongs to none.
    """
    nodes = list(graph.nodes)
    position = {node.name: index for index, node in enumerate(nodes)}
    sites = [position[site] for layer in layers for site in layer.sites]
    borders: list[int] = [-1]
    for name in bottlenecks(graph):
        here = position[name]
        apart = any(borders[-1] < site <= here for site in sites) and any(site > here for site in sites)
        if apart and may_end(nodes[here]):
            borders.append(here)
    names = [nodes[here].name for here in borders[1:]]
    stretches = zip([None, *names], [*names, None], itertools.pairwise([*borders, len(nodes)]), strict=True)
    return tuple(
        Block(start, end, tuple(layer for layer in layers if all(low < position[site] <= high for site in layer.sites)))
        for start, end, (low, high) in stretches
    )


def bottlenecks(graph: fx.Graph) -> list[str]:
    """Nodes behind which their value is all that is still read of inputs and computed values, in order of execution.

    Stored tensors and the number of images do not count: `replay` looks them up anew.
    """
    nodes = list(graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    behind = max(last_use[node] for node in nodes if node.op == "placeholder")  # that values so far are read at
    found = []
    for node in nodes:
        if node.op in ("placeholder", "get_attr") or is_batch_size(node):
            continue
        if behind <= position[node] < last_use[node]:
            found.append(node.name)
        behind = max(behind, last_use[node])
    return found
