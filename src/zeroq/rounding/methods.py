"""A layer's weight -> integers and scales, by any of the methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroq.errors import NumericalError
from zeroq.numbers.grid import MOST_BITS, Grid
from zeroq.numbers.values import IntegerWeight
from zeroq.rounding.filters import from_filters, is_limited, to_filters
from zeroq.rounding.gptq import DAMPING, Elimination, elimination, round_gptq
from zeroq.rounding.joint import round_on_best_grid
from zeroq.rounding.nearest import round_nearest
from zeroq.rounding.scales import search_scales
from zeroq.rounding.squant import round_squant

Method = Callable[[Tensor, Tensor, Grid, Elimination | None, bool, int], Tensor]

METHODS: dict[str, Method] = {"nearest": round_nearest, "gptq": round_gptq, "squant": round_squant}


def round_weight(weight: Tensor, bits: int, hessian: Tensor | None, **how: Any) -> IntegerWeight:
    """Integers of one width; as `round_widths`."""
    return round_widths(weight, (bits,), hessian, **how)[bits]


def round_widths(
    weight: Tensor,
    widths: Sequence[int],
    hessian: Tensor | None,
    *,
    groups: int = 1,
    method: str = "gptq",
    portable: bool = True,
    least_scale: Tensor | None = None,
    name: str = "",
) -> dict[int, IntegerWeight]:
    """Integers of each width and one scale per output channel: scales first, then the integers by the method.

    Below 8 bits "gptq" finds both together, up to 6 bits on a grid of each channel's own.

    weight: [out, in / groups, *kernel].  hessian: 2 E[a a^T] of the layer's inputs, [groups, columns, columns], columns
    as (*kernel, input channel), or None (squared errors then weigh alike; "gptq" needs it).
    portable: no pair of 8-bit integers can saturate on a CPU without VNNI.
    least_scale: [out], a bound from below, so that a large bias fits into 32 bits on a channel of tiny weights.
    name: of the layer, for errors. Raises NumericalError where weight or Hessian hold NaN or infinity.
    """
    if not torch.isfinite(weight).all():
        raise NumericalError(f"The weight of layer {name!r} holds NaN or infinity: quantize a network that computes.")
    if hessian is not None and not torch.isfinite(hessian).all():
        raise NumericalError(f"The inputs of layer {name!r} hold NaN or infinity: quantize a network that computes.")
    shape, filters = tuple(weight.shape), to_filters(weight.detach().float(), groups)
    least = None if least_scale is None else least_scale.float().reshape(filters.shape[:2])
    weights = None if hessian is None else importance(hessian)
    columns = elimination(hessian) if method == "gptq" and hessian is not None else None
    rounded = {}
    for bits in widths:
        grid, limited = Grid(bits, signed=True), portable and is_limited(shape, groups, bits)
        if columns is not None and bits < MOST_BITS:
            scale, integers = round_on_best_grid(filters, grid, columns, weights, least)
        else:
            scale = search_scales(filters, grid, weights, limited=limited, least=least)
            integers = METHODS[method](filters, scale, grid, columns, limited, math.prod(shape[2:]))
        scale = ordinary_where_zero(scale, integers)
        rounded[bits] = IntegerWeight(from_filters(integers, shape).to(torch.int8), scale.flatten(), bits, method)
    return rounded


def ordinary_where_zero(scale: Tensor, integers: Tensor) -> Tensor:
    """The layer's median scale for channels whose integers are all 0, where any serves.

    A dead channel would have one of 1e-12 or so, and a bias in steps of it: other tools' importers refuse such.
    scale: [groups, channels].  integers: [groups, channels, columns].
    """
    alive = (integers != 0).any(-1)
    if alive.all() or not alive.any():
        return scale
    return torch.where(alive, scale, torch.maximum(scale, scale[alive].median()))


def importance(hessian: Tensor) -> Tensor:
    """Diagonal of the Hessian, damped as for the rounding, [groups, columns]; 1 where no input ever arrived."""
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    return torch.where(mean > 0, diagonal + DAMPING * mean, 1.0)
