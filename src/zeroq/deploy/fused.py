"""The graph that onnxruntime makes of a file: its fused integer operators, counted and run one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

Integers = NDArray[numpy.uint8]

# Where inputs stand: (data, scale) of each activation that an operator reads, and the scale of its output.
OPERANDS: dict[str, tuple[tuple[tuple[int, int], ...], int]] = {
    "QLinearConv": (((0, 1),), 6),
    "QGemm": (((0, 1),), 7),
    "QLinearMatMul": (((0, 1), (3, 4)), 6),
    "QLinearAdd": (((0, 1), (3, 4)), 6),
    "QLinearMul": (((0, 1), (3, 4)), 6),
    "QLinearAveragePool": (((0, 1),), 3),
    "QLinearGlobalAveragePool": (((0, 1),), 3),
    "QLinearSigmoid": (((0, 1),), 3),
    "QLinearLeakyRelu": (((0, 1),), 3),
    "QLinearSoftmax": (((0, 1),), 3),
}
CONCATENATION = "QLinearConcat"  # its output's scale first, then (data, scale, zero point) of each input
MOVING = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity"}


@dataclass(frozen=True)
class FusedOperator:
    """One integer operator: the quantizers whose values it reads and writes, by the simulation's nodes."""

    node: NodeProto
    reads: tuple[tuple[int, str], ...]  # (input position, quantizer node)
    writes: str | None  # None: the network's output, in floating point

    @property
    def title(self) -> str:
        return f"{self.node.op_type} {self.writes or 'output'!r}"


def fused_operators(optimised: ModelProto) -> list[FusedOperator]:
    """All integer operators of an optimised graph; scales are called NODE.scale, which is how values are known."""
    found = []
    for node in optimised.graph.node:
        if node.op_type == CONCATENATION:
            pairs, output = tuple((index, index + 1) for index in range(2, len(node.input), 3)), 0
        elif node.op_type in OPERANDS:
            pairs, output = OPERANDS[node.op_type]
        else:
            continue
        reads = tuple((data, quantizer(node.input[scale])) for data, scale in pairs)
        written = node.input[output] if len(node.input) > output else ""
        found.append(FusedOperator(node, reads, quantizer(written) if written else None))
    return found


def quantizer(scale: str) -> str:
    """The simulation's node that a scale's name speaks of."""
    return scale.removesuffix(".scale")


def count_nodes(optimised: ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """Operators that compute in integers and in floating point, by type; what only moves values is neither."""
    integer: dict[str, int] = {}
    floating: dict[str, int] = {}
    types: dict[str, int] = {tensor.name: tensor.data_type for tensor in optimised.graph.initializer}
    for node in optimised.graph.node:
        fused = node.op_type in OPERANDS or node.op_type == CONCATENATION
        kind = types.get(node.input[0], TensorProto.FLOAT) if node.input else TensorProto.FLOAT
        if node.op_type == "QuantizeLinear" or (fused and node.op_type != "QGemm"):
            kind = TensorProto.UINT8
        elif node.op_type == "DequantizeLinear":
            kind = TensorProto.FLOAT
        types.update(dict.fromkeys(node.output, kind))
        if fused:
            integer[node.op_type] = integer.get(node.op_type, 0) + 1
        elif node.op_type not in MOVING and kind == TensorProto.FLOAT:
            floating[node.op_type] = floating.get(node.op_type, 0) + 1
    return integer, floating


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
    """Values [N, C, ...] as [N, ..., C] where the operator wants channels last."""
    return numpy.ascontiguousarray(numpy.moveaxis(values, 1, -1)) if channels_last(operator, integers) else values


def restored(operator: FusedOperator, values: Integers, integers: Mapping[str, Integers]) -> Integers:
    """The inverse of arranged(), for what the operator gives."""
    return numpy.moveaxis(values, -1, 1) if channels_last(operator, integers) else values


def channels_last(operator: FusedOperator, integers: Mapping[str, Integers]) -> bool:
    """Whether onnxruntime turned an operator to channels last: an attribute says so, or a concatenation's axis."""
    attributes = {attribute.name: attribute for attribute in operator.node.attribute}
    if "channels_last" in attributes:
        return bool(attributes["channels_last"].i)
    if operator.node.op_type != CONCATENATION or operator.writes is None:
        return False
    axis = attributes["axis"].i
    parts = sum(integers[name].shape[axis] for _, name in operator.reads)
    return parts != integers[operator.writes].shape[axis]


def compare(
    operators: list[FusedOperator], results: Iterator[NDArray[numpy.float32]], integers: Mapping[str, Integers], highs: Mapping[str, int]
) -> Iterator[tuple[FusedOperator, NDArray[numpy.int16]]]:
    """Difference in steps between each operator that writes integers and the simulation."""
    for operator, result in zip(operators, results, strict=True):
        if operator.writes is not None:
            clipped = numpy.minimum(restored(operator, result, integers), highs[operator.writes])  # type: ignore[arg-type]
            yield operator, numpy.abs(clipped.astype(numpy.int16) - integers[operator.writes].astype(numpy.int16))
