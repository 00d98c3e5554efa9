"""Packing against integers written out bit by bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroq.errors import OptionError
from zeroq.numbers.grid import Grid
from zeroq.numbers.packing import Plane, pack, packed_bytes, planes_of, unpack

WIDTHS = range(2, 9)


@st.composite
def integers_of_a_width(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    bits = draw(st.sampled_from(WIDTHS))
    grid = Grid(bits, signed=True)
    values = draw(st.lists(st.integers(grid.low, grid.high), max_size=40))
    return torch.tensor(values, dtype=torch.int8), bits


def field(value: int, width: int, shift: int) -> int:
    return (value >> shift) % 2**width


@settings(deadline=None)
@given(integers_of_a_width())
def test_what_is_packed_comes_back(given: tuple[torch.Tensor, int]) -> None:
    integers, bits = given
    planes = pack(integers, bits)
    assert torch.equal(unpack(planes, bits, integers.shape), integers)
    assert sum(len(plane.data) for plane in planes) == packed_bytes(len(integers), bits)


@settings(deadline=None)
@given(integers_of_a_width())
def test_every_field_is_where_the_layout_says(given: tuple[torch.Tensor, int]) -> None:
    integers, bits = given
    offset = 0 if bits == 8 else 2 ** (bits - 1)
    for plane in pack(integers, bits):
        per_byte = 8 // plane.width
        for index, value in enumerate(integers.tolist()):
            byte = int(plane.data[index // per_byte])
            expected = field((value + offset) % 256, plane.width, plane.shift)
            assert field(byte, plane.width, index % per_byte * plane.width) == expected


def test_fields_are_the_powers_of_two_of_a_width() -> None:
    assert [planes_of(bits) for bits in (2, 3, 4)] == [((2, 0),), ((1, 0), (2, 1)), ((4, 0),)]
    assert [planes_of(bits) for bits in (5, 6)] == [((1, 0), (4, 1)), ((2, 0), (4, 2))]
    assert [planes_of(bits) for bits in (7, 8)] == [((1, 0), (2, 1), (4, 3)), ((8, 0),)]


def test_a_byte_in_full() -> None:
    (plane,) = pack(torch.tensor([-8, 7, 0], dtype=torch.int8), 4)
    assert plane.data.tolist() == [0xF0, 0x08]


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_width_takes_its_bits_and_no_more(bits: int) -> None:
    assert packed_bytes(8000, bits) == 1000 * bits
    assert packed_bytes(9, bits) <= (9 * bits + 7) // 8 + 2


@pytest.mark.parametrize("bits", WIDTHS)
def test_shape_and_layout_of_the_tensor_do_not_matter(bits: int) -> None:
    integers = torch.randint(-2, 2, (3, 5, 3, 3), dtype=torch.int8)
    strided = integers.to(memory_format=torch.channels_last)
    assert [a.data.tolist() for a in pack(integers, bits)] == [b.data.tolist() for b in pack(strided, bits)]
    assert torch.equal(unpack(pack(strided, bits), bits, integers.shape), integers)


def test_what_does_not_fit_is_a_defect() -> None:
    with pytest.raises(ValueError, match="within 4 bits"):
        pack(torch.tensor([8], dtype=torch.int8), 4)
    with pytest.raises(ValueError, match="must be int8"):
        pack(torch.tensor([1]), 4)
    with pytest.raises(ValueError, match="not the planes of 6 bits"):
        unpack(pack(torch.zeros(4, dtype=torch.int8), 4), 6, (4,))
    with pytest.raises(ValueError, match=r"\[9\] integers of 4 bits take 5 bytes"):
        unpack(pack(torch.zeros(4, dtype=torch.int8), 4), 4, (9,))
    with pytest.raises(ValueError, match="must be uint8"):
        Plane(4, 0, torch.zeros(4, dtype=torch.int8))
    with pytest.raises(OptionError, match="9 bits: choose 2 to 8"):
        planes_of(9)
