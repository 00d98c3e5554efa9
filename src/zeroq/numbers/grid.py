"""The integer grid: the only place where a number is rounded to an integer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.errors import OptionError

LEAST_BITS, MOST_BITS = 2, 8
SHIFTED_BITS = 6  # of weights, at most, whose integers need not lie around 0: pairs of them cannot saturate even so


@dataclass(frozen=True)
class Grid:
    """The integers of one width.

    Signed grids hold weights: two's complement, but at 8 bits without -128, so that magnitudes are at most 127; of few
    bits, each filter's may be shifted (`ShiftedGrid`). Unsigned grids hold activations.
    """

    bits: int
    signed: bool

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise OptionError(f"{self.bits} bits: choose {LEAST_BITS} to {MOST_BITS}.")

    @property
    def low(self) -> int:
        """Lowest integer."""
        if not self.signed:
            return 0
        return -(2 ** (self.bits - 1)) + (self.bits == MOST_BITS)

    @property
    def high(self) -> int:
        """Highest integer."""
        return 2 ** (self.bits - self.signed) - 1


@dataclass(frozen=True)
class ShiftedGrid:
    """The integers of one width for each of many filters: 2^bits in a row, 0 among them.

    That is an asymmetric grid whose zero point is taken off its integers already, so that kernels know of none.
    low: the lowest integer of each filter, as floating point.
    """

    bits: int
    low: Tensor

    @property
    def high(self) -> Tensor:
        """Highest integers."""
        return self.low + (2**self.bits - 1)


AnyGrid = Grid | ShiftedGrid  # of all filters alike, or of each of [groups, filters]


def shifts_of(integers: Tensor, bits: int) -> Tensor:
    """How far each filter's integers lie off the signed grid of their width, int8 [filters]; 0 where they are within.

    integers: of a weight, int8, filters first. Raises ValueError where no grid of that width holds them and 0.
    """
    grid = Grid(bits, signed=True)
    low, high = (each.short() for each in integers.flatten(1).aminmax(dim=1))
    shifts = (high - grid.high).clamp(min=0) + (low - grid.low).clamp(max=0)
    least, most = (-grid.high, -grid.low) if bits <= SHIFTED_BITS else (0, 0)  # with which 0 is among them
    fits = (low - shifts >= grid.low) & (high - shifts <= grid.high) & (shifts >= least) & (shifts <= most)
    if not fits.all():
        raise ValueError(f"integers beyond {bits} bits")
    return shifts.to(torch.int8)


def shifted(integers: Tensor, shifts: Tensor) -> Tensor:
    """Each filter's integers moved by so many, int8."""
    return integers + shifts.reshape(-1, *[1] * (integers.dim() - 1))


def quantize(
    values: Tensor, scale: Tensor, zero_point: Tensor | int, low: Tensor | int, high: Tensor | int
) -> Tensor:
    """round(values / scale) + zero_point, clamped to [low, high], as floating point; half to even as in ONNX."""
    return torch.clamp(torch.round(values / scale) + zero_point, low, high)  # type: ignore[arg-type]


def dequantize(integers: Tensor, scale: Tensor, zero_point: Tensor | int) -> Tensor:
    """(integers - zero_point) * scale, in the precision of `scale`."""
    return (integers.to(scale.dtype) - zero_point) * scale
