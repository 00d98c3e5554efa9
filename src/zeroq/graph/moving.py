"""Steps that only move values, or do nothing, in the words that later stages know.

A step of another name would stand between quantizers as if it computed; onnxruntime moves it or takes it away, and with
it the quantizer that the step before it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def name_moves(graph: fx.Graph) -> None:
    """Write every transposition as aten.transpose or aten.permute, every part of an axis as aten.slice."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.target in MOVES and isinstance(value, Tensor) and not node.kwargs:
            node.target, node.args = MOVES[node.target](value.dim(), *node.args)


def swapped(axes: int, source: fx.Node, one: int = -2, other: int = -1) -> tuple[Any, tuple[Any, ...]]:
    """Two axes."""
    return aten.transpose.int, (source, one, other)


def moved(axes: int, source: fx.Node, before: Any, behind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Some axes to other places, the rest in order."""
    origins, places = (
        [axis % axes for axis in ([each] if isinstance(each, int) else each)] for each in (before, behind)
    )
    rest = iter(axis for axis in range(axes) if axis not in origins)
    order = [origins[places.index(place)] if place in places else next(rest) for place in range(axes)]
    return aten.permute.default, (source, order)


def part(axes: int, source: fx.Node, axis: int, start: Any, length: Any) -> tuple[Any, tuple[Any, ...]]:
    """Some of an axis."""
    if not (isinstance(start, int) and isinstance(length, int)):
        return aten.narrow.default, (source, axis, start, length)
    size = source.meta["val"].shape[axis]
    start = start if start >= 0 else start + int(size)
    return aten.slice.Tensor, (source, axis, start, start + length)


MOVES: dict[Any, Callable[..., tuple[Any, tuple[Any, ...]]]] = {
    **dict.fromkeys((aten.swapaxes.default, aten.swapdims.default), swapped),
    **dict.fromkeys((aten.mT.default, aten.mH.default, aten.adjoint.default), swapped),
    **dict.fromkeys((aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist), moved),
    aten.narrow.default: part,
}


def changes_nothing(node: fx.Node) -> bool:
    """Whether a step of arithmetic gives what it is given: times or by one, and zero more or less."""
    neutral = NEUTRAL.get(node.target)
    if neutral is None or len(node.args) != 2 or node.kwargs or isinstance(node.args[1], fx.Node):
        return False
    return bool(node.args[1] == neutral) and same_kind(node, node.args[0])


NEUTRAL: dict[Any, int] = {aten.mul.Tensor: 1, aten.div.Tensor: 1, aten.add.Tensor: 0, aten.sub.Tensor: 0}


def same_kind(first: fx.Node, second: Any) -> bool:
    """Whether two values have the same type and shape."""
    one, other = first.meta.get("val"), second.meta.get("val")
    return (
        isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape
    )
