"""The search for ranges against a much finer one, and its bounds."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroq.numbers.grid import dequantize, quantize
from zeroq.numbers.values import ActivationRange
from zeroq.ranges import Histogram, range_of
from zeroq.ranges.search import POWER


def histogram_of(values: Tensor) -> Histogram:
    """Of one batch."""
    histogram = Histogram()
    histogram.update(values)
    return histogram


def missed(values: Tensor, found: ActivationRange) -> float:
    """Mean |x - Q(x)|^POWER by the range's own scale and zero point."""
    scale = torch.tensor(found.scale)
    integers = quantize(values, scale, found.zero_point, 0, found.grid.high)
    return float((dequantize(integers, scale, found.zero_point) - values).abs().double().pow(POWER).mean())


def values_of(kind: str) -> Tensor:
    """Numbers as networks have them."""
    numbers = torch.randn(2, 750, generator=torch.Generator().manual_seed(0))
    return {
        "normal": numbers,
        "rectified": numbers.relu(),
        "outliers": torch.where(torch.arange(750) % 250 == 0, 30 * numbers, numbers),
        "heavy": numbers**3,
        "skewed": numbers.exp() - 0.2,
        "negative": -numbers.abs(),
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "rectified", "outliers", "heavy", "skewed", "negative"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_comes_close_to_the_best_of_many(kind: str, bits: int) -> None:
    values = values_of(kind)
    found = range_of(histogram_of(values), bits, "distilled", unsigned=kind == "rectified")
    levels, best = found.grid.high, float("inf")
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    factors = torch.logspace(-1.7, 0, 30).tolist()
    for low_factor in factors if low < 0 else [1.0]:
        for high_factor in factors if high > 0 else [1.0]:
            scale = (high * high_factor - low * low_factor) / levels
            zero_point = round(-low * low_factor / scale)
            other = ActivationRange(-zero_point * scale, (levels - zero_point) * scale, bits, "distilled")
            best = min(best, missed(values, other))
    assert missed(values, found) <= 1.05 * best


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    bits=st.integers(2, 8),
    unsigned=st.booleans(),
    ceiling=st.sampled_from([None, 6.0, 0.1]),
)
def test_zero_is_exact_and_bounds_hold(numbers: list[float], bits: int, unsigned: bool, ceiling: float | None) -> None:
    found = range_of(histogram_of(torch.tensor([numbers])), bits, "distilled", unsigned=unsigned, ceiling=ceiling)
    levels = found.grid.high
    assert found.low == -found.zero_point * found.scale and found.high == (levels - found.zero_point) * found.scale
    assert found.scale >= 9.9e-10
    if unsigned:
        assert found.zero_point == 0 and found.low == 0
    if ceiling is not None:
        assert found.high <= ceiling and torch.tensor(found.scale) * (levels - found.zero_point) <= ceiling


@pytest.mark.parametrize("bits", range(4, 9))
def test_relu6_that_reaches_six_has_a_range_just_inside(bits: int) -> None:
    values = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)).mul(8).clamp(max=6)
    found = range_of(histogram_of(values), bits, "distilled", unsigned=True, ceiling=6.0)
    assert 5.9999 < found.high <= 6


def test_a_value_that_is_always_zero_or_never_seen_gets_a_harmless_range() -> None:
    for histogram in (Histogram(), histogram_of(torch.zeros(2, 5)), histogram_of(torch.full((2, 5), -1.0))):
        assert range_of(histogram, 8, "distilled", unsigned=True).high == pytest.approx(1)
        assert range_of(histogram, 4, "distilled", unsigned=True, ceiling=0.5).high == pytest.approx(0.5)
        assert range_of(histogram, 8, "distilled", unsigned=True).source == "neither"
    assert range_of(Histogram(), 8, "distilled", unsigned=False).low == pytest.approx(-1, abs=0.02)


def test_values_far_below_any_scale_stay_finite() -> None:
    found = range_of(histogram_of(torch.full((1, 3), 1e-38)), 8, "distilled", unsigned=False)
    assert found.scale == pytest.approx(1e-9)


def test_integers_on_their_grid_are_kept_whole() -> None:
    values = torch.arange(0.0, 16).repeat(1, 100)
    found = range_of(histogram_of(values), 4, "distilled", unsigned=True)
    assert found.scale == pytest.approx(1, rel=0.01)


def test_one_search_takes_milliseconds() -> None:
    histogram = histogram_of(values_of("heavy"))
    range_of(histogram, 8, "distilled", unsigned=False)
    start = time.perf_counter()
    for _ in range(10):
        range_of(histogram, 8, "distilled", unsigned=False)
    assert time.perf_counter() - start < 10 * 0.05  # 2 ms each when nobody else computes


def test_weights_decide_in_place_of_counts_where_they_are_wanted() -> None:
    """Against a histogram in which each number stands as often as it weighs."""
    values = torch.linspace(-1, 4, 600)[None]
    repeated = torch.where(values < 1, 9, 1)
    gradient = repeated.sqrt()
    one, other = Histogram(), Histogram()
    one.update(values, gradient)
    other.update(values[0].repeat_interleave(repeated[0])[None])
    for bits in (2, 3, 4, 8):
        weighed = range_of(one, bits, "distilled", unsigned=False, weighed=True)
        assert weighed == range_of(other, bits, "distilled", unsigned=False)
    assert range_of(one, 2, "distilled", unsigned=False) != range_of(one, 2, "distilled", unsigned=False, weighed=True)
    assert range_of(other, 4, "distilled", unsigned=False, weighed=True) == range_of(
        other, 4, "distilled", unsigned=False
    )
