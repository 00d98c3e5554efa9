"""What the values of a network are on average and how far they spread, without any image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import LAYER_OPERATORS, LIMIT, Network
from zeroq.graph.normal import Normal
from zeroq.simulate.kernels import CONCATENATION, POOLING, is_passing, is_rectifier, joins_two

aten = torch.ops.aten

FAR = 40.0  # deviations: nothing lies beyond


def expected_values(network: Network, normals: Mapping[str, Normal]) -> dict[str, Normal]:
    """Mean and deviation of every value at every place of a map, float64 [1, *shape], as far as they can be told.

    Those of BatchNorms where there are any (as DFQ has them, arXiv:1906.04721, section 4.2 and appendix C), and behind
    a ReLU or ReLU6 those of a normal number that is cut off. Elsewhere as if values were independent: of sums, products
    and of layers that no BatchNorm knows. Pooling is taken to leave mean and deviation alone, which an average makes
    smaller in truth and a maximum greater in mean. What other functions give is not told, nor what follows from it.

    network: folded.  normals: of its values, and of its inputs, [channels].
    """
    found: dict[str, Normal] = {}
    for node in network.graph.nodes:
        shape = network.shapes.get(node.name)
        if not shape or node.op == "get_attr":
            continue
        if node.name in normals and len(normals[node.name].mean) == shape[0]:  # not phases of a transposed convolution
            found[node.name] = spread(normals[node.name], shape)
        elif (value := followed(network, node, found)) is not None:
            found[node.name] = value
    return found


def spread(normal: Normal, shape: tuple[int, ...]) -> Normal:
    """Of channels, at every place of a value of that shape, channels first."""
    axes = len(shape) - 1
    mean, deviation = (each.reshape(-1, *[1] * axes).expand(shape)[None] for each in (normal.mean, normal.deviation))
    return Normal(mean, deviation)


def followed(network: Network, node: fx.Node, found: Mapping[str, Normal]) -> Normal | None:
    """A value's normal from those of what it is computed from; None where it cannot be told."""
    sources = [each for each in node.all_input_nodes if each.op != "get_attr"]
    if not sources or any(source.name not in found for source in sources):
        return None
    normals = [found[source.name] for source in sources]
    if is_rectifier(node):
        ceiling = float(node.args[2]) if node.target == aten.hardtanh.default else math.inf  # type: ignore[arg-type]
        return clamped(normals[0], torch.zeros(()), torch.tensor(ceiling))
    if node.target == LIMIT:
        ends = [
            torch.tensor(unbound) if bound is None else network.tensors[str(bound.target)]  # type: ignore[union-attr]
            for bound, unbound in zip([*node.args[1:], None][:2], (-math.inf, math.inf), strict=True)
        ]
        return clamped(normals[0], *ends)
    if node.target in LAYER_OPERATORS and node.args[1].op == "get_attr":  # type: ignore[union-attr]
        return through_layer(network, node, normals[0])
    if joins_two(node):
        one, other = normals * 2 if len(normals) == 1 else normals
        return added(one, other) if node.target == aten.add.Tensor else multiplied(one, other)
    if is_passing(node) or node.target in POOLING or node.target == CONCATENATION:
        mean, variance = (
            computed(node, {source: part(normal) for source, normal in zip(sources, normals, strict=True)})
            for part in (lambda normal: normal.mean, lambda normal: normal.deviation.square())
        )
        return Normal(mean, variance.sqrt())
    return None


def computed(node: fx.Node, values: Mapping[fx.Node, Tensor]) -> Tensor:
    """An operator applied to one image."""
    target: Any = node.target
    positional, named = fx.map_arg((node.args, dict(node.kwargs)), lambda each: values[each])
    result: Tensor = target(*positional, **named)
    return result


def through_layer(network: Network, node: fx.Node, normal: Normal) -> Normal:
    """Of a layer's output whose inputs are independent: W m + b and W^2 v."""
    target: Any = node.target
    weight = network.tensors[str(node.args[1].target)].detach().double()  # type: ignore[union-attr]
    bias = node.args[2] if len(node.args) > 2 else None
    shift = None if bias is None else network.tensors[str(bias.target)].detach().double()  # type: ignore[union-attr]
    variance = target(normal.deviation.square(), weight.square(), None, *node.args[3:])
    return Normal(target(normal.mean, weight, shift, *node.args[3:]), variance.sqrt())


def added(one: Normal, other: Normal) -> Normal:
    """Of the sum of two independent values."""
    return Normal(one.mean + other.mean, (one.deviation.square() + other.deviation.square()).sqrt())


def multiplied(one: Normal, other: Normal) -> Normal:
    """Of the product of two independent values."""
    first, second = one.deviation.square(), other.deviation.square()
    variance = first * second + first * other.mean.square() + second * one.mean.square()
    return Normal(one.mean * other.mean, variance.sqrt())


def clamped(normal: Normal, low: Tensor, high: Tensor) -> Normal:
    """Mean and deviation of normal numbers that are cut off at two bounds, which may be infinite.

    With u = max(x - low, 0) and v = max(x - high, 0): clamp(x) = low + u - v, and u = v + high - low where v > 0.
    """
    deviation = normal.deviation.clamp(min=torch.finfo(torch.float64).tiny)
    reach = FAR * deviation
    low, high = low.double(), high.double()
    low, high = (
        torch.maximum(low, torch.minimum(normal.mean - reach, high)),
        torch.minimum(high, torch.maximum(normal.mean + reach, low)),
    )
    (first, first_square), (second, second_square) = (excess(normal.mean - end, deviation) for end in (low, high))
    square = first_square - second_square - 2 * (high - low) * second
    mean = first - second
    return Normal(low + mean, (square - mean.square()).clamp(min=0).sqrt())


def excess(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """E max(x, 0) and E max(x, 0)^2 of normal numbers."""
    relative = mean / deviation
    below = torch.special.ndtr(relative)
    density = torch.exp(-relative.square() / 2) / math.sqrt(2 * math.pi)
    first = mean * below + deviation * density
    return first, (mean.square() + deviation.square()) * below + mean * deviation * density
