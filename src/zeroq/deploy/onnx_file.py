"""QuantizedNetwork -> ONNX file: integers at their true width, kernels that onnxruntime runs in integers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.deploy.compact import compact, rename
from zeroq.deploy.padding import merge_padding, pad_integers
from zeroq.deploy.translate import translate
from zeroq.deploy.unpack import unpack_initializers
from zeroq.errors import ModelError
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE, WEIGHT_ONLY
from zeroq.simulate.quantized_network import QuantizedNetwork

IR_VERSION = 8
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def export_onnx(
    network: QuantizedNetwork, example: tuple[Tensor, ...], weight_bits: Mapping[str, int], metadata: Mapping[str, Any]
) -> ModelProto:
    """The file's contents.

    example: inputs of batch 2 (the file takes any batch).  weight_bits: width of each integer weight, by the name of
    its tensor.  metadata: stored as JSON values under the model's metadata_props.
    Values have the names of the simulation's nodes, outputs of a dictionary those of its keys; the integers behind a
    quantizer NODE are called NODE.integers.
    """
    model = translate(network, example)
    name_values(model, network)
    name_outputs(model, network)
    merge_padding(model)
    pad_integers(model)
    shield_float_layers(model, weights_in_floating_point(model, network))
    derive_bias_scales(model)
    explicit_zero_points(model)
    unpack_initializers(model, weight_bits)
    compact(model, weight_bits)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "zeroq", str(metadata.get("version", ""))
    helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )
    check(model)
    return model


def check(model: ModelProto) -> None:
    """Raise ModelError for a file that is no valid ONNX."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(". ")
        raise ModelError(f"The network cannot be written to ONNX ({reason}): {ADVICE}.") from error


ADVICE = "compute that step in 32-bit floats, or leave it out of the network"


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


def name_outputs(model: ModelProto, network: QuantizedNetwork) -> None:
    """Call the entries of a dictionary that a network gives by their keys, those of nested ones as "boxes.0".

    A value that has several keys, or is an input, gets a copy for each; a name that another value has, an ending.
    """
    form = list(network.graph.nodes)[-1].args[0]
    if not isinstance(form, Mapping):
        return
    paths: list[tuple[Any, ...]] = [path for path, _ in pytree.tree_flatten_with_path(form)[0]]
    made = {name for node in model.graph.node for name in node.output}
    used = made.union(*(node.input for node in model.graph.node))
    new: dict[str, str] = {}
    copies: list[NodeProto] = []
    for output, path in zip(model.graph.output, paths, strict=True):
        key = ".".join(str(getattr(part, "key", getattr(part, "idx", None))) for part in path) or "output"
        while key in used:
            key = f"{key}_output"
        used.add(key)
        if output.name in made and output.name not in new:
            new[output.name] = key
        else:
            copies.append(helper.make_node("Identity", [output.name], [key]))
        output.name = key
    model.graph.node.extend(copies)
    rename(model, new)


def name_scales(model: ModelProto) -> None:
    """Give each quantizer a scale of its own name, NODE.scale: fused operators keep it when other names are lost."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        integers = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if not integers.endswith((".integers", ".clipped")):
            continue
        name = f"{integers.rsplit('.', 1)[0]}.scale"
        if name not in made:
            made.add(name)
            model.graph.initializer.append(
                numpy_helper.from_array(numpy_helper.to_array(constants[node.input[1]]), name)
            )
        node.input[1] = name


def weights_in_floating_point(model: ModelProto, network: QuantizedNetwork) -> set[str]:
    """Names of weights that are stored as integers for layers that compute in floating point: Cast and Mul make them.

    onnxruntime folds these two when the file is loaded; a DequantizeLinear it would keep, and compute in every run.
    """
    stored = {str(node.args[0].target) for node in network.graph.nodes if node.target == WEIGHT_ONLY}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made: dict[str, str] = {}  # by the integers: sites of one layer share them
    new: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            nodes.append(node)
            continue
        integers, scale = node.input[:2]
        if integers in made:
            new[node.output[0]] = made[integers]
            continue
        made[integers] = node.output[0]
        axes = len(constants[integers].dims) - 1
        column = numpy_helper.to_array(constants[scale]).reshape(-1, *[1] * axes)
        model.graph.initializer.append(numpy_helper.from_array(column, f"{scale}.column"))
        nodes.append(helper.make_node("Cast", [integers], [f"{node.output[0]}.cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{node.output[0]}.cast", f"{scale}.column"], [node.output[0]]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    rename(model, new)
    return set(made.values())


def shield_float_layers(model: ModelProto, computed: Collection[str] = ()) -> None:
    """A layer kept in floating point reads its input through a Max of one operand, which changes nothing.

    Between a DequantizeLinear and a QuantizeLinear, onnxruntime would round the layer's weights to 8 bits per tensor by
    itself, and without any limit on pairs.  computed: weights that are no constants themselves, but follow from some.
    """
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    constants |= set(computed)
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
