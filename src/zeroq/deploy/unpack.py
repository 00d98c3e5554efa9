"""Packed weights in an ONNX file: the nodes that give back int8 tensors, which onnxruntime folds away on loading.

A plane's bytes (zeroq.numbers.packing) are looked up in a table of 256 rows that holds, for each byte, the integers of
its fields in place, and the sign: two's complement makes the bitwise or of all planes the integer itself.

    plane uint8 [bytes] -> Cast int32 -> Gather(table int8 [256, fields a byte]) -> Reshape --BitwiseOr--> int8 weight

Where filters' grids are shifted (zeroq.numbers.grid), each filter's shift is added behind that, as int32: onnxruntime
adds no int8.

Loading costs nodes more than bytes: some 0.08 ms for each that is folded. A table needs three nodes a plane; shift,
mask, offset and casts need five to eight, and are no faster on large weights either. The 53 weights of MobileNetV2
load in 18 ms more than as int8 at 2 bits, 31 ms at 4 and 80 ms at 7; a weight takes 160 bytes beside its bits at 2 and
4 bits, 350 to 570 at the other widths, tables included (onnxruntime 1.32, one core). Shifts take 0.4 ms and 215 bytes
a weight, and a byte for each filter.

2, 4 and 8 bits use operators of opset 11, the other widths BitwiseOr of opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from zeroq.numbers.grid import MOST_BITS, shifted, shifts_of
from zeroq.numbers.packing import pack, planes_of

SHIFTING = 400  # bytes at most of the nodes that shift a weight's filters, beside a byte for each filter
FRAME = 8  # bytes around a constant in a file, at most
PREFIX = "unpack/"  # of constants that weights share, equal wherever the name is


def unpack_initializers(model: ModelProto, weight_bits: Mapping[str, int]) -> None:
    """Store int8 initializers at their true width, `weight_bits` by name, and put the nodes that unpack them first.

    Requires each name to be an int8 initializer within its width; ensures a value of that name, type and shape.
    """
    initializers: dict[str, TensorProto] = {}
    nodes: list[NodeProto] = []
    for tensor in model.graph.initializer:
        if weight_bits.get(tensor.name, MOST_BITS) == MOST_BITS:
            initializers[tensor.name] = tensor
            continue
        made, unpacking = unpack_weight(tensor.name, numpy_helper.to_array(tensor), weight_bits[tensor.name])
        initializers |= {each.name: each for each in made}
        nodes += unpacking
    if missing := set(weight_bits) - {tensor.name for tensor in model.graph.initializer}:
        raise ValueError(f"no initializers of these names: {sorted(missing)}")
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(initializers.values())
    model.graph.node.extend(nodes)


def unpack_weight(name: str, integers: NDArray[numpy.int8], bits: int) -> tuple[list[TensorProto], list[NodeProto]]:
    """Initializers and nodes that make the int8 value `name`.

    Constants whose names begin with PREFIX are the same for every weight that uses them: keep one of each in a file.
    """
    if bits == MOST_BITS:
        return [constant(name, integers)], []
    initializers: list[TensorProto] = []
    nodes: list[NodeProto] = []
    parts = []
    weight = torch.from_numpy(integers.copy())
    shifts = shifts_of(weight, bits)
    for plane in pack(shifted(weight, -shifts), bits):
        at = f"{name}/{plane.width}"
        table = _table(bits, plane.width, plane.shift)
        initializers += [constant(at, plane.data.numpy()), table]
        nodes.append(helper.make_node("Cast", [at], [f"{at}i"], to=TensorProto.INT32))
        nodes.append(helper.make_node("Gather", [table.name, f"{at}i"], [f"{at}g"]))
        parts.append(_shaped(f"{at}g", len(plane.data) * (8 // plane.width), integers.shape, initializers, nodes))
    while len(parts) > 1:
        joined = f"{parts[-1]}o"
        nodes.append(helper.make_node("BitwiseOr", parts[-2:], [joined]))
        parts[-2:] = [joined]
    if shifts.any():
        at = f"{name}/shifts"
        initializers.append(constant(at, shifts.reshape(-1, *[1] * (weight.dim() - 1)).numpy()))
        nodes.append(helper.make_node("Cast", parts, [f"{parts[0]}w"], to=TensorProto.INT32))
        nodes.append(helper.make_node("Cast", [at], [f"{at}w"], to=TensorProto.INT32))
        nodes.append(helper.make_node("Add", [f"{parts[0]}w", f"{at}w"], [f"{parts[0]}a"]))
        nodes.append(helper.make_node("Cast", [f"{parts[0]}a"], [f"{parts[0]}s"], to=TensorProto.INT8))
    nodes[-1].output[0] = name
    return initializers, nodes


def tables_bytes(widths: Iterable[int]) -> int:
    """What the tables that unpack weights of these widths take in a file that has all of them."""
    tables = [_table(bits, *plane) for bits in widths if bits != MOST_BITS for plane in planes_of(bits)]
    return sum(len(data) + FRAME for data in {table.SerializeToString() for table in tables})


def constant(name: str, values: NDArray[numpy.generic]) -> TensorProto:
    """An initializer of raw bytes; a typed list would take more than a byte for each small integer."""
    return numpy_helper.from_array(values, name)


def _table(bits: int, width: int, shift: int) -> TensorProto:
    """Row b: the integers that byte b stands for, int8 [256, 8 / width]; the highest field carries the sign."""
    fields = (numpy.arange(256)[:, None] >> numpy.arange(0, 8, width)) & (2**width - 1)
    signed = (width, shift) == planes_of(bits)[-1]
    integers = (fields - signed * 2 ** (width - 1)) << shift
    return constant(f"{PREFIX}{width}bit{shift}{'s' * signed}", integers.astype(numpy.int8))


def _shaped(
    value: str, count: int, shape: tuple[int, ...], initializers: list[TensorProto], nodes: list[NodeProto]
) -> str:
    """Append what brings [rows, fields] of `count` integers to a shape; the last byte may hold more than are there."""
    wanted = int(numpy.prod(shape))
    if count > wanted:
        flat, first, none = f"{PREFIX}flat", f"{PREFIX}first{wanted}", f"{PREFIX}none"
        initializers += [
            constant(flat, numpy.array([-1], numpy.int64)),
            constant(first, numpy.array([wanted], numpy.int64)),
            constant(none, numpy.array([0], numpy.int64)),
        ]
        nodes.append(helper.make_node("Reshape", [value, flat], [f"{value}f"]))
        nodes.append(helper.make_node("Slice", [f"{value}f", none, first], [f"{value}n"]))
        value = f"{value}n"
    size = constant(f"{PREFIX}{'x'.join(map(str, shape))}", numpy.array(shape, numpy.int64))
    initializers.append(size)
    nodes.append(helper.make_node("Reshape", [value, size.name], [f"{value}r"]))
    return f"{value}r"
