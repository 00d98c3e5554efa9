"""Graphs of torch.export -> graphs of pure operators in one form, so that later stages meet each thing once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zeroq.errors import CaptureError

aten = torch.ops.aten

NO_OPERATION = {
    aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.alpha_dropout.default,
    aten.alias.default, aten.contiguous.default, aten.detach.default, aten.detach_.default, aten.clone.default,
    aten.lift_fresh_copy.default,
}  # fmt: skip


def canonicalise(graph: fx.Graph, tensors: dict[str, Tensor]) -> tuple[fx.Graph, dict[str, Tensor]]:
    """Apply every rewriting below, in order, to the graph as torch.export gave it (which is used up)."""
    remove_guards(graph)
    make_pure(graph)
    for rewrite in (
        remove_no_operations,
        free_batch,
        name_rectifiers,
        merge_rectifiers,
        spatial_mean,
        explicit_padding,
    ):
        rewrite(graph)
    fold_constants(graph, tensors)
    unwrap_output(graph)
    for node in graph.nodes:
        node.meta = {}
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return graph, {name: value for name, value in tensors.items() if name in used}


def remove_guards(graph: fx.Graph) -> None:
    """Drop checks of shapes, which have no value that others use."""
    for node in reversed(list(graph.nodes)):
        idle = node.op in ("call_module", "call_function", "get_attr") and not node.users
        if idle and not is_inplace(node):
            graph.erase_node(node)


def is_inplace(node: fx.Node) -> bool:
    """Whether an operator changes its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def make_pure(graph: fx.Graph) -> None:
    """Replace relu_ and its like by their pure twins; later readers of the changed value read the new one."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not is_inplace(node):
            continue
        packet, overload = str(node.target).removeprefix("aten.").rsplit(".", 1)
        twin = getattr(getattr(aten, packet.removesuffix("_"), None), overload, None)
        changed = node.args[0]
        if twin is None or packet == packet.removesuffix("_") or is_view(changed):
            raise CaptureError(
                f"The network changes a tensor in place ({node.target}) in a way that cannot be untangled: "
                "write that line without the in-place operation."
            )
        node.target = twin
        changed.replace_all_uses_with(node, delete_user_cb=lambda user, at=order[node]: order[user] > at)


def is_view(node: fx.Node) -> bool:
    """Whether a value shares memory with one that others still read."""
    aliases = getattr(node.target, "_schema", None) is not None and any(
        argument.alias_info is not None
        for argument in node.target._schema.arguments  # type: ignore[union-attr]
    )
    return aliases and not is_inplace(node) and len(node.args[0].users) > 1  # type: ignore[union-attr]


def remove_no_operations(graph: fx.Graph) -> None:
    """Drop dropout of evaluation, copies, casts to the type that a value has, and slices that take everything."""
    for node in list(graph.nodes):
        nothing = node.target in NO_OPERATION and not (node.target in DROPOUTS and node.args[2] is True)
        if node.target == aten.slice.Tensor:
            start, stop, step = (list(node.args[2:]) + [None, None, 1])[:3] if len(node.args) < 5 else node.args[2:5]
            nothing = (start in (None, 0)) and (stop is None or stop == torch.iinfo(torch.int64).max) and step == 1
        if node.target in CASTS:
            nothing = same_kind(node, node.args[0])
        if nothing:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


DROPOUTS = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.alpha_dropout.default}
CASTS = {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default}


def same_kind(first: fx.Node, second: Any) -> bool:
    """Whether two values have the same type and shape."""
    one, other = first.meta.get("val"), second.meta.get("val")
    return (
        isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape
    )


RESHAPING = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.unflatten.int,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
}  # fmt: skip


def free_batch(graph: fx.Graph) -> None:
    """Write every view as a reshape whose one axis that depends on the batch is -1: it holds for stacked batches."""
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if node.target not in RESHAPING or not isinstance(value, Tensor):
            continue
        sizes = [
            -1 if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None else int(size)
            for size in value.shape
        ]
        if sizes.count(-1) <= 1:
            node.target, node.args = aten.reshape.default, (node.args[0], sizes)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)


def name_rectifiers(graph: fx.Graph) -> None:
    """Write every ReLU as aten.relu, every clamp between two constants as aten.hardtanh."""
    for node in graph.nodes:
        if node.target == aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
        elif node.target in (aten.clamp_min.default, aten.threshold.default) and all(
            bound == 0 for bound in node.args[1:]
        ):
            node.target, node.args = aten.relu.default, (node.args[0],)
        elif node.target == aten.clamp.default:
            low, high = (list(node.args[1:]) + [None, None])[:2]
            if low == 0 and high is None:
                node.target, node.args = aten.relu.default, (node.args[0],)
            elif low is not None and high is not None:
                node.target, node.args = aten.hardtanh.default, (node.args[0], float(low), float(high))


def merge_rectifiers(graph: fx.Graph) -> None:
    """ReLU of a ReLU is a ReLU; ReLU of a concatenation is the concatenation of ReLUs, which layers can take in."""
    for node in list(graph.nodes):
        if node.target != aten.relu.default:
            continue
        source = node.args[0]
        if source.target == aten.relu.default or (source.target == aten.hardtanh.default and source.args[1] >= 0):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        elif source.target == aten.cat.default and len(source.users) == 1:
            with graph.inserting_before(source):
                parts = [graph.call_function(aten.relu.default, (part,)) for part in source.args[0]]
            source.args = (parts, *source.args[1:])
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def spatial_mean(graph: fx.Graph) -> None:
    """The mean over height and width is global average pooling, which has an integer kernel."""
    for node in list(graph.nodes):
        if node.target != aten.mean.dim or (value := node.args[0].meta.get("val")) is None or value.dim() != 4:
            continue
        axes = sorted(axis % 4 for axis in node.args[1])
        if axes != [2, 3]:
            continue
        keep = len(node.args) > 2 and node.args[2]
        with graph.inserting_before(node):
            pooled = graph.call_function(aten.adaptive_avg_pool2d.default, (node.args[0], [1, 1]))
            channels = int(value.shape[1])
            result = pooled if keep else graph.call_function(aten.reshape.default, (pooled, [-1, channels]))
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


def fold_constants(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Compute once what depends on stored tensors alone (weight normalisation, position tables)."""

    def stored(source: fx.Node) -> Tensor:
        return tensors[str(source.target)]

    for node in list(graph.nodes):
        sources = node.all_input_nodes
        if node.op != "call_function" or not sources or any(source.op != "get_attr" for source in sources):
            continue
        operator: Any = node.target
        value = operator(*fx.node.map_arg(node.args, stored), **fx.node.map_arg(node.kwargs, stored))
        if not isinstance(value, Tensor):
            continue
        name = f"{sources[0].target}.{node.name}"
        tensors[name] = value.detach()
        with graph.inserting_before(node):
            attribute = graph.get_attr(name)
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)


def unwrap_output(graph: fx.Graph) -> None:
    """A single output stands by itself, not in a tuple."""
    graph.set_codegen(fx.graph.CodeGen())
    output = next(node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if isinstance(result, (tuple, list)) and len(result) == 1:
        output.args = (result[0],)
