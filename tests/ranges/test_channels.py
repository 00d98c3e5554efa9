"""Factors of channels against their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as case
from torch import Tensor

from zeroq.errors import NumericalError
from zeroq.numbers.grid import Grid, dequantize, quantize
from zeroq.numbers.values import ActivationRange
from zeroq.ranges.channels import (
    BINS,
    COARSE,
    MOST,
    Bins,
    ChannelBins,
    Value,
    binned,
    channel_factors,
    range_at,
    sum_of_errors,
    together,
)  # fmt: skip

GENERATOR = torch.Generator().manual_seed(0)


def drawn(*deviations: float, count: int = 1500, rectified: bool = False) -> Bins:
    numbers = torch.randn(len(deviations), count, generator=GENERATOR) * torch.tensor(deviations)[:, None]
    return Bins(numbers.relu() if rectified else numbers, torch.ones_like(numbers))


def error(values: list[Value], factors: Tensor) -> float:
    """The squared error that ranges for these factors leave, in units of the values without factors."""
    ranges = [range_at(each, factors) for each in values]
    return float(sum_of_errors(values, ranges, factors).sum())


def test_errors_are_those_of_rounding_by_weight() -> None:
    given, factors = drawn(1.0, 0.3, count=7), torch.tensor([1.0, 2.5], dtype=torch.float64)
    own = Bins(given.means, torch.rand(given.means.shape, generator=GENERATOR))
    chosen = ActivationRange(-1.0, 2.0, 3, "distilled")
    expected = []
    for channel, factor in enumerate(factors.tolist()):
        total = 0.0
        for number, weight in zip(own.means[channel], own.weights[channel], strict=True):
            scale, grid = torch.tensor(chosen.scale), Grid(3, signed=False)
            rounded = quantize(number * factor, scale, chosen.zero_point, grid.low, grid.high)
            error = dequantize(rounded, scale, chosen.zero_point) / factor - number
            total += float(weight * error**2)
        expected.append(total)
    torch.testing.assert_close(sum_of_errors([Value(own, 3)], [chosen], factors), torch.tensor(expected))


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("rectified", [False, True])
def test_small_channels_grow_and_no_error_does(bits: int, rectified: bool) -> None:
    values = [Value(drawn(1.0, 0.9, 0.1, 0.05, rectified=rectified), bits)]
    factors = channel_factors(values)
    assert error(values, factors) < 0.7 * error(values, torch.ones(4, dtype=torch.float64))
    assert factors[2] > 4 * factors[0]
    assert factors[3] > 4 * factors[1]
    assert factors.min() >= 1 / MOST
    assert factors.max() <= MOST


def test_channels_that_are_tried_a_few_at_a_time_get_the_same_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [Value(drawn(1.0, 0.9, 0.1, 0.05, rectified=rectified), 6) for rectified in (False, True)]
    expected = channel_factors(values)
    for numbers in (1, 3 * values[0].numbers.means.shape[1]):
        monkeypatch.setattr("zeroq.ranges.channels.TOGETHER", numbers)
        assert torch.equal(channel_factors(values), expected)


@pytest.mark.parametrize("bits", [4, 6])
def test_no_range_reaches_beyond_a_ceiling_in_any_channel(bits: int) -> None:
    rectified = drawn(4.0, 1.0, 0.2, 0.05, rectified=True)
    value = Value(Bins(rectified.means.clamp(max=6), rectified.weights), bits, ceiling=6.0)
    factors = channel_factors([value])
    ends = range_at(value, factors).high / factors
    assert ends.max() <= 6.001
    assert ends[2] < ends[1] < ends[0]
    assert error([value], factors) < 0.7 * error([value], torch.ones(4, dtype=torch.float64))


def test_of_one_round_each_factor_is_the_best_of_those_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroq.ranges.channels.ROUNDS", 1)
    values = [Value(drawn(1.0, 0.2, count=300), 4), Value(drawn(0.5, 0.4, count=300), 6)]
    ones = torch.ones(2, dtype=torch.float64)
    ranges = [range_at(each, ones) for each in values]
    tried = torch.stack([sum_of_errors(values, ranges, ones * each) for each in COARSE])
    assert channel_factors(values).tolist() == [COARSE[int(best)] for best in tried.argmin(0)]


def test_channels_that_do_not_matter_stay() -> None:
    given = drawn(1.0, 0.1)
    given.weights[1] = 0
    assert channel_factors([Value(given, 4)])[1] == 1
    nothing = Bins(torch.zeros(3, 5), torch.zeros(3, 5))
    assert channel_factors([Value(nothing, 8)]).tolist() == [1, 1, 1]


def test_a_level_that_most_numbers_stand_at_comes_to_lie_on_a_step() -> None:
    level = torch.tensor([[-0.31], [-0.83]])
    numbers = torch.maximum(torch.randn(2, 4000, generator=GENERATOR) - 1, level)
    values = [Value(Bins(numbers, torch.ones_like(numbers)), 4)]
    factors = channel_factors(values)
    chosen = range_at(values[0], factors)
    before = range_at(values[0], torch.ones(2, dtype=torch.float64))

    def beside(levels: Tensor, scale: float) -> Tensor:
        """How far from the nearest step, in units of the values without factors."""
        return ((levels / scale - (levels / scale).round()) * scale).abs()

    after = beside(level[:, 0] * factors.float(), chosen.scale) / factors.float()
    assert after.max() < beside(level[:, 0], before.scale).max()


@given(
    case.integers(1, 3), case.integers(1, 4000), case.sampled_from([1e-30, 1.0, 1e6]), case.sampled_from([1, 7, 2048])
)
@settings(max_examples=30, deadline=None)
def test_bins_hold_what_numbers_weigh_where_they_lie(channels: int, count: int, size: float, bins: int) -> None:
    numbers = size * torch.randn(channels, count, generator=GENERATOR)
    weights = torch.rand(channels, count, generator=GENERATOR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zeroq.ranges.channels.BINS", bins)
        found = binned("x", Bins(numbers, weights))
    low, high = numbers.aminmax(dim=1)
    for channel in range(channels):
        width = max(float(high[channel] - low[channel]) / bins, 1e-37)
        place = ((numbers[channel] - low[channel]) / width).long().clamp(max=bins - 1)
        for each in place.unique():
            own = weights[channel][place == each]
            mean = float((numbers[channel][place == each] * own).sum() / own.sum())
            assert float(found.weights[channel, each]) == pytest.approx(float(own.sum()), rel=1e-4, abs=1e-4)
            assert float(found.means[channel, each]) == pytest.approx(mean, abs=2 * width + 1e-5 * size)
    assert float(found.weights.sum()) == pytest.approx(float(weights.sum()), rel=1e-5)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_bins_have_the_error_of_all_numbers(bits: int) -> None:
    every = drawn(1.0, 0.3, count=100_000, rectified=True)
    chosen, factors = ActivationRange(0.0, 3.0, bits, "distilled"), torch.tensor([1.0, 2.5], dtype=torch.float64)
    exact, found = (sum_of_errors([Value(own, bits)], [chosen], factors) for own in (every, binned("x", every)))
    torch.testing.assert_close(found, exact, rtol=0.03, atol=0)


def test_numbers_without_weight_are_left_out() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = binned("x", Bins(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), weights))
    assert found.means.shape == found.weights.shape == (2, BINS)
    assert found.means[found.weights > 0].tolist() == [2.0]
    assert found.weights.sum() == 1


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_an_error(broken: float) -> None:
    numbers = torch.tensor([[1.0, broken]])
    with pytest.raises(NumericalError, match="'x' holds NaN or infinity"):
        binned("x", Bins(numbers, torch.ones_like(numbers)))


@pytest.mark.parametrize("at_once", [1, 36, 1 << 21])
def test_all_numbers_of_each_channel_are_in_its_bins(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroq.ranges.channels.AT_ONCE", at_once)
    torch.manual_seed(0)
    values, gradients = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    bins = ChannelBins("x")
    for part, gradient in zip(values.split(4), gradients.split(4), strict=True):
        bins.update(part, gradient)
    found, expected = bins.numbers, values.transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.weights.sum(1), gradients.square().transpose(0, 1).flatten(1).sum(1))
    for channel, numbers in enumerate(expected):
        means = found.means[channel][found.weights[channel] > 0]
        width = float(numbers.max() - numbers.min()) / BINS
        assert 0.9 * len(numbers) <= len(means) <= len(numbers)
        assert (means[:, None] - numbers).abs().amin(1).max() < 2 * width
        assert (means[:, None] - numbers).abs().amin(0).max() < 4 * width


def test_values_that_share_a_range_lie_side_by_side() -> None:
    first, second = drawn(1.0, 2.0, count=5), drawn(3.0, 4.0, count=7)
    both = together([first, second])
    assert both.means.shape == both.weights.shape == (2, 12)
    assert torch.equal(both.means[:, 5:], second.means)
