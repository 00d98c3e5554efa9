"""Operators that write over what they alone read: memory that is taken anew costs a large value more than computing it.

Values are those of the pure operators to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.products import EVERY_CONVOLUTION

aten = torch.ops.aten

IN_PLACE: dict[Any, Any] = {
    aten.relu.default: aten.relu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.silu.default: aten.silu_.default,
    aten.hardswish.default: aten.hardswish_.default,
    aten.gelu.default: aten.gelu_.default,
    aten.add.Tensor: aten.add_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
}
SYMMETRIC = {aten.add.Tensor, aten.mul.Tensor}
# What gives memory of its own, which it shares with no other value.
OWNING = {*EVERY_CONVOLUTION, aten.linear.default, aten.batch_norm.default, *IN_PLACE}


def overwritten(node: fx.Node) -> int | None:
    """The place among a node's arguments of a value that nobody else reads and that its own may take the memory of."""
    places = () if node.target not in IN_PLACE else (0, 1) if node.target in SYMMETRIC and not node.kwargs else (0,)
    for place in places:
        value = node.args[place]
        if isinstance(value, fx.Node) and value.target in OWNING and len(value.users) == 1:
            return place
    return None


def write_over(node: fx.Node, place: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """What a node gives, in the memory of one of its arguments where that is of the form that a new one would have."""
    own, others = arguments[place], arguments[:place] + arguments[place + 1 :]
    if own.is_floating_point() and all(alike(own, other) for other in others if isinstance(other, Tensor)):
        return IN_PLACE[node.target](own, *others, **keywords)
    return node.target(*arguments, **keywords)  # type: ignore[operator]


def alike(value: Tensor, other: Tensor) -> bool:
    """Whether two values agree in shape, in their order in memory and in type, so that their sum does too."""
    return value.dtype == other.dtype and value.shape == other.shape and value.stride() == other.stride()
