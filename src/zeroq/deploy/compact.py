"""What a file need not hold: debugging data, attributes of default value, long names of what nobody reads by name.

A network of a hundred layers has thousands of nodes, so that a name of fifty letters is a matter of tens of kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count

import numpy
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

SMALL = 8  # numbers in a constant that is worth sharing
# Attributes that a convolution or pooling has for each axis, with the value that means nothing.
NEUTRAL = {"dilations": 1, "strides": 1, "pads": 0}


def compact(model: ModelProto, kept: Iterable[str]) -> None:
    """All that follows, in order. kept: names of computed constants that stay as they are."""
    share_small_integers(model)
    number_constants(model, kept)
    drop_defaults(model)
    strip(model)


def rename(model: ModelProto, new: Mapping[str, str]) -> None:
    """Give values other names, wherever they stand."""
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]


def share_small_integers(model: ModelProto) -> None:
    """Zero points, bounds and shapes of equal value become one constant, named by the value."""
    new: dict[str, str] = {}
    for tensor in model.graph.initializer:
        small = len(tensor.dims) < 2 and numpy.prod(tensor.dims) <= SMALL
        if tensor.data_type in (TensorProto.UINT8, TensorProto.INT64) and small:
            kind = "zero_point" if tensor.data_type == TensorProto.UINT8 else "shape"
            values = "x".join(str(value) for value in numpy_helper.to_array(tensor).flatten().tolist())
            new[tensor.name] = f"{kind}{'' if tensor.dims else '_'}{values}"
    unique = {new.get(tensor.name, tensor.name): tensor for tensor in reversed(model.graph.initializer)}
    for name, tensor in unique.items():
        tensor.name = name
    kept = list(reversed(unique.values()))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    rename(model, new)


def number_constants(model: ModelProto, kept: Iterable[str]) -> None:
    """Values that follow from constants alone get numbers for names, except those that are kept."""
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    stay = set(kept) | {output.name for output in model.graph.output}
    taken = constant | {name for node in model.graph.node for name in (*node.input, *node.output)}
    free = (name for number in count() if (name := f"c{number}") not in taken)
    new: dict[str, str] = {}
    for node in model.graph.node:
        if constant.issuperset(node.input):
            constant |= set(node.output)
            new |= {name: next(free) for name in node.output if name and name not in stay}
    rename(model, new)


def drop_defaults(model: ModelProto) -> None:
    """Attributes whose value is that which the operator has without them."""
    version = next(each.version for each in model.opset_import if each.domain == "")
    for node in model.graph.node:
        if node.domain:
            continue
        schema = onnx.defs.get_schema(node.op_type, version)
        kept = [attribute for attribute in node.attribute if not is_default(attribute, schema)]
        del node.attribute[:]
        node.attribute.extend(kept)


def is_default(attribute: AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    """Whether an attribute says what holds without it."""
    value = helper.get_attribute_value(attribute)
    if attribute.name in NEUTRAL:
        return set(value) <= {NEUTRAL[attribute.name]}
    default = schema.attributes[attribute.name].default_value
    return bool(default.name) and value == helper.get_attribute_value(default)


def strip(model: ModelProto) -> None:
    """Remove what the exporter leaves for debugging, unused constants and intermediate shapes."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        node.ClearField("name")
    del model.graph.value_info[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    used = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.name = "zeroq"
