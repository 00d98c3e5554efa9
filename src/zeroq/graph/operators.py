"""Operators in one form: each rewriting turns the ways to write a thing into the one that later stages know."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.errors import CaptureError
from zeroq.graph.network import CONVOLUTIONS, LIMIT, RECTIFIERS, TRANSPOSED
from zeroq.graph.refusals import place_in

aten = torch.ops.aten


def name_rectifiers(graph: fx.Graph) -> None:
    """Write every ReLU as aten.relu, every clamp between two constants as aten.hardtanh."""
    for node in graph.nodes:
        if node.target == aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
        elif node.target == aten.hardtanh.default:
            node.args = (*node.args, *(-1.0, 1.0)[len(node.args) - 1 :])
        elif node.target in (aten.clamp_min.default, aten.threshold.default) and all(
            bound == 0 for bound in node.args[1:]
        ):
            node.target, node.args = aten.relu.default, (node.args[0],)
        elif node.target == aten.clamp.default:
            low, high = (list(node.args[1:]) + [None, None])[:2]
            if low == 0 and high is None:
                node.target, node.args = aten.relu.default, (node.args[0],)
            elif isinstance(low, int | float) and isinstance(high, int | float):
                node.target, node.args = aten.hardtanh.default, (node.args[0], float(low), float(high))


def limits_of_all(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
    """Write a clamp between tensors as the greater and the lesser of two, but for one with two numbers a channel.

    Those alone are limits as rectifiers before a BatchNorm become them (`graph.fold`), whose channels have factors.
    """
    for node in [each for each in graph.nodes if each.target == LIMIT]:
        value, *bounds = node.args
        shape = value.meta["val"].shape
        stored = [bound for bound in bounds if bound is not None]
        channels = (*shape[1:2], *[1] * (len(shape) - 2))
        if all(bound.op == "get_attr" and tuple(tensors[bound.target].shape) == channels for bound in stored):
            continue
        with graph.inserting_before(node):
            for operator_, bound in zip((aten.maximum.default, aten.minimum.default), [*bounds, None], strict=False):
                if bound is not None:
                    value = graph.call_function(operator_, (value, bound))
                    value.meta = dict(node.meta)
        node.replace_all_uses_with(value)
        graph.erase_node(node)


def rounded_quotients(graph: fx.Graph) -> None:
    """Write every floor division as aten.div with a rounding, which has a derivative: zero."""
    for node in graph.nodes:
        if node.target in (aten.floor_divide.default, aten.floor_divide.Scalar):
            other = aten.div.Tensor_mode if isinstance(node.args[1], fx.Node) else aten.div.Scalar_mode
            node.target, node.kwargs = other, {"rounding_mode": "floor"}


def merge_rectifiers(graph: fx.Graph) -> None:
    """Bring rectifiers to the layers that can take them in: before what only moves values, before concatenations.

    ReLU of what a rectifier gave is that; ReLU6 of a ReLU is a ReLU6.
    """
    waiting = [node for node in graph.nodes if node.target in RECTIFIERS]
    while waiting:
        node = waiting.pop()
        source = node.args[0]
        if source.target in RECTIFIERS and lowest(source) >= 0 and node.target == aten.relu.default:
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        elif source.target == aten.relu.default and lowest(node) == 0:
            node.args = (source.args[0], *node.args[1:])
        elif (source.target == aten.cat.default or (source.target in MOVING and lowest(node) == 0)) and len(
            source.users
        ) == 1:
            joined = source.target == aten.cat.default
            with graph.inserting_before(source):
                parts = source.args[0] if joined else [source.args[0]]
                made = [graph.call_function(node.target, (part, *node.args[1:])) for part in parts]
            source.args = (made if joined else made[0], *source.args[1:])
            source.meta = dict(node.meta)
            node.replace_all_uses_with(source)
            graph.erase_node(node)
            waiting += made
    for node in reversed(list(graph.nodes)):
        if node.target in RECTIFIERS and not node.users:
            graph.erase_node(node)


MOVING = {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.reshape.default, aten.transpose.int, aten.permute.default, aten.slice.Tensor, aten.pixel_shuffle.default,
    aten.channel_shuffle.default,
}  # fmt: skip


def lowest(rectifier: fx.Node) -> float:
    """The least value that a ReLU or clamp gives."""
    return 0.0 if rectifier.target == aten.relu.default else float(rectifier.args[1])  # type: ignore[arg-type]


def spatial_mean(graph: fx.Graph) -> None:
    """The mean over height and width, or over a volume, is average pooling, which has an integer kernel."""
    for node in list(graph.nodes):
        if node.target != aten.mean.dim or (value := node.args[0].meta.get("val")) is None:
            continue
        dimensions = value.dim()
        axes = sorted(axis % dimensions for axis in node.args[1])
        if axes not in ([2, 3], [2, 3, 4]) or axes[-1] != dimensions - 1:
            continue
        keep = len(node.args) > 2 and node.args[2]
        sides = [int(side) for side in value.shape[2:]] if dimensions == 5 else []
        with graph.inserting_before(node):
            pooled = (
                graph.call_function(aten.avg_pool3d.default, (node.args[0], sides, sides))
                if sides
                else graph.call_function(aten.adaptive_avg_pool2d.default, (node.args[0], [1, 1]))
            )
            channels = int(value.shape[1])
            result = pooled if keep else graph.call_function(aten.reshape.default, (pooled, [-1, channels]))
        result.meta = dict(node.meta)
        node.replace_all_uses_with(result)
        graph.erase_node(node)


def explicit_padding(graph: fx.Graph) -> None:
    """Convolutions with padding "same" or "valid" become those with numbers; an odd rest becomes a pad before them."""
    plain = {
        aten.conv1d.padding: aten.conv1d.default,
        aten.conv2d.padding: aten.conv2d.default,
        aten.conv3d.padding: aten.conv3d.default,
    }
    for node in list(graph.nodes):
        if node.target not in plain:
            continue
        kernel = node.args[1].meta["val"].shape[2:]
        filled = list(node.args) + [None, [1], "valid", [1], 1][len(node.args) - 2 :]
        source, weight, bias, stride, mode, dilation, groups = filled
        stride, dilation = ([*value] * len(kernel) if len(value) == 1 else [*value] for value in (stride, dilation))
        total = [step * (size - 1) if mode == "same" else 0 for step, size in zip(dilation, kernel, strict=True)]
        if any(surplus % 2 for surplus in total):
            sides = [side for surplus in reversed(total) for side in (surplus // 2, surplus - surplus // 2)]
            with graph.inserting_before(node):
                source = graph.call_function(aten.pad.default, (source, sides))
            total = [0] * len(kernel)
        node.target = plain[node.target]
        node.args = (source, weight, bias, stride, [surplus // 2 for surplus in total], dilation, groups)


def refuse_groups_of_images(graph: fx.Graph) -> None:
    """Raise CaptureError for convolutions that have a group for each image, to filter each by weights of its own."""
    for node in graph.nodes:
        if node.target in CONVOLUTIONS | TRANSPOSED and any(isinstance(each, fx.Node) for each in node.args[6:]):
            raise CaptureError(
                f"The network convolves each image with weights of its own{place_in(node)}, in as many groups as there "
                "are images, which ONNX does not know: write it as a product of these weights and of the images' "
                "patches (torch.nn.functional.unfold, torch.matmul)."
            )


def adaptive_pooling(graph: fx.Graph) -> None:
    """Adaptive pooling whose windows are all alike is ordinary pooling; to 1 x 1 it stays, as global pooling.

    Average pooling with unlike windows stays as well. Raises CaptureError for max-pooling with unlike windows.
    """
    for node in list(graph.nodes):
        if node.target not in ADAPTIVE:
            continue
        source, sizes = node.args[0], list(node.args[1])
        have = [int(size) for size in source.meta["val"].shape[-len(sizes) :]]
        average = node.target in AVERAGING
        uneven = any(size % wanted for size, wanted in zip(have, sizes, strict=True))
        if uneven and not average:
            raise CaptureError(
                f"Adaptive max-pooling from {have} to {sizes} has windows of several sizes, which ONNX does not know: "
                "choose sizes that divide the input's."
            )
        if uneven or (node.target == aten.adaptive_avg_pool2d.default and sizes == [1, 1] and have != [1, 1]):
            continue
        window = [size // wanted for size, wanted in zip(have, sizes, strict=True)]
        result = source
        if set(window) != {1}:
            with graph.inserting_before(node):
                result = graph.call_function(ADAPTIVE[node.target], (source, window, window))
            result.meta = {"val": node.meta["val"] if average else node.meta["val"][0]}
        for user in list(node.users) if not average else []:  # (values, indices): the values alone are read
            if user.args[1] != 0:
                raise CaptureError("The network reads where adaptive max-pooling found its values: ONNX cannot tell.")
            user.replace_all_uses_with(result)
            graph.erase_node(user)
        node.replace_all_uses_with(result)
        graph.erase_node(node)


AVERAGING = {
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
}  # fmt: skip
ADAPTIVE = {
    aten.adaptive_avg_pool1d.default: aten.avg_pool1d.default,
    aten.adaptive_avg_pool2d.default: aten.avg_pool2d.default,
    aten.adaptive_avg_pool3d.default: aten.avg_pool3d.default,
    aten.adaptive_max_pool1d.default: aten.max_pool1d.default,
    aten.adaptive_max_pool2d.default: aten.max_pool2d.default,
    aten.adaptive_max_pool3d.default: aten.max_pool3d.default,
}


def split_into_slices(graph: fx.Graph) -> None:
    """Parts of a split or chunk become slices, each a value that is moved as others are."""
    for node in list(graph.nodes):
        if node.target not in SPLITS or any(user.target != operator.getitem for user in node.users):
            continue
        axis = node.args[2] if len(node.args) > 2 else 0
        axis %= node.args[0].meta["val"].dim()
        sizes = [int(part.shape[axis]) for part in node.meta["val"]] if axis else []  # the batch is not ours to split
        for user in list(node.users) if axis else []:
            index = user.args[1] % len(sizes)
            bounds = (sum(sizes[:index]), sum(sizes[: index + 1]))
            user.target, user.args = aten.slice.Tensor, (node.args[0], axis, *bounds)
        if not node.users:
            graph.erase_node(node)


def unbind_into_selections(graph: fx.Graph) -> None:
    """Parts of an unbound value become selections, which are moved as other values are."""
    for node in list(graph.nodes):
        if node.target != aten.unbind.int or any(user.target != operator.getitem for user in node.users):
            continue
        axis = node.args[1] if len(node.args) > 1 else 0
        for user in list(node.users):
            user.target, user.args = aten.select.int, (node.args[0], axis, user.args[1])
        graph.erase_node(node)


def bags_of_embeddings(graph: fx.Graph) -> None:
    """Bags of as many entries for each image, [N, entries], become a lookup and its sum, mean or maximum.

    Raises CaptureError for others, which ONNX does not know.
    """
    for node in list(graph.nodes):
        if node.target not in BAGS:
            continue
        filled = [*node.args, *(None, False, 0, False, None, False, None)[len(node.args) - 2 :]]
        table, flat, _, _, mode, _, weights, _, padding = filled
        rows = flat.args[0] if flat.target == aten.reshape.default else None
        even = rows is not None and len(rows.meta["val"].shape) == 2 and weights is None and padding in (None, -1)
        if not even or any(user.args[1] != 0 for user in node.users if user.users):
            raise CaptureError(
                f"The network looks up bags of embeddings{place_in(node)} that differ in their number of entries, or "
                "weighs or leaves out some, which ONNX does not know: write an Embedding and the sum over its entries."
            )
        with graph.inserting_before(node):
            entries = graph.call_function(aten.embedding.default, (table, rows))
            found = graph.call_function(POOLED[mode], (entries, [1]))
        entries.meta = found.meta = {**node.meta, "val": node.meta["val"][0]}
        for user in list(node.users):
            user.replace_all_uses_with(found)
            graph.erase_node(user)
        graph.erase_node(node)


BAGS = {aten.embedding_bag.default, aten.embedding_bag.padding_idx}
POOLED = {0: aten.sum.dim_IntList, 1: aten.mean.dim, 2: aten.amax.default}
SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes}


def matrix_products(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Products with a stored matrix are linear layers, with or without a stored vector that is added."""
    products = [node for node in graph.nodes if is_matrix_product(node, tensors)]
    turned: dict[str, fx.Node] = {}

    def turn(before: fx.Node, value: Tensor) -> fx.Node:
        """A node for the other form of a stored tensor, by the same name if nothing reads the first form."""
        name = str(before.target)
        if name not in turned:
            key = name if set(before.users) <= set(products) else f"{name}_turned"
            tensors[key] = value.contiguous()
            with graph.inserting_after(before):
                turned[name] = graph.get_attr(key)
        return turned[name]

    for node in products:
        *bias, source, matrix = node.args
        arguments = [source, turn(matrix, tensors[matrix.target].T)]
        arguments += [turn(each, tensors[each.target].flatten()) for each in bias]
        node.target, node.args = aten.linear.default, tuple(arguments)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)


def is_matrix_product(node: Any, tensors: dict[str, Tensor]) -> bool:
    """Whether a node is x W or b + x W with a stored matrix W and a stored vector b, [out] or [1, out]."""
    if node.target not in (aten.matmul.default, aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    *bias, source, matrix = node.args
    if matrix.op != "get_attr" or source.op == "get_attr" or tensors[matrix.target].dim() != 2:
        return False
    return all(
        each.op == "get_attr" and tensors[each.target].numel() == tensors[matrix.target].shape[1] for each in bias
    )
