"""Grids of weights that are shifted, against all integers that they may hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroq.numbers.grid import SHIFTED_BITS, Grid, ShiftedGrid, shifted, shifts_of


@st.composite
def filters_of_a_width(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Two filters, each on a grid of its own."""
    bits = draw(st.integers(2, SHIFTED_BITS))
    lows = [draw(st.integers(1 - 2**bits, 0)) for _ in range(2)]
    rows = [draw(st.lists(st.integers(low, low + 2**bits - 1), min_size=3, max_size=3)) for low in lows]
    return torch.tensor(rows, dtype=torch.int8), bits


@settings(deadline=None)
@given(filters_of_a_width())
def test_shifts_bring_any_filter_within_the_signed_grid_and_are_the_least_that_do(
    given: tuple[torch.Tensor, int],
) -> None:
    integers, bits = given
    grid, shifts = Grid(bits, signed=True), shifts_of(integers, bits)
    for row, shift in zip(integers.tolist(), shifts.tolist(), strict=True):
        fitting = [
            each for each in range(-(2**bits), 2**bits + 1) if all(grid.low <= q - each <= grid.high for q in row)
        ]
        assert shift == min(fitting, key=abs)
    moved = shifted(integers, -shifts)
    assert moved.min() >= grid.low and moved.max() <= grid.high
    assert torch.equal(shifted(moved, shifts), integers)


@pytest.mark.parametrize(
    ("row", "bits"),
    [
        ([-8, 8], 4),  # more than 16 in a row
        ([1, 16], 4),  # 16 in a row, but 0 is not among them
        ([-16, -1], 4),
        ([64, 0], 7),  # wide grids are not shifted
        ([-128, 0], 8),
    ],
)
def test_integers_beyond_their_width_are_a_defect(row: list[int], bits: int) -> None:
    with pytest.raises(ValueError, match=f"^integers beyond {bits} bits$"):
        shifts_of(torch.tensor([row], dtype=torch.int8), bits)


def test_a_shifted_grid_has_as_many_integers_as_its_width() -> None:
    grid = ShiftedGrid(3, torch.tensor([[-7.0, -2.0, 0.0]]))
    assert grid.high.tolist() == [[0.0, 5.0, 7.0]]
