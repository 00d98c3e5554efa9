"""QuantizedNetwork -> ONNX file: integers at their true width, kernels that onnxruntime runs in integers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from zeroq.deploy.translate import translate
from zeroq.deploy.unpack import unpack_initializers
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.simulate.quantized_network import QuantizedNetwork

IR_VERSION = 8
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SMALL = 8  # numbers in a constant that is worth sharing


def export_onnx(
    network: QuantizedNetwork, example: tuple[Tensor, ...], weight_bits: Mapping[str, int], metadata: Mapping[str, Any]
) -> ModelProto:
    """The file's contents.

    example: inputs of batch 2 (the file takes any batch).  weight_bits: width of each integer weight, by the name of
    its tensor.  metadata: stored as JSON values under the model's metadata_props.
    Values have the names of the simulation's nodes; the integers behind a quantizer NODE are called NODE.integers.
    """
    model = translate(network, example)
    name_values(model, network)
    merge_padding(model)
    shield_float_layers(model)
    derive_bias_scales(model)
    explicit_zero_points(model)
    share_small_integers(model)
    unpack_initializers(model, weight_bits)
    strip(model)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "zeroq", str(metadata.get("version", ""))
    helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def name_values(model: ModelProto, network: QuantizedNetwork) -> None:
    """Call values behind quantizers by the simulation's nodes, so that both can be compared and read."""
    nodes = [node.name for node in network.graph.nodes if node.target == QUANTIZE_DEQUANTIZE]
    quantize = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(nodes) == len(quantize), "every quantizer becomes one QuantizeLinear"
    new = {node.output[0]: f"{name}.integers" for node, name in zip(quantize, nodes, strict=True)}
    for node in model.graph.node:
        if node.op_type == "Clip" and node.input[0] in new:
            new[node.output[0]] = new[node.input[0]].replace(".integers", ".clipped")
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in new:
            new[node.output[0]] = new[node.input[0]].rsplit(".", 1)[0]
    for output in model.graph.output:
        new.pop(output.name, None)
    rename(model, new)
    name_scales(model)


def name_scales(model: ModelProto) -> None:
    """Give each quantizer a scale of its own name, NODE.scale: fused operators keep it when other names are lost."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made: set[str] = set()
    for node in model.graph.node:
        integers = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or not integers.endswith(
            (".integers", ".clipped")
        ):
            continue
        name = f"{integers.rsplit('.', 1)[0]}.scale"
        if name not in made:
            made.add(name)
            model.graph.initializer.append(
                numpy_helper.from_array(numpy_helper.to_array(constants[node.input[1]]), name)
            )
        node.input[1] = name


def rename(model: ModelProto, new: Mapping[str, str]) -> None:
    """Give values other names, wherever they stand."""
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]


def merge_padding(model: ModelProto) -> None:
    """Zero padding in front of a convolution becomes its own, which ONNX allows to differ from side to side.

    Requires a quantizer behind the padding, of the same parameters as that of what is padded; ensures that the
    convolution reads the value before the padding, so that it stays an integer kernel.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    for convolution in [node for node in model.graph.node if node.op_type == "Conv"]:
        pad = padding_before(convolution, producer, constants)
        if pad is None:
            continue
        pads = numpy_helper.to_array(constants[pad.input[1]]).tolist()
        half = len(pads) // 2
        if any(pads[:2] + pads[half : half + 2]) or min(pads) < 0:
            continue
        extra = pads[2:half] + pads[half + 2 :]
        own = next((attribute for attribute in convolution.attribute if attribute.name == "pads"), None)
        if own is not None:
            extra = [one + other for one, other in zip(own.ints, extra, strict=True)]
            convolution.attribute.remove(own)
        convolution.attribute.append(helper.make_attribute("pads", extra))
        convolution.input[0] = pad.input[0]
    remove_unread(model)


def padding_before(
    convolution: NodeProto, producer: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]
) -> NodeProto | None:
    """The zero padding whose quantized value a convolution reads, if what it pads is quantized alike."""
    chain = [convolution]
    while len(chain) < 5 and chain[-1].input and chain[-1].input[0] in producer:
        chain.append(producer[chain[-1].input[0]])
    if [node.op_type for node in chain[1:]] != ["DequantizeLinear", "QuantizeLinear", "Pad", "DequantizeLinear"]:
        return None
    _, _, quantize, pad, before = chain
    return pad if is_zero_padding(pad, constants) and alike(before, quantize, constants) else None


def alike(one: NodeProto, other: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether two quantizers have the same scale and zero point."""
    pairs = zip(one.input[1:], other.input[1:], strict=True)
    return all(numpy_helper.to_array(constants[a]) == numpy_helper.to_array(constants[b]) for a, b in pairs)


def is_zero_padding(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a node pads with zeros on all axes, by constant widths."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
    value = node.input[2] if len(node.input) > 2 else ""
    zero = not value or (value in constants and not numpy_helper.to_array(constants[value]).any())
    return node.op_type == "Pad" and mode == b"constant" and zero and len(node.input) < 4 and node.input[1] in constants


def remove_unread(model: ModelProto) -> None:
    """Drop nodes whose values nothing reads."""
    read = {output.name for output in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if read & set(node.output):
            read |= set(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def shield_float_layers(model: ModelProto) -> None:
    """A layer kept in floating point reads its input through a Max of one operand, which changes nothing.

    Between a DequantizeLinear and a QuantizeLinear, onnxruntime would round the layer's weights to 8 bits per tensor by
    itself, and without any limit on pairs.
    """
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    producer = {name: node for node in model.graph.node for name in node.output}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        source = producer.get(node.input[0]) if node.op_type in LAYERS and node.input[1] in constants else None
        if source is not None and source.op_type == "DequantizeLinear":
            nodes.append(helper.make_node("Max", [node.input[0]], [f"{node.output[0]}.input"]))
            node.input[0] = nodes[-1].output[0]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def derive_bias_scales(model: ModelProto) -> None:
    """A bias's scales are the product of its input's and its weight's: computed when the file is loaded, not stored.

    They would take four bytes for each output channel, and a node takes about a hundred.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    products: list[NodeProto] = []
    for node in model.graph.node:
        operands = [producer.get(name) for name in node.input[:3]] if node.op_type in ("Conv", "Gemm") else []
        if len(operands) < 3 or any(each is None or each.op_type != "DequantizeLinear" for each in operands):
            continue
        source, weight, bias = (each.input for each in operands if each is not None)
        if source[1] not in constants or weight[1] not in constants:
            continue
        name = f"{node.output[0]}.bias_scale"  # biases of equal integers are one constant by now
        products.append(helper.make_node("Mul", [source[1], weight[1]], [name]))
        bias[1] = name
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*products, *others])


def explicit_zero_points(model: ModelProto) -> None:
    """Weights get zero points of zeros: without, Gemm stays in floating point, and silently so (facts: onnxruntime)."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    made: dict[int, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 2 and node.input[0] in weights:
            channels = weights[node.input[0]].dims[0]
            if channels not in made:
                made[channels] = f"zeros{channels}"
                zeros = numpy.zeros(channels, numpy.int8)
                model.graph.initializer.append(numpy_helper.from_array(zeros, made[channels]))
            node.input.append(made[channels])


def share_small_integers(model: ModelProto) -> None:
    """Zero points, bounds and shapes of equal value become one constant: hundreds of them stand in a file."""
    first: dict[bytes, str] = {}
    new: dict[str, str] = {}
    kinds = (TensorProto.UINT8, TensorProto.INT64)
    for tensor in model.graph.initializer:
        if tensor.data_type in kinds and numpy.prod(tensor.dims) <= SMALL:
            values = numpy_helper.to_array(tensor)
            new[tensor.name] = first.setdefault(repr((tensor.data_type, values.tolist())).encode(), tensor.name)
    rename(model, new)


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
