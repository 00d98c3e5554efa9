"""Attention in its parts, so that both of its products are values that quantizers and integer kernels know."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

ATTENTION = aten.scaled_dot_product_attention.default


def split_attention(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """scaled_dot_product_attention -> softmax(scale Q K^T + mask) V, a node for each step.

    Q, K: [..., tokens, width], V: [..., tokens, width of a value]. Scale is 1 / sqrt(width) unless the call names one
    (arXiv:1706.03762, section 3.2.1). A causal mask becomes a stored tensor.
    """
    for node in list(graph.nodes):
        if node.target != ATTENTION:
            continue
        query, key, value, mask, causal, scale, grouped = arguments_of(node)
        width, heads = shape_of(query)[-1], shape_of(query)[-3] if len(shape_of(query)) > 2 else 1
        with graph.inserting_before(node):
            if grouped:
                key, value = (repeat_heads(graph, each, heads) for each in (key, value))
            turned = graph.call_function(aten.transpose.int, (key, -2, -1))
            scores = graph.call_function(aten.matmul.default, (query, turned))
            scores = graph.call_function(aten.mul.Tensor, (scores, scale or 1 / math.sqrt(width)))
            if causal:
                mask = stored_mask(graph, tensors, shape_of(query)[-2], shape_of(key)[-2])
            if mask is not None:
                scores = masked(graph, scores, mask, boolean=causal or is_boolean(mask))
            shares = graph.call_function(aten.softmax.int, (scores, -1))
            mixed = graph.call_function(aten.matmul.default, (shares, value))
        for made in (turned, scores, shares, mixed):
            made.meta = {"nn_module_stack": node.meta.get("nn_module_stack")}
        mixed.meta = dict(node.meta)
        node.replace_all_uses_with(mixed)
        graph.erase_node(node)


def arguments_of(node: fx.Node) -> tuple[Any, ...]:
    """Query, key, value, mask, whether causal, scale, and whether several queries share one key (enable_gqa)."""
    filled = [*node.args, *(None, 0.0, False)[len(node.args) - 3 :]]
    named = dict(zip(("attn_mask", "dropout_p", "is_causal"), filled[3:], strict=True)) | node.kwargs
    return (
        *filled[:3], named["attn_mask"], named["is_causal"], named.get("scale"), named.get("enable_gqa", False),
    )  # fmt: skip


def shape_of(node: fx.Node) -> list[Any]:
    """Sizes of a node's value as torch.export saw it; that of the batch is symbolic."""
    return list(node.meta["val"].shape)


def repeat_heads(graph: fx.Graph, node: fx.Node, heads: int) -> fx.Node:
    """Keys or values once for each query that shares them, [..., heads, tokens, width]."""
    times = int(heads) // int(shape_of(node)[-3])
    repeated = graph.call_function(aten.repeat_interleave.self_int, (node, times, -3))
    repeated.meta = {"val": node.meta["val"].repeat_interleave(times, -3)}
    return repeated


def stored_mask(graph: fx.Graph, tensors: dict[str, Tensor], queries: int, keys: int) -> fx.Node:
    """A causal mask, boolean [queries, keys]: each token sees itself and those before it."""
    name = f"causal_mask_{queries}_{keys}"
    tensors[name] = torch.ones(int(queries), int(keys), dtype=torch.bool).tril()
    return graph.get_attr(name)


def is_boolean(mask: fx.Node) -> bool:
    """Whether a mask says which tokens are seen, rather than what is added to their scores."""
    return "val" in mask.meta and mask.meta["val"].dtype == torch.bool


def masked(graph: fx.Graph, scores: fx.Node, mask: fx.Node, *, boolean: bool) -> fx.Node:
    """Scores behind a mask. Minus infinity never reaches a quantizer: the softmax reads it."""
    if not boolean:
        return graph.call_function(aten.add.Tensor, (scores, mask))
    hidden = graph.call_function(aten.logical_not.default, (mask,))
    return graph.call_function(aten.masked_fill.Scalar, (scores, hidden, -math.inf))
