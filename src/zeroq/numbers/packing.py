"""Weights of 2 to 8 bits at their true width, as bytes.

A width is a sum of powers of two (7 = 1 + 2 + 4), and each of them is a field that every integer is cut into, lowest
bits first. One field of all integers makes a plane: densely packed bytes, in each the fields of 8 / width neighbouring
integers, the first of them in the lowest bits. What is cut is q + 2^(bits - 1), which is never negative; 8 bits are
stored as they are.

Fields, not a running stream of bits: a byte then belongs to whole integers only, and a graph of ordinary ONNX operators
can take it apart (zeroq.deploy.unpack).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.numbers.grid import MOST_BITS, Grid


@dataclass(frozen=True, eq=False)
class Plane:
    """One field of every integer: its width, the bits below it, and the packed bytes (uint8 [bytes])."""

    width: int
    shift: int
    data: Tensor

    def __post_init__(self) -> None:
        if self.data.dtype != torch.uint8 or self.data.dim() != 1:
            raise ValueError("a plane's data must be uint8 [bytes]")


def planes_of(bits: int) -> tuple[tuple[int, int], ...]:
    """(width, shift) of every field of a width, the lowest first: 6 bits are (2, 0) and (4, 2)."""
    Grid(bits, signed=True)  # refuses a width that is none
    return tuple((width, bits & (width - 1)) for width in (1, 2, 4, 8) if bits & width)


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` integers of a width; each plane ends with a whole byte."""
    return sum(math.ceil(count * width / 8) for width, _ in planes_of(bits))


def pack(integers: Tensor, bits: int) -> tuple[Plane, ...]:
    """Planes of a signed tensor of any shape (int8), in the order of `planes_of`."""
    grid = Grid(bits, signed=True)
    outside = (integers < grid.low) | (integers > grid.high)
    if integers.dtype != torch.int8 or outside.any():
        raise ValueError(f"integers must be int8 and within {bits} bits")
    flat = integers.contiguous().flatten()
    if bits == MOST_BITS:
        return (Plane(8, 0, flat.view(torch.uint8)),)
    stored = (flat + 2 ** (bits - 1)).view(torch.uint8)
    return tuple(Plane(width, shift, _join(stored >> shift, width)) for width, shift in planes_of(bits))


def unpack(planes: Sequence[Plane], bits: int, shape: Sequence[int]) -> Tensor:
    """The int8 tensor that was packed."""
    if tuple((plane.width, plane.shift) for plane in planes) != planes_of(bits):
        raise ValueError(f"these are not the planes of {bits} bits")
    count = math.prod(shape)
    if sum(len(plane.data) for plane in planes) != packed_bytes(count, bits):
        raise ValueError(f"{list(shape)} integers of {bits} bits take {packed_bytes(count, bits)} bytes")
    if bits == MOST_BITS:
        return planes[0].data.view(torch.int8).reshape(*shape)
    stored = torch.zeros(count, dtype=torch.uint8)
    for plane in planes:
        stored |= _split(plane.data, plane.width)[:count] << plane.shift
    return (stored.view(torch.int8) - 2 ** (bits - 1)).reshape(*shape)


def _join(values: Tensor, width: int) -> Tensor:
    """The lowest `width` bits of each value (uint8 [n]) side by side, [ceil(n x width / 8)]."""
    per_byte = 8 // width
    padded = torch.zeros(math.ceil(len(values) / per_byte) * per_byte, dtype=torch.uint8)
    padded[: len(values)] = values & (2**width - 1)
    fields = padded.reshape(-1, per_byte)
    data = torch.zeros(len(fields), dtype=torch.uint8)
    for place in range(per_byte):
        data |= fields[:, place] << (place * width)
    return data


def _split(data: Tensor, width: int) -> Tensor:
    """The fields of every byte, [bytes x 8 / width]."""
    shifts = torch.arange(0, 8, width, dtype=torch.uint8)
    return ((data[:, None] >> shifts) & (2**width - 1)).flatten()
