"""Where operators make tensors of their own: the device that a graph names."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree


def on_device(graph: fx.Graph, device: torch.device) -> fx.Graph:
    """A copy whose operators make their tensors on a device; the graph itself where none names one."""
    if not any(isinstance(leaf, torch.device) for node in graph.nodes for leaf in leaves(node)):
        return graph
    changed = copy.deepcopy(graph)
    for node in changed.nodes:
        node.args, node.kwargs = fx.node.map_aggregate(
            (node.args, node.kwargs), lambda leaf: device if isinstance(leaf, torch.device) else leaf
        )
    return changed


def leaves(node: fx.Node) -> list[Any]:
    """All that a node's operator is given."""
    return pytree.tree_leaves((list(node.args), dict(node.kwargs)))
