"""Multiply-accumulates of products whose operands are both computed: attention, and weights made by the network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import fx

aten = torch.ops.aten

MATRICES = {aten.matmul.default, aten.mm.default, aten.bmm.default, aten.dot.default, aten.mv.default}
ADDED = {aten.addmm.default, aten.baddbmm.default}
EVERY_CONVOLUTION = {  # transposed ones among them
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
}  # fmt: skip

Shape = tuple[int, ...]


def multiply_accumulates(node: fx.Node, result: Shape, shapes: Mapping[str, Shape]) -> int:
    """Of a node whose operands are all computed, for all images of the batch; 0 of one that multiplies no matrices.

    result: the shape of its value.  shapes: of all values before it.
    """
    operands = [shapes.get(operand.name) for operand in node.all_input_nodes if operand.op != "get_attr"]
    if len(operands) < len(node.all_input_nodes) or len(operands) < 1 or None in operands:
        return 0
    if node.target in MATRICES:
        return math.prod(result) * shape_of(node.args[0], shapes)[-1]
    if node.target in ADDED:
        return math.prod(result) * shape_of(node.args[1], shapes)[-1]
    if node.target in EVERY_CONVOLUTION:
        return math.prod(result) * math.prod(shape_of(node.args[1], shapes)[1:])
    if node.target == aten.einsum.default:
        return einsum(str(node.args[0]), [shape_of(each, shapes) for each in node.args[1]])  # type: ignore[union-attr]
    return 0


def shape_of(argument: object, shapes: Mapping[str, Shape]) -> Shape:
    """Of a node's value."""
    assert isinstance(argument, fx.Node), "an operand of a product is a value"
    return shapes[argument.name]


def einsum(equation: str, operands: list[Shape]) -> int:
    """The product of the sizes of all axes, where two or more operands meet; 0 where there is one, or "..." stands."""
    letters = equation.replace(" ", "").partition("->")[0].split(",")
    if len(letters) < 2 or "." in equation:
        return 0
    sizes = {
        axis: size
        for names, shape in zip(letters, operands, strict=True)
        for axis, size in zip(names, shape, strict=True)
    }
    return math.prod(sizes.values())
