"""QuantizedNetwork -> ONNX file: integers at their true width, kernels that onnxruntime runs in integers."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxscript import opset18 as opset
from torch import Tensor

from zeroq.deploy.unpack import unpack_initializers
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE
from zeroq.simulate.quantized_network import UNCLIPPED, QuantizedNetwork

OPSET = 18  # the first with BitwiseAnd, which unpacks weights of fewer than 8 bits
IR_VERSION = 8
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


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
    unpack_initializers(model, weight_bits)
    strip(model)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "zeroq", str(metadata.get("version", ""))
    helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def translate(network: QuantizedNetwork, example: tuple[Tensor, ...]) -> ModelProto:
    """The graph as torch.onnx writes it, with our two operators and those that have a better twin."""
    table: dict[Any, Callable[..., Any]] = {
        QUANTIZE_DEQUANTIZE: quantize_dequantize,
        DEQUANTIZE: dequantize,
        torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average_pool,
    }
    inputs = ["input"] if len(example) == 1 else [f"input{index}" for index in range(len(example))]
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.graph_module,
            example,
            dynamo=True,
            custom_translation_table=table,
            dynamic_shapes=tuple({0: "batch"} for _ in example),
            input_names=inputs,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def quantize_dequantize(values: Any, scale: Any, zero_point: Any, high: int) -> Any:
    """QuantizeLinear to uint8 does not clip below 255; an integer Clip does, and keeps integer kernels."""
    integers = opset.QuantizeLinear(values, scale, zero_point)
    if high < UNCLIPPED:
        low = opset.Constant(value=numpy_helper.from_array(numpy.array(0, numpy.uint8)))
        integers = opset.Clip(
            integers, low, opset.Constant(value=numpy_helper.from_array(numpy.array(high, numpy.uint8)))
        )
    return opset.DequantizeLinear(integers, scale, zero_point)


def dequantize(integers: Any, scale: Any) -> Any:
    """One scale per output channel."""
    return opset.DequantizeLinear(integers, scale, axis=0)


def adaptive_average_pool(values: Any, output_size: Sequence[int]) -> Any:
    """Global pooling has an integer kernel; other sizes are refused (canonical graphs hold none that are left)."""
    if list(output_size) != [1, 1]:
        raise NotImplementedError(f"adaptive pooling to {list(output_size)}")
    return opset.GlobalAveragePool(values)


@contextmanager
def quiet() -> Any:
    """The exporter warns of packages that are not needed, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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

    Requires Pad between quantizers of the same parameters, or right behind DequantizeLinear; ensures that the
    convolution reads the value before the padding, so that it stays an integer kernel.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    users: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    gone: list[NodeProto] = []
    for convolution in [node for node in model.graph.node if node.op_type == "Conv"]:
        between, source = [], producer.get(convolution.input[0])
        while (
            source is not None
            and source.op_type in ("DequantizeLinear", "QuantizeLinear")
            and len(users[source.output[0]]) == 1
        ):
            between.append(source)
            source = producer.get(source.input[0])
        if source is None or source.op_type != "Pad" or len(users[source.output[0]]) != 1:
            continue
        pads = numpy_helper.to_array(constants[source.input[1]]).tolist()
        half = len(pads) // 2
        if any(pads[:2] + pads[half : half + 2]) or min(pads) < 0:
            continue
        own = next((attribute for attribute in convolution.attribute if attribute.name == "pads"), None)
        extra = pads[2:half] + pads[half + 2 :]
        before = list(own.ints) if own is not None else [0] * len(extra)
        if own is not None:
            convolution.attribute.remove(own)
        convolution.attribute.append(
            helper.make_attribute("pads", [one + other for one, other in zip(before, extra, strict=True)])
        )
        convolution.input[0] = source.input[0]
        gone += [source, *between]
    for node in gone:
        model.graph.node.remove(node)


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
