"""Graphs of torch.export -> graphs of pure operators in one form, so that later stages meet each thing once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from zeroq.graph.attention import split_attention
from zeroq.graph.biases import absorb_biases
from zeroq.graph.constants import compute_constants, is_inplace
from zeroq.graph.einsum import split_einsums
from zeroq.graph.inplace import make_pure, takes_all
from zeroq.graph.moving import changes_nothing, name_moves, same_kind
from zeroq.graph.names import keep_apart, with_name_of_result_free
from zeroq.graph.operators import (
    adaptive_pooling,
    bags_of_embeddings,
    explicit_padding,
    limits_of_all,
    matrix_products,
    merge_rectifiers,
    name_rectifiers,
    refuse_groups_of_images,
    rounded_quotients,
    spatial_mean,
    split_into_slices,
    unbind_into_selections,
)
from zeroq.graph.refusals import place_in

aten = torch.ops.aten

FORMS = (
    refuse_groups_of_images, rounded_quotients, name_rectifiers, spatial_mean, adaptive_pooling, explicit_padding,
    split_into_slices, unbind_into_selections,
)  # fmt: skip
NO_OPERATION = {
    aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.alpha_dropout.default,
    aten.alias.default, aten.contiguous.default, aten.detach.default, aten.detach_.default, aten.clone.default,
    aten.lift_fresh_copy.default, aten.positive.default,
}  # fmt: skip


def canonicalise(graph: fx.Graph, tensors: dict[str, Tensor]) -> tuple[fx.Graph, dict[str, Tensor]]:
    """Apply every rewriting, in order, to the graph as torch.export gave it (which is used up)."""
    graph.owning_module = None  # it knows nothing of tensors that are made here, and warns of them
    remove_guards(graph)
    compute_constants(graph, tensors)
    make_pure(graph)
    name_moves(graph)
    remove_no_operations(graph)
    split_attention(graph, tensors)
    split_einsums(graph, tensors)
    compute_constants(graph, tensors)
    bags_of_embeddings(graph)
    free_batch(graph)
    for rewrite in FORMS:
        rewrite(graph)
    limits_of_all(graph, tensors)
    matrix_products(graph, tensors)
    absorb_biases(graph, tensors)
    merge_equals(graph)
    merge_rectifiers(graph)
    merge_equals(graph)
    restore_output(graph)
    graph = with_name_of_result_free(graph)
    for node in graph.nodes:
        node.meta = {"module": module_of(node), "place": place_in(node)}
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    tensors = {name: value for name, value in tensors.items() if name in used}
    keep_apart(graph, tensors)
    return graph, tensors


def module_of(node: fx.Node) -> str:
    """The path of the user's module whose forward pass holds a node; "" for the network's own."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def remove_guards(graph: fx.Graph) -> None:
    """Drop checks of shapes, which have no value that others use."""
    for node in reversed(list(graph.nodes)):
        idle = node.op in ("call_module", "call_function", "get_attr") and not node.users
        if idle and not is_inplace(node):
            graph.erase_node(node)


def remove_no_operations(graph: fx.Graph) -> None:
    """Drop dropout of evaluation, copies, casts to the type that a value has, slices that take everything, and sums
    and products that change nothing.
    """
    for node in list(graph.nodes):
        nothing = node.target in NO_OPERATION and not (node.target in DROPOUTS and node.args[2] is True)
        nothing = nothing or takes_all(node) or changes_nothing(node)
        if node.target in CASTS:
            nothing = same_kind(node, node.args[0])
        if nothing:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


DROPOUTS = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.alpha_dropout.default}
CASTS = {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default}


RESHAPING = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.unflatten.int,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
    aten.view_as.default, aten.reshape_as.default,
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


def merge_equals(graph: fx.Graph) -> None:
    """Compute once what several nodes ask for alike, such as two sums of the same values.

    The exporter and onnxruntime would do so later, and between quantizers that costs an integer kernel.
    """
    seen: dict[tuple[Any, ...], fx.Node] = {}
    for node in list(graph.nodes):
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if node.op not in ("call_function", "get_attr") or random:
            continue
        first = seen.setdefault((node.target, str(node.args), str(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def restore_output(graph: fx.Graph) -> None:
    """Give the output the form that the module gives it: dictionaries, lists and tuples, without what is None."""
    form = getattr(graph._codegen, "pytree_info", None)
    graph.set_codegen(fx.graph.CodeGen())
    output = next(node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if form is not None and form.out_spec is not None:
        output.args = (plain(pytree.tree_unflatten(list(result), form.out_spec)),)
    elif isinstance(result, (tuple, list)) and len(result) == 1:
        output.args = (result[0],)


def plain(value: Any) -> Any:
    """Nested results as dictionaries and tuples; those of other types (transformers' outputs) by their entries."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, int) else str(key): plain(each) for key, each in value.items() if each is not None
        }
    if isinstance(value, (tuple, list)):
        return tuple(plain(each) for each in value if each is not None)
    if isinstance(value, (fx.Node, Tensor)):
        return value
    leaves = [each for each in pytree.tree_leaves(value) if each is not None]  # such as of a dataclass
    return leaves[0] if len(leaves) == 1 else tuple(leaves)
