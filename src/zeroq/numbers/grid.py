"""The integer grid: the only place where a number is rounded to an integer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.errors import OptionError

LEAST_BITS, MOST_BITS = 2, 8


@dataclass(frozen=True)
class Grid:
    """The integers of one width.

    Signed grids hold weights: two's complement, but at 8 bits without -128, so that magnitudes are at most 127.
    Unsigned grids hold activations.
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


def quantize(values: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int) -> Tensor:
    """round(values / scale) + zero_point, clamped to [low, high], as floating point; half to even as in ONNX."""
    return torch.clamp(torch.round(values / scale) + zero_point, low, high)


def dequantize(integers: Tensor, scale: Tensor, zero_point: Tensor | int) -> Tensor:
    """(integers - zero_point) * scale, in the precision of `scale`."""
    return (integers.to(scale.dtype) - zero_point) * scale
