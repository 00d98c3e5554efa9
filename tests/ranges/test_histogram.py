"""Streaming counts against all numbers at once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroq.errors import NumericalError
from zeroq.ranges import Histogram, merge
from zeroq.ranges.histogram import BINS, SAMPLE


def counted(*batches: Tensor) -> Histogram:
    """A histogram of several batches."""
    histogram = Histogram("value")
    for batch in batches:
        histogram.update(batch)
    return histogram


def direct(numbers: Tensor, reach: float) -> Tensor:
    """Counts of the numbers other than 0 over [-reach, reach]."""
    numbers = numbers[numbers != 0].double()
    return torch.histogram(numbers, torch.linspace(-reach, reach, BINS + 1, dtype=torch.float64)).hist.long()


@settings(max_examples=50, deadline=None)
@given(scales=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_batches_of_any_size_are_counted_as_if_together(scales: list[float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [scale * torch.randn(3, 50, generator=generator).relu_() for scale in scales]
    batches[0][0] = -batches[0][1]
    histogram, numbers = counted(*batches), torch.cat(batches).flatten()
    assert torch.equal(histogram.counts, direct(numbers, histogram.reach))
    assert histogram.zeros == int((numbers == 0).sum())
    assert (histogram.low, histogram.high) == (float(numbers.min()), float(numbers.max()))
    largest = float(numbers.abs().max())
    assert largest <= histogram.reach < max(2 * largest, 2.0**-59)
    assert histogram.centres.min() >= histogram.low and histogram.centres.max() <= histogram.high


def test_merging_is_counting_together() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(4, 100), 1000 * torch.rand(4, 70)
    merged, together = merge([counted(first), counted(second)]), counted(first, second)
    assert torch.equal(merged.counts, together.counts) and merged.reach == together.reach
    assert (merged.low, merged.high, merged.zeros) == (together.low, together.high, together.zeros)
    backwards = merge([counted(second), counted(first)])
    assert torch.equal(backwards.counts, merged.counts) and backwards.reach == merged.reach


def test_merging_leaves_the_parts_as_they_were() -> None:
    small, large = counted(torch.full((1, 4), 0.5)), counted(torch.full((1, 4), 64.0))
    merge([small, large]).update(torch.ones(1, 3))
    assert small.reach == 0.5 and int(small.counts.sum()) == 4 and int(large.counts.sum()) == 4


def test_large_values_are_sampled_the_same_in_any_split_with_exact_extremes() -> None:
    values = torch.randn(4, 16, 64, 64, generator=torch.Generator().manual_seed(0)).relu_()
    values[2, 3, 5, 7] = 100.0
    assert values[0].numel() > SAMPLE
    together, apart = counted(values), counted(*values.split(1))
    assert torch.equal(together.counts, apart.counts) and together.zeros == apart.zeros
    assert together.high == 100.0
    assert math.isclose(together.zeros / values.numel(), 0.5, abs_tol=0.01)
    assert math.isclose((int(together.counts.sum()) + together.zeros) / values.numel(), 1, abs_tol=0.001)


def test_a_sample_visits_every_column() -> None:
    columns = torch.arange(112.0).expand(2, 21, 112, 112)
    assert int((counted(columns).counts > 0).sum()) == 111  # all but 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_named(wrong: float) -> None:
    with pytest.raises(NumericalError, match="^The value 'stage1' holds NaN or infinity: quantize a network that"):
        Histogram("stage1").update(torch.tensor([[1.0, wrong]]))
