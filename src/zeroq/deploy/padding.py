"""Zero padding between quantizers, which onnxruntime would do in floating point: by convolutions, or in integers."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


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


def pad_integers(model: ModelProto) -> None:
    """Other zero padding between two equal quantizers moves in front of the dequantization: it adds zero points."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    for quantize in [node for node in model.graph.node if node.op_type == "QuantizeLinear"]:
        pad = producer.get(quantize.input[0])
        if pad is None or not is_zero_padding(pad, constants) or pad.input[0] not in producer:
            continue
        before = producer[pad.input[0]]
        if before.op_type == "DequantizeLinear" and alike(before, quantize, constants):
            inputs = [before.input[0], pad.input[1], quantize.input[2]]
            quantize.CopyFrom(helper.make_node("Pad", inputs, [quantize.output[0]]))
    remove_unread(model)


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
