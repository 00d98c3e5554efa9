"""Transposed convolutions as convolutions: one for each phase of the output, side by side as channels.

onnxruntime has no integer kernel for ConvTranspose, but for Conv. With stride s, value s m + r of the output (before
padding is cut off) is the sum over j of x[m - j] w[r + s j]: for each phase r a convolution with every s-th tap,
turned. What they give lies side by side as channels, [N, C s s, H, W], and is woven into [N, C, s H, s W].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

PLAIN: dict[Any, Any] = {
    aten.conv_transpose1d.default: aten.conv1d.default,
    aten.conv_transpose2d.input: aten.conv2d.default,
    aten.conv_transpose3d.input: aten.conv3d.default,
}


@dataclass(frozen=True)
class Settings:
    """Of a transposed convolution, one number for each spatial axis; and its groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    dilation: tuple[int, ...]

    @property
    def phases(self) -> int:
        """Convolutions that together give one output channel."""
        return math.prod(self.stride)


@dataclass(frozen=True)
class Axis:
    """One spatial axis: zeros in front and behind, what is kept of the woven values, and how many a phase gives."""

    front: int
    behind: int
    start: int
    stop: int
    positions: int


def into_phases(graph: fx.Graph, tensors: dict[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Replace every transposed convolution that has a stored weight, exactly.

    shapes: of every value, without the batch. A weight keeps its name in its new form. Taps that a phase lacks are
    zeros: a kernel of 3 with stride 2 has 16 weights in place of 9; one that the stride divides stays as large.
    """
    sites = [node for node in graph.nodes if is_transposed(node)]
    sizes = {node: shapes[node.all_input_nodes[0].name][1:] for node in sites}  # one may read what another gave
    turned: dict[str, Tensor] = {}
    for node in sites:
        settings = settings_of(node, tensors)
        weight, bias = (*node.args[1:], None)[:2]
        _, outputs, *kernel = tensors[weight.target].shape
        axes = [
            along_axis(settings, index, size, length)
            for index, (size, length) in enumerate(zip(sizes[node], kernel, strict=True))
        ]
        stored = {weight: phase_weights(tensors[weight.target], settings)}
        if bias is not None:
            stored[bias] = tensors[bias.target].repeat_interleave(settings.phases)
        with graph.inserting_before(node):
            names = [new_name(before, settings, tensors) for before in stored]
            turned |= dict(zip(names, stored.values(), strict=True))
            attributes = [graph.get_attr(name) for name in names]
            result = insert(graph, node, attributes, outputs * settings.groups, settings, axes)
        result.meta = dict(node.meta)
        node.replace_all_uses_with(result)
    tensors |= turned  # only now, as several sites may read one weight
    for node in sites:
        graph.erase_node(node)


def is_transposed(node: fx.Node) -> bool:
    """Whether a node is a transposed convolution with a stored weight."""
    return node.target in PLAIN and node.args[1].op == "get_attr"  # type: ignore[union-attr]


def new_name(before: fx.Node, settings: Settings, tensors: Mapping[str, Tensor]) -> str:
    """Of a stored tensor in its new form: its own, unless something else reads it in its old one."""
    alone = all(is_transposed(user) and settings_of(user, tensors) == settings for user in before.users)
    if alone:
        return str(before.target)
    steps = ["x".join(map(str, each)) for each in (settings.stride, settings.dilation)]
    return f"{before.target}_in_phases_{'_'.join(steps)}"


def settings_of(node: fx.Node, tensors: Mapping[str, Tensor]) -> Settings:
    """Those of a transposed convolution, what its call leaves out among them."""
    axes = tensors[str(node.args[1].target)].dim() - 2  # type: ignore[union-attr]
    given: list[Any] = [*node.args[3:]]
    stride, padding, output_padding, groups, dilation = given + [[1], [0], [0], 1, [1]][len(given) :]
    each = [tuple(numbers) * (axes // len(numbers)) for numbers in (stride, padding, output_padding, dilation)]
    return Settings(each[0], each[1], each[2], int(groups), each[3])


def phase_weights(weight: Tensor, settings: Settings) -> Tensor:
    """[inputs, outputs / groups, *kernel] -> [outputs * phases, inputs / groups, *taps of a phase]."""
    axes, groups = len(settings.stride), settings.groups
    for axis, (stride, dilation) in enumerate(zip(settings.stride, settings.dilation, strict=True)):
        length = weight.shape[axis + 2]
        sizes = list(weight.shape)
        sizes[axis + 2] = stride * taps(length, dilation, stride)
        spread = weight.new_zeros(sizes)
        spread.index_copy_(axis + 2, torch.arange(length) * dilation, weight)
        weight = spread
    for axis, stride in reversed(list(enumerate(settings.stride))):
        weight = weight.unflatten(axis + 2, (-1, stride)).flip(axis + 2)  # [..., taps, phases, ...]
    weight = weight.unflatten(0, (groups, -1))  # [groups, inputs, outputs, taps, phases, taps, phases, ...]
    phases, rest = [4 + 2 * axis for axis in range(axes)], [3 + 2 * axis for axis in range(axes)]
    return weight.permute(0, 2, *phases, 1, *rest).flatten(0, 1 + axes).contiguous()


def taps(length: int, dilation: int, stride: int) -> int:
    """Taps of each phase of a kernel."""
    return math.ceil((dilation * (length - 1) + 1) / stride)


def along_axis(settings: Settings, index: int, size: int, length: int) -> Axis:
    """What an axis of `size` values needs for a kernel of `length`; see Axis."""
    stride, padding, dilation = settings.stride[index], settings.padding[index], settings.dilation[index]
    reach = taps(length, dilation, stride) - 1  # values before its own that a position reads
    whole = (size - 1) * stride - 2 * padding + dilation * (length - 1) + 1 + settings.output_padding[index]
    front = max(reach - padding // stride, 0)
    first = reach - front
    positions = math.ceil((padding + whole) / stride) - first
    behind = max(positions - front - size + reach, 0)
    start = padding - stride * first
    return Axis(front, behind, start, start + whole, front + size + behind - reach)


def insert(
    graph: fx.Graph, node: fx.Node, stored: list[fx.Node], channels: int, settings: Settings, axes: list[Axis]
) -> fx.Node:
    """Padding where its sides differ, the convolution of all phases, and what weaves and cuts its output."""
    source: Any = node.args[0]
    common = [min(axis.front, axis.behind) for axis in axes]
    uneven = [(axis.front - both, axis.behind - both) for axis, both in zip(axes, common, strict=True)]
    if any(side for sides in uneven for side in sides):
        source = graph.call_function(aten.pad.default, (source, [side for sides in reversed(uneven) for side in sides]))
    ones = [1] * len(axes)
    weight, bias = (*stored, None)[:2]
    arguments = (source, weight, bias, ones, common, ones, settings.groups)
    convolved = graph.call_function(PLAIN[node.target], arguments)
    result = weave(graph, convolved, channels, settings.stride, [axis.positions for axis in axes])
    for index, axis in enumerate(axes):
        if axis.start or axis.stop < axis.positions * settings.stride[index]:
            result = graph.call_function(aten.slice.Tensor, (result, index + 2, axis.start, axis.stop))
    return result


def weave(graph: fx.Graph, node: fx.Node, channels: int, strides: tuple[int, ...], positions: list[int]) -> fx.Node:
    """[N, channels * phases, *positions] -> [N, channels, *(positions * strides)]."""
    if set(strides) == {1}:
        return node
    if len(strides) == 2 and len(set(strides)) == 1:
        return graph.call_function(aten.pixel_shuffle.default, (node, strides[0]))
    count = len(strides)
    apart = graph.call_function(aten.reshape.default, (node, [-1, channels, *strides, *positions]))
    order = [0, 1, *(axis for index in range(count) for axis in (2 + count + index, 2 + index))]
    turned = graph.call_function(aten.permute.default, (apart, order))
    sizes = [stride * size for stride, size in zip(strides, positions, strict=True)]
    return graph.call_function(aten.reshape.default, (turned, [-1, channels, *sizes]))
