"""The range that a quantizer should have, from the histogram of its value."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zeroq.numbers.grid import Grid, dequantize, quantize
from zeroq.numbers.values import ActivationRange
from zeroq.ranges.histogram import Histogram

# Three networks at 8, 6 and 4 bits, activations alone, mean ratio of the divergence to that at 2.4: 0.82 at 1.5 (but
# half as much again as at 2 on small networks at 8 bits), 0.85 at 2, 1.25 at 3, 1.39 at 8.
POWER = 2.0
LEAST_SCALE = 1e-9  # a value that hardly differs from 0 needs none finer
LEAST_FACTOR = 0.02  # of the extremes
SINGLE, DOUBLE = 24, 10  # candidates of the first pass: for one end, for each of two ends
CUT = 0.99  # of a span's end, from where on a range is taken to be cut by it
FINER, PASSES = 2, 2  # candidates to each side of the best, and how often the grid is refined around it


@dataclass(frozen=True)
class Target:
    """What is searched for: the histogram's occupied bins and the bounds on the answer."""

    centres: Tensor  # [bins]
    shares: Tensor  # [bins], of all numbers, or of what all of them weigh
    grid: Grid
    low: float  # extremes, 0 inside
    high: float
    ceiling: float | None


def range_of(
    histogram: Histogram,
    bits: int,
    source: str,
    *,
    unsigned: bool,
    ceiling: float | None = None,
    span: tuple[float, float] | None = None,
    weighed: bool = False,
) -> ActivationRange:
    """The range [low, high] with the least sum of count |x - Q(x)|^POWER, clipping included.

    0 is inside and exactly represented: low and high are -zero_point * scale and (levels - zero_point) * scale.
    unsigned: low is 0 (behind a ReLU; negative numbers are not weighed).  ceiling: high never lies above it (ReLU6).
    span: no end lies beyond it, but for the rounding of the zero point; a range that it cuts has the source
    "batchnorm".  weighed: with sums of squared gradients in place of counts, where there are any.
    A value that is always 0, or was never seen, gets a harmless range, whose source is "neither".
    """
    grid = Grid(bits, signed=False)
    weights = histogram.weights if weighed and bool(histogram.weights.any()) else histogram.counts
    occupied = weights > 0
    if unsigned:
        occupied &= histogram.centres > 0
    if not occupied.any():
        return harmless(grid, unsigned, ceiling)
    kept = weights[occupied].double()
    shares = (kept / kept.sum()).float()
    low = 0.0 if unsigned else min(histogram.low, 0.0)
    high = max(histogram.high, 0.0) if ceiling is None else min(max(histogram.high, 0.0), ceiling)
    held = (low, high) if span is None else (max(low, min(span[0], 0.0)), min(high, max(span[1], 0.0)))
    if held[0] == held[1]:  # nothing is left of what was seen
        held = (low, high)
    target = Target(histogram.centres[occupied], shares, grid, *held, ceiling)
    scale, zero_point = search(target)
    found = ActivationRange(-zero_point * scale, (grid.high - zero_point) * scale, bits, source)
    cut = (held[0] > low and found.low < CUT * held[0]) or (held[1] < high and found.high > CUT * held[1])
    return replace(found, source="batchnorm") if cut else found


def harmless(grid: Grid, unsigned: bool, ceiling: float | None) -> ActivationRange:
    """[0, 1] or about [-1, 1], for a value of which nothing is known."""
    zero_point = 0 if unsigned else (grid.high + 1) // 2
    high = min(1.0, ceiling or 1.0)
    scale = floored(high / (grid.high - zero_point))
    return ActivationRange(-zero_point * scale, (grid.high - zero_point) * scale, grid.bits, "neither")


def search(target: Target) -> tuple[float, int]:
    """Scale and zero point of the best range: a geometric grid of factors on both extremes, refined around the best."""
    single = target.low == 0 or target.high == 0
    count = SINGLE if single else DOUBLE
    ratio = LEAST_FACTOR ** (1 / (count - 1))
    low_factors = high_factors = ratio ** torch.arange(count, dtype=torch.float64)
    for _ in range(PASSES + 1):
        lows, highs = grid_of(target, low_factors, high_factors)
        scale, zero_point = consistent(target, lows, highs)
        best = int(torch.argmin(errors(target, scale, zero_point)))
        ratio **= 1 / (FINER + 1)
        around = ratio ** torch.arange(-FINER, FINER + 1, dtype=torch.float64)
        low_factors = (around * lows[best] / (target.low or 1)).clamp(max=1)
        high_factors = (around * highs[best] / (target.high or 1)).clamp(max=1)
    return scale[best].item(), int(zero_point[best])


def grid_of(target: Target, low_factors: Tensor, high_factors: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of ends, [candidates] each; an end at 0 stays there."""
    lows = target.low * (low_factors if target.low < 0 else torch.ones(1, dtype=torch.float64))
    highs = target.high * (high_factors if target.high > 0 else torch.ones(1, dtype=torch.float64))
    pairs = torch.cartesian_prod(lows, highs)
    return pairs[:, 0], pairs[:, 1]


def consistent(target: Target, lows: Tensor, highs: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zero points of ranges, so that 0 is an integer and no high end lies above the ceiling."""
    levels = target.grid.high
    scale = ((highs - lows) / levels).clamp(min=LEAST_SCALE).float()
    zero_point = torch.round(-lows / scale.double()).clamp(0, levels)
    if target.ceiling is not None:
        limit = target.ceiling / (levels - zero_point).clamp(min=1)
        scale = torch.minimum(scale, torch.tensor([floored(value) for value in limit.tolist()]))
    return scale, zero_point.float()


def floored(value: float) -> float:
    """The nearest 32-bit float that is not above a number, and stays so when multiplied by up to 255."""
    nearest = torch.tensor(value, dtype=torch.float32)
    if nearest.item() > value:
        nearest = torch.nextafter(nearest, torch.zeros(()))
    return nearest.item()


def errors(target: Target, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Mean |x - Q(x)|^POWER of each candidate, [candidates]."""
    scale, zero_point = scale[:, None], zero_point[:, None]
    integers = quantize(target.centres, scale, zero_point, target.grid.low, target.grid.high)
    missed = dequantize(integers, scale, zero_point).sub_(target.centres).abs_()
    # In units of the largest magnitude, as a power of a tiny or huge number is not a float.
    unit = max(-target.low, target.high)
    return (missed / unit).pow_(POWER) @ target.shares
