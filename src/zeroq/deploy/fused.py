"""The graph that onnxruntime makes of a file: its fused integer operators, counted and run one by one."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import fx

from zeroq.graph.network import CONVOLUTIONS, LINEAR
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE
from zeroq.simulate.kernels import POOLING, PRODUCTS, is_passing

aten = torch.ops.aten

Integers = NDArray[numpy.uint8]

# Where inputs stand: the activations that an operator reads, and the scale of its output.
OPERANDS: dict[str, tuple[tuple[int, ...], int]] = {
    "QLinearConv": ((0,), 6),
    "QGemm": ((0,), 7),
    "QLinearMatMul": ((0, 3), 6),
    "QLinearAdd": ((0, 3), 6),
    "QLinearMul": ((0, 3), 6),
    "QLinearAveragePool": ((0,), 3),
    "QLinearGlobalAveragePool": ((0,), 3),
    "QLinearSigmoid": ((0,), 3),
    "QLinearLeakyRelu": ((0,), 3),
    "QLinearSoftmax": ((0,), 3),
}
MADE_BY: dict[str, Collection[Any]] = {  # the simulation's operators that each stands for
    "QLinearConv": CONVOLUTIONS,
    "QGemm": {LINEAR},
    "QLinearMatMul": PRODUCTS | {LINEAR},
    "QLinearAdd": {aten.add.Tensor},
    "QLinearMul": {aten.mul.Tensor},
    "QLinearAveragePool": POOLING,
    "QLinearGlobalAveragePool": POOLING,
    "QLinearSigmoid": {aten.sigmoid.default},
    "QLinearLeakyRelu": {aten.leaky_relu.default},
    "QLinearSoftmax": {aten.softmax.int},
    "QLinearConcat": {aten.cat.default},
}
CONCATENATION = "QLinearConcat"  # its output's scale first, then (data, scale, zero point) of each input
MOVING = {
    "QuantizeLinear",
    "DequantizeLinear",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "Identity",
    "ReorderInput",
    "ReorderOutput",
}
ABOUT_SHAPES = {"Shape", "Size"}  # read no values
KINDS: dict[str, int] = {  # what an operator gives, where that is not of its first operand's type
    "QuantizeLinear": TensorProto.UINT8,
    "DequantizeLinear": TensorProto.FLOAT,
    **dict.fromkeys(("Shape", "Size", "NonZero", "ArgMax", "ArgMin"), TensorProto.INT64),
    **dict.fromkeys(
        ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "IsNaN"), TensorProto.BOOL
    ),
}


@dataclass(frozen=True)
class FusedOperator:
    """One integer operator: the quantizers whose values it reads and writes, by the simulation's nodes."""

    node: NodeProto
    reads: tuple[tuple[int, str], ...]  # (input position, quantizer node)
    writes: str | None  # None: the network's output, in floating point
    axis: int | None = None  # that a softmax or a concatenation goes along, as the simulation counts

    @property
    def title(self) -> str:
        return f"{self.node.op_type} {self.writes or 'output'!r}"


def fused_operators(optimised: ModelProto, graph: fx.Graph) -> list[FusedOperator]:
    """The integer operators of an optimised graph, with the values of the simulation's graph that they stand for.

    Scales are called NODE.scale, which is how the value that an operator writes is known; what it reads follows from
    the simulation. Left out are those that write a value behind a further step, such as a flip, which onnxruntime has
    moved or taken away: no value of the simulation is theirs, and the whole file's answers alone speak for them.
    """
    nodes = {node.name: node for node in graph.nodes}
    found = []
    for node in optimised.graph.node:
        if not is_fused(node):
            continue
        output = 0 if node.op_type == CONCATENATION else OPERANDS[node.op_type][1]
        scale = node.input[output] if len(node.input) > output else ""
        name = scale.removesuffix(".scale")
        if scale and name not in nodes:
            continue
        writes = made_by_operator(nodes[name]) if scale else None
        simulated: Any = writes.args[0] if writes is not None else site_of(node, graph)
        arguments = quantized_arguments(simulated)
        if simulated.target not in MADE_BY[node.op_type]:
            continue
        if takes_padding_in(node, simulated):
            arguments = [arguments[0].args[0].args[0]]
        reads = tuple(zip(data_positions(node), [argument.name for argument in arguments], strict=True))
        found.append(FusedOperator(node, reads, None if writes is None else writes.name, axis_of(simulated)))
    return found


def axis_of(simulated: Any) -> int | None:
    """Along which axis a softmax or a concatenation goes, if the operator is one; negative: counted from the end."""
    if simulated.target not in (torch.ops.aten.softmax.int, torch.ops.aten.cat.default):
        return None
    return int(simulated.args[1]) if len(simulated.args) > 1 else 0


def is_fused(node: NodeProto) -> bool:
    """Whether a node of an optimised graph computes in integers."""
    return node.op_type in OPERANDS or node.op_type == CONCATENATION


def data_positions(node: NodeProto) -> list[int]:
    """Where the activations that a fused node reads stand among its inputs."""
    return list(range(2, len(node.input), 3)) if node.op_type == CONCATENATION else list(OPERANDS[node.op_type][0])


def made_by_operator(quantizer: fx.Node) -> fx.Node:
    """The quantizer behind the operator that made a value, from any of those behind what only moved it."""
    while is_passing(quantizer.args[0]):  # type: ignore[arg-type]
        quantizer = quantizer.args[0].args[0]  # type: ignore[union-attr, assignment]
    return quantizer


def site_of(node: NodeProto, graph: fx.Graph) -> fx.Node:
    """The simulation's node that uses the weight of an operator which leaves in floating point."""
    return next(
        user
        for weight in graph.nodes
        if weight.target == DEQUANTIZE and str(weight.args[0].target) in node.input
        for user in weight.users
        if user.args[1] is weight
    )


def quantized_arguments(node: Any) -> list[Any]:
    """The quantizers that an operator reads, in order."""
    return [argument for argument in torch.utils._pytree.tree_leaves(node.args) if is_quantizer(argument)]


def takes_padding_in(fused: NodeProto, simulated: Any) -> bool:
    """Whether the padding in front of a convolution became its own in the file (onnx_file.merge_padding)."""
    if fused.op_type != "QLinearConv" or simulated.args[0].args[0].target != torch.ops.aten.pad.default:
        return False
    pads = next((attribute.ints for attribute in fused.attribute if attribute.name == "pads"), [0, 0])
    own = list(simulated.args[4]) if len(simulated.args) > 4 else [0]
    return sum(pads) != sum(own) * len(pads) // len(own)


def is_quantizer(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.target == QUANTIZE_DEQUANTIZE


def count_nodes(optimised: ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """Operators that compute in integers and in floating point, by type; what only moves values is neither."""
    integer: dict[str, int] = {}
    floating: dict[str, int] = {}
    types: dict[str, int] = {tensor.name: tensor.data_type for tensor in optimised.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in optimised.graph.input}
    for node in optimised.graph.node:
        kind = kind_of(node, types)
        types.update(dict.fromkeys(node.output, kind))
        read = types.get(node.input[0], TensorProto.FLOAT) if node.input else kind
        computes = node.op_type not in MOVING and node.op_type not in ABOUT_SHAPES
        if is_fused(node):
            integer[node.op_type] = integer.get(node.op_type, 0) + 1
        elif computes and TensorProto.FLOAT in (kind, read if kind == TensorProto.BOOL else kind):
            floating[node.op_type] = floating.get(node.op_type, 0) + 1
    return integer, floating


def kind_of(node: NodeProto, types: Mapping[str, int]) -> int:
    """Type of the values that a node gives; of most nodes that of their first operand."""
    given = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
    if node.op_type == "Cast" and given is not None:
        return int(given)
    if node.op_type in KINDS or (is_fused(node) and node.op_type != "QGemm"):
        return KINDS.get(node.op_type, TensorProto.UINT8)
    operands = node.input[1:] if node.op_type == "Where" else node.input
    return types.get(operands[0], TensorProto.FLOAT) if operands else TensorProto.FLOAT


def isolated(optimised: ModelProto, operators: list[FusedOperator]) -> ModelProto:
    """A model in which each operator stands alone: inputs "INDEX.POSITION", outputs "INDEX"."""
    constants = {tensor.name: tensor for tensor in optimised.graph.initializer}
    nodes, inputs, outputs, used = [], [], [], set()
    for index, operator in enumerate(operators):
        node = copy.deepcopy(operator.node)
        for position, _ in operator.reads:
            node.input[position] = f"{index}.{position}"
            inputs.append(helper.make_tensor_value_info(f"{index}.{position}", TensorProto.UINT8, None))
        node.output[:] = [str(index)]
        kind = TensorProto.FLOAT if operator.writes is None else TensorProto.UINT8
        outputs.append(helper.make_tensor_value_info(str(index), kind, None))
        used |= {name for name in node.input if name in constants}
        nodes.append(node)
    graph = helper.make_graph(nodes, "isolated", inputs, outputs, [constants[name] for name in sorted(used)])
    return helper.make_model(graph, opset_imports=optimised.opset_import, ir_version=optimised.ir_version)


def feeds(operators: list[FusedOperator], integers: Mapping[str, Integers]) -> dict[str, Integers]:
    """Inputs of isolated(): the simulation's integers, in the order of axes that each operator has."""
    return {
        f"{index}.{position}": arranged(operator, integers[name], integers)
        for index, operator in enumerate(operators)
        for position, name in operator.reads
    }


def arranged(operator: FusedOperator, values: Integers, integers: Mapping[str, Integers]) -> Integers:
    """Values in the order of axes that the operator has them in, as rows for a product of matrices."""
    if operator.node.op_type == "QGemm":
        return values.reshape(-1, values.shape[-1])
    before, behind = moved_axis(operator, integers)
    return numpy.ascontiguousarray(numpy.moveaxis(values, before, behind))


def restored(operator: FusedOperator, values: Integers, integers: Mapping[str, Integers]) -> Integers:
    """The inverse of arranged(), for what the operator gives."""
    if operator.node.op_type == "QGemm" and operator.writes is not None:
        return values.reshape(integers[operator.writes].shape)
    before, behind = moved_axis(operator, integers)
    return numpy.moveaxis(values, behind, before)


def moved_axis(operator: FusedOperator, integers: Mapping[str, Integers]) -> tuple[int, int]:
    """From where to where onnxruntime moved an axis: that of channels, or the one that the operator goes along.

    It moves transpositions past both kinds. To a softmax and a concatenation it is all one in which order others stand.
    """
    attributes = {attribute.name: attribute for attribute in operator.node.attribute}
    if "channels_last" in attributes:
        return (1, -1) if attributes["channels_last"].i else (0, 0)
    if operator.axis is None or operator.writes is None:
        return 0, 0
    axes = integers[operator.writes].ndim
    return operator.axis % axes, attributes["axis"].i % axes


def compare(
    operators: list[FusedOperator],
    results: Iterator[NDArray[numpy.float32]],
    integers: Mapping[str, Integers],
    highs: Mapping[str, int],
) -> Iterator[tuple[FusedOperator, Integers]]:
    """Difference in steps between each operator that writes integers and the simulation."""
    for operator, result in zip(operators, results, strict=True):
        if operator.writes is not None:
            clipped = numpy.minimum(restored(operator, result, integers), highs[operator.writes])  # type: ignore[arg-type]
            expected = integers[operator.writes]
            yield operator, numpy.maximum(clipped, expected) - numpy.minimum(clipped, expected)
