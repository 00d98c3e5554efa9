"""QuantizedNetwork -> ONNX as torch.onnx writes it, with our operators and those that have a better twin."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from onnx_ir.passes import common
from onnxscript import opset18 as opset
from onnxscript import optimizer, rewriter
from torch import Tensor

from zeroq.deploy.program import program_of
from zeroq.errors import ModelError
from zeroq.graph.network import LIMIT
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE, WEIGHT_ONLY
from zeroq.simulate.quantized_network import UNCLIPPED, QuantizedNetwork

OPSET = 18  # the first with BitwiseOr, which unpacks weights of some widths
# But for those that take what is added or subtracted for nothing, where it is 1e-8: a divisor's epsilon.
RULES = [rule for rule in rewriter._DEFAULT_REWRITE_RULES if rule not in set(rewriter._no_op.rules)]

aten = torch.ops.aten


def translate(network: QuantizedNetwork, example: tuple[Tensor, ...]) -> ModelProto:
    """One node for each of the network's, constants folded; nothing is merged, so that names stay one to one.

    Raises ModelError for an operator that the exporter does not know.
    """
    inputs = ["input"] if len(example) == 1 else [f"input{index}" for index in range(len(example))]
    plain = program_of(network, example)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                plain or network.graph_module,
                example,
                dynamo=True,
                custom_translation_table=TRANSLATIONS,
                dynamic_shapes=tuple({0: "batch"} for _ in example),
                input_names=inputs,
                opset_version=OPSET,
                optimize=False,  # would merge equal weights, scales and what hangs on them
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        named = re.findall(r"torch\.ops\.\w+\.(\w+)", str(error))
        name = named[-1] if named else "an operator"
        raise ModelError(
            f"The network uses {name}{place_of(network, name, number_of(str(error)))}, which cannot be written to "
            "ONNX: write that step with other operators."
        ) from error
    assert program is not None
    model = program.model
    common.InlinePass()(model)
    optimizer.fold_constants(model)
    if plain is None:  # no rule applies to what is plain, and trying all on every node is a quarter of an export
        rewriter.rewrite(model, RULES)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    optimizer.remove_unused_nodes(model)
    return program.model_proto


def number_of(said: str) -> int:
    """How many steps of the same operator stand before the one that the exporter speaks of, by its name."""
    found = re.search(r"translating node %[a-zA-Z0-9_]*?_(\d+) :", said)
    return int(found[1]) if found else 0


def place_of(network: QuantizedNetwork, operator: str, number: int) -> str:
    """The user's line of a step, or of one that comes apart into it; "" if it is not known.

    What an operator comes apart into has a name like its own, as cdist and _cdist_forward.
    number: how many steps of the same operator stand before it.
    """
    sought = operator.replace("_", "")
    places: dict[str, list[str]] = {}
    for node in network.graph.nodes:
        name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "").replace("_", "")
        if name and (name in sought or sought in name):
            places.setdefault(name, []).append(node.meta.get("place", ""))
    if not places:
        return ""
    own = places[max(places, key=len)]
    return own[min(number, len(own) - 1)]


def quantize_dequantize(values: Any, scale: Any, zero_point: Any, high: int) -> Any:
    """QuantizeLinear to uint8 does not clip below 255; an integer Clip does, and keeps integer kernels."""
    integers = opset.QuantizeLinear(values, scale, zero_point)
    if high < UNCLIPPED:
        integers = opset.Clip(integers, constant(numpy.array(0, numpy.uint8)), constant(numpy.array(high, numpy.uint8)))
    return opset.DequantizeLinear(integers, scale, zero_point)


def dequantize(integers: Any, scale: Any) -> Any:
    """One scale per output channel."""
    return opset.DequantizeLinear(integers, scale, axis=0)


def linear(values: Any, weight: Any, bias: Any = None) -> Any:
    """Gemm, of matrices only: MatMul and Add would leave the bias, and with it the product, in floating point."""
    shape = list(values.shape)
    if len(shape) == 2:
        return opset.Gemm(values, weight, bias, transB=1)
    rows = opset.Reshape(values, constant(numpy.array([-1, int(shape[-1])])))
    # The batch is any number, wherever it stands: attention that is not batch_first has it second.
    sizes = [*(size if isinstance(size, int) else -1 for size in shape[:-1]), int(weight.shape[0])]
    return opset.Reshape(opset.Gemm(rows, weight, bias, transB=1), constant(numpy.array(sizes)))


def limit(values: Any, lower: Any = None, upper: Any = None) -> Any:
    """Bounds for each channel: Clip knows one bound for all."""
    values = values if lower is None else opset.Max(values, lower)
    return values if upper is None else opset.Min(values, upper)


def average_pool(
    values: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Windows beyond the edge become padding that is not counted: QLinearAveragePool is wrong where ceil_mode is set.

    (onnxruntime 1.32: 92 steps off, while AveragePool in floating point is right.)
    """
    shape = [int(size) for size in list(values.shape)[2:]]
    size, step, pad = (each_axis(numbers, len(shape)) for numbers in (kernel_size, stride or kernel_size, padding))
    beyond = [overhang(*axis) for axis in zip(shape, size, step, pad, strict=True)] if ceil_mode else [0] * len(shape)
    window: dict[str, Any] = {"kernel_shape": size, "strides": step}
    if divisor_override is not None:
        pads = [*pad, *(one + other for one, other in zip(pad, beyond, strict=True))]
        means = opset.AveragePool(values, count_include_pad=1, pads=pads, **window)
        return opset.Mul(means, constant(numpy.array(math.prod(size) / divisor_override, numpy.float32)))
    if any(beyond) and any(pad) and count_include_pad:
        values = opset.Pad(values, constant(numpy.array([0, 0, *pad, 0, 0, *pad])))
        pad = [0] * len(shape)
    pads = [*pad, *(one + other for one, other in zip(pad, beyond, strict=True))]
    return opset.AveragePool(values, count_include_pad=int(count_include_pad and not any(beyond)), pads=pads, **window)


def max_pool(
    values: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    """Windows beyond the edge become padding as well: ONNX counts one that starts in the padding, PyTorch does not."""
    shape = [int(size) for size in list(values.shape)[2:]]
    lists = (kernel_size, stride or kernel_size, padding, dilation)
    size, step, pad, spread = (each_axis(numbers, len(shape)) for numbers in lists)
    reach = [each * (length - 1) + 1 for length, each in zip(size, spread, strict=True)]
    beyond = [overhang(*axis) for axis in zip(shape, reach, step, pad, strict=True)] if ceil_mode else [0] * len(shape)
    pads = [*pad, *(one + other for one, other in zip(pad, beyond, strict=True))]
    return opset.MaxPool(values, kernel_shape=size, strides=step, pads=pads, dilations=spread)[0]


def each_axis(numbers: Sequence[int] | int, axes: int) -> list[int]:
    """One number per axis."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    return given * axes if len(given) == 1 else given


def overhang(size: int, window: int, step: int, pad: int) -> int:
    """How far PyTorch's last window of ceil_mode reaches beyond the padded axis; it starts inside."""
    windows = math.ceil((size + 2 * pad - window) / step) + 1
    if (windows - 1) * step >= size + pad:
        windows -= 1
    return max((windows - 1) * step + window - size - 2 * pad, 0)


def adaptive_average_pool(values: Any, output_size: Sequence[int]) -> Any:
    """Global pooling has an integer kernel; windows of several sizes become products with a matrix for each axis."""
    if list(output_size) == [1, 1]:
        return opset.GlobalAveragePool(values)
    height, width = (int(size) for size in list(values.shape)[2:])
    narrowed = opset.MatMul(values, constant(window_means(width, output_size[1]).T.copy()))
    return opset.MatMul(constant(window_means(height, output_size[0])), narrowed)


def adaptive_average_pool_1d(values: Any, output_size: Sequence[int]) -> Any:
    """The same along one axis."""
    return opset.MatMul(values, constant(window_means(int(list(values.shape)[-1]), output_size[0]).T.copy()))


def window_means(size: int, windows: int) -> NDArray[numpy.float32]:
    """Row i takes the mean of adaptive pooling's i-th window, [windows, size]."""
    matrix = numpy.zeros((windows, size), numpy.float32)
    for index in range(windows):
        start, stop = index * size // windows, math.ceil((index + 1) * size / windows)
        matrix[index, start:stop] = 1 / (stop - start)
    return matrix


def constant(values: NDArray[Any]) -> Any:
    """A constant in the graph."""
    return opset.Constant(value=numpy_helper.from_array(values))


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    QUANTIZE_DEQUANTIZE: quantize_dequantize,
    DEQUANTIZE: dequantize,
    WEIGHT_ONLY: dequantize,  # onnx_file.weights_in_floating_point goes on from there
    aten.linear.default: linear,
    LIMIT: limit,
    aten.max_pool1d.default: max_pool,
    aten.max_pool2d.default: max_pool,
    aten.max_pool3d.default: max_pool,
    aten.avg_pool1d.default: average_pool,
    aten.avg_pool2d.default: average_pool,
    aten.avg_pool3d.default: average_pool,
    aten.adaptive_avg_pool2d.default: adaptive_average_pool,
    aten.adaptive_avg_pool1d.default: adaptive_average_pool_1d,
}


@contextmanager
def quiet() -> Iterator[None]:
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
