"""One layer by itself at its real shape: how long its integer kernel takes, and floating point in its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import fx

from zeroq.deploy.onnx_file import IR_VERSION
from zeroq.deploy.timing import interleaved
from zeroq.deploy.translate import OPSET, each_axis
from zeroq.deploy.verify import open_session
from zeroq.graph.network import LINEAR, Network

INTEGERS, BETWEEN, BARE = "integers", "between", "bare"
CLIPPED, NARROWED = "clipped", "narrowed"  # INTEGERS of fewer than 8 bits: cut off, or quantized again
NARROW_HIGH = 15  # of 4 bits; how long a Clip takes hangs on no bound
SECONDS = 0.25  # for the models of one shape that are timed against one another
VALUE_SCALE, WIDE_SCALE, WEIGHT_SCALE, RESULT_SCALE = 0.02, 0.0012, 0.01, 0.05  # a kernel's time hangs on no value


@dataclass(frozen=True)
class Kernel:
    """What the time of a layer's site hangs on; equal ones are measured once."""

    inputs: tuple[int, ...]  # [C, ...] of one image; of a linear layer [rows, columns]
    weight: tuple[int, ...]  # output channels first
    bias: bool
    stride: tuple[int, ...] = ()  # all four of a convolution only
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def linear(self) -> bool:
        return not self.stride


@dataclass(frozen=True)
class KernelTimes:
    """Milliseconds of one image, medians."""

    integers: float
    between: float  # in floating point with the steps that lead from integers and back to them
    bare: float  # in floating point between others that are

    def __add__(self, other: KernelTimes) -> KernelTimes:
        return KernelTimes(self.integers + other.integers, self.between + other.between, self.bare + other.bare)


def kernel_of(network: Network, site: fx.Node) -> Kernel:
    """Of a layer's site in a folded network."""
    arguments: list[Any] = [*site.args, *[None] * (7 - len(site.args))]
    inputs = network.shapes[arguments[0].name]
    weight = tuple(network.tensors[str(arguments[1].target)].shape)
    bias = arguments[2] is not None
    if site.target == LINEAR:
        return Kernel((int(numpy.prod(inputs[:-1])), inputs[-1]), weight, bias)
    stride, padding, dilation = (
        tuple(each_axis(neutral if given is None else list(given), len(inputs) - 1))
        for given, neutral in zip(arguments[3:6], (1, 0, 1), strict=True)
    )
    return Kernel(inputs, weight, bias, stride, padding, dilation, arguments[6] or 1)


def measure_kernel(kernel: Kernel, threads: int) -> KernelTimes:
    """Its models timed on this machine; threads: 0 takes all."""
    times = time_kinds(kernel, (INTEGERS, BETWEEN), threads)
    bare = {BARE: open_session(model_of(kernel, BARE), threads, spinning=False)}
    floats = numpy.ones(shape_of(kernel), numpy.float32)
    found = interleaved(bare, {"input": floats}, seconds=SECONDS / 2)
    return KernelTimes(times[INTEGERS], times[BETWEEN], found[BARE].median)


def time_kinds(kernel: Kernel, kinds: Iterable[str], threads: int) -> dict[str, float]:
    """Milliseconds of one image, medians, of models of several kinds but BARE, in turns; threads: 0 takes all."""
    values = numpy.random.default_rng(0).integers(0, 255, channels_last(kernel), dtype=numpy.uint8)
    sessions = {kind: open_session(model_of(kernel, kind), threads, spinning=False) for kind in kinds}
    times = interleaved(sessions, {"input": values}, seconds=SECONDS)
    return {kind: timing.median for kind, timing in times.items()}


def shape_of(kernel: Kernel) -> tuple[int, ...]:
    """Of what the layer reads."""
    return kernel.inputs if kernel.linear else (1, *kernel.inputs)


def channels_last(kernel: Kernel) -> tuple[int, ...]:
    """The same with channels last, as onnxruntime passes integers from one convolution to the next."""
    return kernel.inputs if kernel.linear else (1, *kernel.inputs[1:], kernel.inputs[0])


def model_of(kernel: Kernel, kind: str) -> ModelProto:
    """A layer as INTEGERS or BETWEEN integers, which it takes and gives with channels last, or BARE.

    In integers, onnxruntime takes the transpositions away; for floating point it has to do them, as in a whole file.
    CLIPPED and NARROWED are in integers as well, behind what makes 8 bits fewer.
    """
    integers = kind in (INTEGERS, CLIPPED, NARROWED)
    constants = constants_of(kernel)
    nodes: list[Any] = []
    value = "input"

    def add(operator: str, *others: str, **attributes: Any) -> None:
        nonlocal value
        nodes.append(helper.make_node(operator, [value, *others], [f"value{len(nodes)}"], **attributes))
        value = nodes[-1].output[0]

    axes = len(kernel.inputs) + 1
    moves = kind != BARE and not kernel.linear
    if moves:
        add("Transpose", perm=[0, axes - 1, *range(1, axes - 1)])
    if kind == NARROWED:
        add("DequantizeLinear", "wide_scale", "zero")
        add("QuantizeLinear", "value_scale", "zero")
    if kind in (CLIPPED, NARROWED):
        add("Clip", "zero", "high")
    if kind != BARE:
        add("DequantizeLinear", "value_scale", "zero")
    if kind == BETWEEN:
        add("Max")  # as onnx_file.shield_float_layers has it
    weight, bias = ("weight_values", "bias_values") if integers else ("weight", "bias")
    add(*layer_of(kernel, weight, bias), **attributes_of(kernel))
    if kind != BARE:
        add("QuantizeLinear", "result_scale", "zero")
    if moves:
        add("Transpose", perm=[0, *range(2, axes), 1])
    if integers:
        stored = {weight: ["weight_integers", "weight_scale", "zeros"], bias: ["bias_integers", "bias_scale"]}
        used = [weight, bias][: 1 + kernel.bias]
        nodes[:0] = [helper.make_node("DequantizeLinear", stored[name], [name], axis=0) for name in used]
    read = (TensorProto.FLOAT, shape_of(kernel)) if kind == BARE else (TensorProto.UINT8, channels_last(kernel))
    given = TensorProto.FLOAT if kind == BARE else TensorProto.UINT8
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("input", *read)],
        [helper.make_tensor_value_info(value, given, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def layer_of(kernel: Kernel, weight: str, bias: str) -> tuple[str, ...]:
    """The operator, and its operands behind the value."""
    return ("Gemm" if kernel.linear else "Conv", weight, *([bias] if kernel.bias else []))


def attributes_of(kernel: Kernel) -> dict[str, Any]:
    """As the exported file has them."""
    if kernel.linear:
        return {"transB": 1}
    return {
        "kernel_shape": kernel.weight[2:], "strides": kernel.stride, "pads": kernel.padding * 2,
        "dilations": kernel.dilation, "group": kernel.groups,
    }  # fmt: skip


def constants_of(kernel: Kernel) -> dict[str, NDArray[Any]]:
    """Weight and bias in integers and in floating point, and what quantizes values."""
    random, channels = numpy.random.default_rng(0), kernel.weight[0]
    integers = random.integers(-63, 64, kernel.weight).astype(numpy.int8)
    bias = random.integers(-100, 100, channels).astype(numpy.int32)
    product = numpy.float32(VALUE_SCALE * WEIGHT_SCALE)
    return {
        "weight_integers": integers,
        "weight_scale": numpy.full(channels, WEIGHT_SCALE, numpy.float32),
        "weight": integers.astype(numpy.float32) * numpy.float32(WEIGHT_SCALE),
        "bias_integers": bias,
        "bias_scale": numpy.full(channels, product, numpy.float32),
        "bias": bias.astype(numpy.float32) * product,
        "zeros": numpy.zeros(channels, numpy.int8),
        "zero": numpy.array(0, numpy.uint8),
        "high": numpy.array(NARROW_HIGH, numpy.uint8),
        "wide_scale": numpy.array(WIDE_SCALE, numpy.float32),
        "value_scale": numpy.array(VALUE_SCALE, numpy.float32),
        "result_scale": numpy.array(RESULT_SCALE, numpy.float32),
    }
