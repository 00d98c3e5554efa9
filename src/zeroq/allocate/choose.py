"""Which points of the frontier answer what was asked: a size in the asker's own unit, and candidates within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from zeroq.allocate.frontier import Frontier
from zeroq.errors import SizeError

FLOAT_BITS = 32
WAY_OUT = "or allow fewer bits in --weight-bits, --edge-bits or --layer-bits."
LEAST_SHARE = Fraction(9, 10)  # of the best point's size; a point much smaller only repeats the best at fewer bits


class Candidate(NamedTuple):
    """A setting worth verifying: "frontier-1" (the best by the table), "frontier-2", ..., "uniform-4", ..."""

    name: str
    setting: tuple[int, ...]  # option of each layer


def budget_in_weight_bits(
    *,
    least: int,
    weights: int,
    other_bytes: int = 0,
    average_bits: float | None = None,
    compression: float | None = None,
    size_mb: float | None = None,
) -> int | None:
    """Bits that all quantized weights may have together, exactly as the decimal number asked says; None without target.

    least: bits of the smallest setting, frontier.sizes[0].  weights: number of quantized weights.  other_bytes: what
    the file holds beside the bits of the weights, which only a size in megabytes (10^6 bytes) counts.
    Raises SizeError that names the least size, in the unit asked, and how to come below it.
    """
    if average_bits is not None:
        budget = math.floor(_exactly(average_bits) * weights)
        if budget < least:
            bits = _rounded_up(Fraction(least, weights), digits=2)
            raise SizeError(
                f"An average of {average_bits:g} bits cannot be reached, the smallest setting has {bits:g}: "
                f"ask for --average-bits {bits:g} or more, {WAY_OUT}"
            )
        return budget
    if compression is not None:
        budget = math.floor(FLOAT_BITS * weights / _exactly(compression))
        if budget < least:
            most = -_rounded_up(-Fraction(FLOAT_BITS * weights, least), digits=2)
            raise SizeError(
                f"A compression of {compression:g} cannot be reached, the smallest setting has {most:g}: "
                f"ask for --compression {most:g} or less, {WAY_OUT}"
            )
        return budget
    if size_mb is not None:
        budget = (math.floor(_exactly(size_mb) * 10**6) - other_bytes) * 8
        if budget < least:
            size = _rounded_up(Fraction(math.ceil(least / 8) + other_bytes, 10**6), digits=4)
            other = _rounded_up(Fraction(other_bytes, 10**6), digits=4)
            raise SizeError(
                f"{size_mb:g} MB cannot be reached, the smallest file has {size:g} MB, of which {other:g} MB are not "
                f"quantized weights: ask for --size-mb {size:g} or more, {WAY_OUT}"
            )
        return budget
    return None


def best_within(frontier: Frontier, limit: int) -> int:
    """Index of the point of least cost whose size is at most `limit`; costs fall with size, so it is the largest."""
    index = int(np.searchsorted(frontier.sizes, limit, side="right")) - 1
    if index < 0:
        raise SizeError(
            f"{limit} bits for all weights cannot be reached, the smallest setting has {frontier.sizes[0]}."
        )
    return index


def candidates(
    frontier: Frontier, limit: int, widths: Sequence[Sequence[int]], uniform: Sequence[int], count: int = 2
) -> list[Candidate]:
    """Settings within `limit` to choose from by verification: `count` of the frontier, then the widest uniform one.

    widths: bits of each layer's options, [layers][options].  uniform: widths that may be one for all layers that have
    a choice; layers of one option keep it.
    Neighbours on a frontier differ by a layer or two and would be the same experiment, so each point taken differs from
    those before it in a tenth of the layers.
    """
    chosen = [
        Candidate(f"frontier-{rank}", setting) for rank, setting in enumerate(_spread(frontier, limit, count), start=1)
    ]
    for width in sorted(uniform, reverse=True):
        setting = _uniform_setting(widths, width)
        if setting and frontier.size_of(setting) <= limit:
            new = setting not in [other.setting for other in chosen]
            return [*chosen, Candidate(f"uniform-{width}", setting)] if new else chosen
    return chosen


def _spread(frontier: Frontier, limit: int, count: int) -> list[tuple[int, ...]]:
    """The best setting within the limit and the next ones below that differ from all before, at most `count`."""
    best = best_within(frontier, limit)
    lowest = int(np.searchsorted(frontier.sizes, math.ceil(LEAST_SHARE * int(frontier.sizes[best]))))
    settings = frontier.settings(np.arange(best, lowest - 1, -1))
    apart = max(1, sum(len(sizes) > 1 for sizes in frontier.option_sizes) // 10)
    differs = np.full(len(settings), True)
    taken: list[tuple[int, ...]] = []
    while len(taken) < count and differs.any():
        setting = settings[int(differs.argmax())]
        taken.append(tuple(setting.tolist()))
        differs &= (settings != setting).sum(axis=1) >= apart
    return taken


def _uniform_setting(widths: Sequence[Sequence[int]], width: int) -> tuple[int, ...] | None:
    """`width` in every layer that has a choice, or None where a layer cannot have it."""
    if not all(len(options) == 1 or width in options for options in widths):
        return None
    return tuple(0 if len(options) == 1 else list(options).index(width) for options in widths)


def _exactly(value: float) -> Fraction:
    """The decimal number that was written, 4.1 and not the float nearest to it."""
    return Fraction(str(value))


def _rounded_up(value: Fraction, digits: int) -> float:
    """So that asking for the number in an error succeeds."""
    return math.ceil(value * 10**digits) / 10**digits
