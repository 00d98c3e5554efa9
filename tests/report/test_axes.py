"""Axes: places stay within the chart, and marks are round numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zeroq.report.axes import linear, logarithmic, nice_step, square_root

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(low=numbers, high=numbers, value=numbers)
def test_every_axis_keeps_every_value_inside(low: float, high: float, value: float) -> None:
    for axis in (linear(low, high), square_root(low, high), logarithmic([abs(low), abs(high)])):
        assert 0 <= axis.place(value) <= 100
        assert all(0 <= tick.at <= 100 for tick in axis.ticks)


def test_linear_marks_are_multiples_of_a_round_step() -> None:
    axis = linear(0, 512_000, 2, label=lambda value: f"{value:g}")
    assert [(tick.at, tick.label) for tick in axis.ticks] == [(0.0, "0"), (97.66, "500000")]
    assert nice_step(0.3) == 0.5
    assert nice_step(0.2) == 0.2


def test_logarithmic_marks_are_powers_of_ten_and_zero_stands_at_the_lower_end() -> None:
    axis = logarithmic([0.0, 3e-6, 0.4])
    assert [tick.label for tick in axis.ticks] == ["1", "0.01", "10⁻⁴", "10⁻⁶"]
    assert axis.place(0.0) == axis.place(-1.0) == 0
    assert axis.place(1e-3) == 50


def test_logarithmic_without_any_positive_value() -> None:
    assert logarithmic([]).place(5.0) > 0


def test_square_root_axis_passes_through_zero_and_is_symmetric_around_it() -> None:
    axis = square_root(-9, 9)
    assert axis.place(0) == 50
    assert axis.place(2.25) == 75
    assert [tick.label for tick in square_root(0, 6).ticks] == ["0", "5", "1"]
