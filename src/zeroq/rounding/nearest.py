"""Rounding to the nearest integer."""

from __future__ import annotations

from torch import Tensor

from zeroq.numbers.grid import Grid, quantize


def round_nearest(
    filters: Tensor, scale: Tensor, grid: Grid, columns: object, limited: bool, positions: int = 1
) -> Tensor:
    """q = clamp(round(w / s)); scales that hold to the limit on pairs make integers that do.

    filters: [groups, filters, columns].  scale: [groups, filters].  columns, limited, positions: not used.
    Gives integers as floating point, [groups, filters, columns].
    """
    return quantize(filters, scale[..., None], 0, grid.low, grid.high)
