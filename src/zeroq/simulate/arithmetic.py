"""The graph of a quantized network with the arithmetic of onnxruntime's integer operators, to the last bit.

The graph that is exported says: add products of floats, divide by a scale, round. onnxruntime adds integers exactly and
multiplies the sum by one factor. Both agree on all but one in 100,000 values, which lie on the border between two
integers; but deep networks with narrow layers amplify these few until one class in fifteen differs (MobileNetV2).

Values stay numbers in steps of their scale, as in the exported graph, so that every node means the same in both.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import LAYER_OPERATORS
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE
from zeroq.simulate.kernels import PRODUCTS, is_average

aten = torch.ops.aten

HIGHEST_INPUT = 255
EXACT = 2**24  # up to here every integer is a 32-bit float


def with_integer_arithmetic(graph: fx.Graph) -> fx.Graph:
    """A copy in which every operator between quantizers that has an integer kernel computes as that kernel does.

    Quantizers keep their names; the operators before them, which give sums in floating point, are gone.
    """
    changed = copy.deepcopy(graph)
    quantized = {node: node.args[1] for node in changed.nodes if node.target == QUANTIZE_DEQUANTIZE}
    for node in list(changed.nodes):
        if node in quantized and isinstance(node.args[0], fx.Node):
            source: Any = node.args[0]
            operands = operands_of(source, quantized)
            if operands is not None:
                node.target, node.args = KERNELS[source.target], (*operands, *node.args[1:])
                node.kwargs = settings_of(source)
                if not source.users:
                    changed.erase_node(source)
        elif node.target == aten.linear.default and not any(user in quantized for user in node.users):
            operands = operands_of(node, quantized)
            if operands is not None:
                node.target, node.args = linear_sums, operands
    return changed


def operands_of(node: fx.Node, quantized: dict[fx.Node, Any]) -> tuple[Any, ...] | None:
    """What a kernel takes in place of an operator's arguments, scales beside values; None where it has no kernel."""
    if node.target in LAYER_OPERATORS:
        source, weight, bias = (*node.args, None)[:3]
        stored = [each for each in (weight, bias) if each is not None]
        if source not in quantized or any(each.target != DEQUANTIZE for each in stored):  # type: ignore[union-attr]
            return None
        integers = None if bias is None else bias.args[0]  # type: ignore[union-attr]
        return source, quantized[source], *weight.args, integers  # type: ignore[index, union-attr]
    if node.target in {aten.add.Tensor, aten.mul.Tensor} | PRODUCTS and not node.kwargs:
        pair = node.args[:2]
        if all(each in quantized for each in pair):
            return tuple(part for each in pair for part in (each, quantized[each]))  # type: ignore[index]
    if (is_average(node) or node.target == aten.softmax.int) and node.args[0] in quantized:
        return node.args[0], quantized[node.args[0]]  # type: ignore[index]
    return None


def settings_of(node: fx.Node) -> dict[str, Any]:
    """Stride, padding and the like of a layer; zero points that a sum rounds with; the axis of a softmax."""
    if node.target in LAYER_OPERATORS:
        return {"operator": node.target, "settings": tuple(node.args[3:])}
    if node.target == aten.add.Tensor:
        return {"zero_points": tuple(each.args[-2] for each in node.args[:2])}  # type: ignore[union-attr]
    if node.target == aten.softmax.int:
        return {"axis": node.args[1]}
    return {}


def layer(
    values: Tensor,
    value_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    high: int,
    *,
    operator: Any,
    settings: tuple[Any, ...],
) -> Tensor:
    """QLinearConv, QGemm: the sum of integer products and bias, as a 32-bit float, times s_x s_w / s_y."""
    sums = integer_sums(values, value_scale, weight, bias, operator, settings)
    factor = value_scale * weight_scale / scale
    return rounded(sums.mul_(along_channels(factor, sums, operator)), scale, zero_point, high)


def linear_sums(
    values: Tensor, value_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    """QGemm whose sums leave in floating point: times s_x s_w."""
    sums = integer_sums(values, value_scale, weight, bias, aten.linear.default, ())
    return sums.mul_(value_scale * weight_scale)


def integer_sums(
    values: Tensor,
    value_scale: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operator: Any,
    settings: tuple[Any, ...],
) -> Tensor:
    """Exact sums in floats that hold them, 32 or 64 bits wide, then rounded to 32 bits as onnxruntime does."""
    magnitudes = weight.abs().flatten(1).sum(1, dtype=torch.int64) * HIGHEST_INPUT  # -128 is in no weight of ours
    largest = magnitudes if bias is None else magnitudes + bias.abs()
    kind = torch.float32 if int(largest.max()) < EXACT else torch.float64
    integers = steps_of(values, value_scale).to(kind)
    # On a GPU cuDNN may choose kernels (Winograd, Fourier) that compute with fractions; PyTorch's own do not.
    own_kernels = nullcontext() if values.device.type == "cpu" else torch.backends.cudnn.flags(enabled=False)
    with own_kernels:
        sums: Tensor = operator(integers, weight.to(kind), None if bias is None else bias.to(kind), *settings)
    return sums.float()


def along_channels(factor: Tensor, sums: Tensor, operator: Any) -> Tensor:
    """A factor for each output channel, shaped to multiply sums."""
    return factor if operator == aten.linear.default else factor.reshape(-1, *[1] * (sums.dim() - 2))


def add(
    first: Tensor,
    first_scale: Tensor,
    second: Tensor,
    second_scale: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    high: int,
    *,
    zero_points: tuple[Tensor, Tensor],
) -> Tensor:
    """QLinearAdd, which adds the zero point before it rounds, by two fused multiplications and additions.

    So on CPUs with FMA; on others a few values in a million may fall to the other side.
    """
    ratios = [first_scale / scale, second_scale / scale]
    zeros = [each.float() for each in zero_points]
    fixed = zero_point.float() - fused_multiply_add(ratios[0], zeros[0], ratios[1] * zeros[1])
    operands = [
        steps_of(values, each) + zero
        for values, each, zero in zip((first, second), (first_scale, second_scale), zeros, strict=True)
    ]
    total = fused_multiply_add(operands[0], ratios[0], fused_multiply_add(operands[1], ratios[1], fixed))
    return rounded_with_zero_point(total, scale, zero_point, high)


def multiply(
    first: Tensor,
    first_scale: Tensor,
    second: Tensor,
    second_scale: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    high: int,
) -> Tensor:
    """QLinearMul, which adds the zero point before it rounds as well."""
    product = steps_of(first, first_scale) * steps_of(second, second_scale)
    total = product * (first_scale * second_scale / scale) + zero_point.float()
    return rounded_with_zero_point(total, scale, zero_point, high)


def product(
    first: Tensor,
    first_scale: Tensor,
    second: Tensor,
    second_scale: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    high: int,
) -> Tensor:
    """QLinearMatMul: exact sums of integer products, in floats that hold them, times s_a s_b / s_y."""
    kind = torch.float32 if first.shape[-1] * HIGHEST_INPUT**2 < EXACT else torch.float64
    left, right = steps_of(first, first_scale).to(kind), steps_of(second, second_scale).to(kind)
    sums = torch.matmul(left, right).float()
    return rounded(sums * (first_scale * second_scale / scale), scale, zero_point, high)


def global_average(values: Tensor, value_scale: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    """QLinearGlobalAveragePool: the sum of integers times s_x / (s_y count)."""
    sums = steps_of(values, value_scale).double().sum((-2, -1), keepdim=True).float()
    count = values.shape[-2] * values.shape[-1]
    return rounded(sums * (value_scale / (scale * float(count))), scale, zero_point, high)


def softmax(
    values: Tensor, value_scale: Tensor, scale: Tensor, zero_point: Tensor, high: int, *, axis: int
) -> Tensor:
    """QLinearSoftmax: shares of exponentials from a table, times the whole number of steps that 1 has at most."""
    integers = steps_of(values, value_scale).double()
    powers = torch.exp((integers - integers.amax(axis, keepdim=True)) * value_scale.double()).float()
    steps = powers * torch.floor(1 / scale) / powers.double().sum(axis, keepdim=True).float()
    return rounded(steps, scale, zero_point, high)


def steps_of(values: Tensor, scale: Tensor) -> Tensor:
    """How many steps of its scale each value is from zero."""
    return torch.round(values / scale)


def rounded(steps: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    """Numbers of steps from zero -> the nearest of the integers 0..high -> values; in place."""
    zero = float(zero_point)
    return steps.round_().clamp_(-zero, high - zero).mul_(scale)


def rounded_with_zero_point(steps: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    """The same of numbers that hold the zero point already: a tie goes to the even one of these integers."""
    return steps.round_().clamp_(0, high).sub_(float(zero_point)).mul_(scale)


def fused_multiply_add(one: Tensor, other: Tensor, added: Tensor) -> Tensor:
    """one * other + added, rounded once.  one: 32 bits wide.  other: a single number."""
    return one.double().mul_(other.double()).add(added.double()).float()


KERNELS: dict[Any, Any] = {
    **dict.fromkeys(LAYER_OPERATORS, layer),
    aten.add.Tensor: add,
    aten.mul.Tensor: multiply,
    **dict.fromkeys(PRODUCTS, product),
    aten.adaptive_avg_pool2d.default: global_average,
    aten.softmax.int: softmax,
}
