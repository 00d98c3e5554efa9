"""Operators that change a tensor in place -> their pure twins, and wholes put together anew around changed slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from zeroq.errors import CaptureError
from zeroq.graph.constants import is_inplace
from zeroq.graph.refusals import place_in

aten = torch.ops.aten

END = torch.iinfo(torch.int64).max  # of a slice that takes everything
FILLING = {aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default}
# Tensors without values, to be filled part by part: before they are, a range of whatever is there would be measured.
# Each with the twin that holds zeros, and how many arguments that takes: strides are none of them.
DEFINITE: dict[Any, tuple[Any, int]] = {
    aten.empty_like.default: (aten.zeros_like.default, 1), aten.new_empty.default: (aten.new_zeros.default, 2),
    aten.empty.memory_format: (aten.zeros.default, 1), aten.empty_strided.default: (aten.zeros.default, 1),
    aten.new_empty_strided.default: (aten.new_zeros.default, 2),
}  # fmt: skip
Add = Callable[..., fx.Node]  # an operator and its arguments


def make_pure(graph: fx.Graph) -> None:
    """Replace relu_ and its like by their pure twins; later readers of the changed value read the new one.

    So do readers of what the value is a slice of, or a slice of a slice: it is put together anew from what lies before
    the slice, the new values, and what lies behind it.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        make_definite(node)
        if is_inplace(node):
            now = order[node]
            add = adder(graph, node)
            shown = shown_in(node, order)
            if not all(can_be_put_back(*pair) for pair in pairwise(shown)):
                raise CaptureError(cannot_be_untangled(node))
            value = new_value(node, add)
            for part, whole in pairwise(shown):
                value = put_back(part, whole, value, add)
            read_from_now_on(shown[-1], value, order, now)
            for part in reversed(shown[:-1]):  # a view still, as what changes it next changes the whole
                value = add(part.target, value, *part.args[1:])
                read_from_now_on(part, value, order, now)
            if value is not node:
                read_from_now_on(node, value, order, now)
            if is_inplace(node):
                graph.erase_node(node)


def make_definite(node: fx.Node) -> None:
    """Let a tensor without values hold zeros."""
    if node.target in DEFINITE:
        node.target, count = DEFINITE[node.target]
        node.args = node.args[:count]
        if node.target == aten.zeros.default:
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "memory_format"}


def shown_in(node: fx.Node, order: Mapping[fx.Node, int]) -> list[fx.Node]:
    """What an operator changes, and the values that it is a view of, up to the last that others read behind it."""
    path: list[Any] = [node.args[0]]
    while aliases(path[-1]):
        path.append(path[-1].args[0])
    read = [index for index, value in enumerate(path[1:], 1) if read_behind(value, path[index - 1], order, order[node])]
    return path[: max(read, default=0) + 1]


def read_behind(value: fx.Node, besides: fx.Node | None, order: Mapping[fx.Node, int], now: int) -> bool:
    """Whether anything but one view of it reads a value behind a place in the order, perhaps through other views."""
    users = [user for user in value.users if user is not besides and user.target != aten.sym_size.int]
    return any(
        order.get(user, now) > now or (aliases(user) and read_behind(user, None, order, now)) for user in users
    )


def read_from_now_on(before: fx.Node, value: fx.Node, order: Mapping[fx.Node, int], now: int) -> None:
    """Let later readers of a value read another; what was put in meanwhile is none of them."""
    before.replace_all_uses_with(value, delete_user_cb=lambda user: order.get(user, now) > now)


def new_value(node: fx.Node, add: Add) -> fx.Node:
    """What an operator leaves in place of what it changes: itself as its pure twin, or what it assigns."""
    packet, overload = str(node.target).removeprefix("aten.").rsplit(".", 1)
    twin = getattr(getattr(aten, packet.removesuffix("_"), None), overload, None)
    if node.target == aten.copy_.default or node.target in FILLING:
        return assigned(node, add)
    if twin is None or packet == packet.removesuffix("_"):
        raise CaptureError(cannot_be_untangled(node))
    node.target = twin
    return node


def assigned(node: fx.Node, add: Add) -> fx.Node:
    """What `copy_`, `fill_` and `zero_` leave, in the shape and type of what they change."""
    changed, source = [*node.args, 0][:2]
    if not isinstance(source, fx.Node):
        return add(aten.full_like.default, changed, source)
    own, other = changed.meta["val"], source.meta["val"]  # type: ignore[union-attr]
    if other.dtype != own.dtype:
        source = add(aten.to.dtype, source, own.dtype)
    if tuple(other.shape) == tuple(own.shape):
        return add(aten.clone.default, source)  # apart from its source, which may change in turn
    return add(aten.add.Tensor, add(aten.full_like.default, changed, 0), source)


def can_be_put_back(part: fx.Node, whole: fx.Node) -> bool:
    """Whether a view is a slice without gaps, or one place, of an axis that is no batch; or all of one."""
    if part.target not in (aten.slice.Tensor, aten.select.int):
        return False
    axis, *place = part.args[1:]
    numbers = all(isinstance(each, int | None) for each in place) and place[2:] in ([], [1])
    return numbers and (takes_all(part) or isinstance(whole.meta["val"].shape[axis], int))


def takes_all(part: fx.Node) -> bool:
    """Whether a view is a slice of everything."""
    first, last, step = [*part.args[2:], None, None, None][:3]
    return part.target == aten.slice.Tensor and first in (0, None) and last in (END, None) and step in (1, None)


def put_back(part: fx.Node, whole: fx.Node, value: fx.Node, add: Add) -> fx.Node:
    """A whole with new values where a view of it was."""
    if takes_all(part):
        return value
    shape = whole.meta["val"].shape
    number, *place = part.args[1:]
    axis = int(number) % len(shape)  # type: ignore[arg-type]
    if part.target == aten.select.int:
        start = int(place[0]) % shape[axis]  # type: ignore[arg-type]
        stop, value = start + 1, add(aten.unsqueeze.default, value, axis)
    else:
        start, stop, _ = slice(*[*place, None][:2]).indices(shape[axis])
    if stop <= start:  # nothing was changed
        return add(aten.clone.default, whole)
    pieces = [value]
    if start > 0:
        pieces.insert(0, add(aten.slice.Tensor, whole, axis, 0, start))
    if stop < shape[axis]:
        pieces.append(add(aten.slice.Tensor, whole, axis, stop, END))
    return add(aten.cat.default, pieces, axis) if len(pieces) > 1 else value


def adder(graph: fx.Graph, node: fx.Node) -> Add:
    """What adds operators behind a node, one after another."""
    following = node.next

    def add(operator: Any, *arguments: Any) -> fx.Node:
        with graph.inserting_before(following):
            new = graph.call_function(operator, arguments)
        values = fx.node.map_arg(arguments, lambda each: each.meta["val"])
        new.meta = dict(node.meta) | {"val": operator(*values)}
        return new

    return add


def aliases(node: fx.Node) -> bool:
    """Whether an operator gives a view of its first argument."""
    schema: Any = getattr(node.target, "_schema", None)
    viewing = schema is not None and any(argument.alias_info is not None for argument in schema.arguments)
    return viewing and not is_inplace(node)


def cannot_be_untangled(node: fx.Node) -> str:
    """What a person reads of it."""
    return (
        f"The network changes a tensor in place ({node.target}) in a way that cannot be untangled"
        f"{place_in(node)}: write that line without the in-place operation."
    )
