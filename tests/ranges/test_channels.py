"""Factors of channels against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroq.divergence import Meaning
from zeroq.graph import capture, fold
from zeroq.numbers.grid import Grid, dequantize, quantize
from zeroq.numbers.values import ActivationRange
from zeroq.ranges.channels import (
    COARSE,
    MOST,
    Sample,
    Value,
    channel_factors,
    range_at,
    samples,
    stride,
    sum_of_errors,
    together,
)  # fmt: skip

GENERATOR = torch.Generator().manual_seed(0)


def sample(*deviations: float, count: int = 1500, rectified: bool = False) -> Sample:
    numbers = torch.randn(len(deviations), count, generator=GENERATOR) * torch.tensor(deviations)[:, None]
    return Sample(numbers.relu() if rectified else numbers, torch.ones_like(numbers))


def error(values: list[Value], factors: Tensor) -> float:
    """The squared error that ranges for these factors leave, in units of the values without factors."""
    ranges = [range_at(each, factors) for each in values]
    return float(sum_of_errors(values, ranges, factors).sum())


def test_errors_are_those_of_rounding_times_gradients() -> None:
    given, factors = sample(1.0, 0.3, count=7), torch.tensor([1.0, 2.5], dtype=torch.float64)
    own = Sample(given.numbers, torch.randn(given.numbers.shape, generator=GENERATOR))
    chosen = ActivationRange(-1.0, 2.0, 3, "distilled")
    expected = []
    for channel, factor in enumerate(factors.tolist()):
        total = 0.0
        for number, gradient in zip(own.numbers[channel], own.gradients[channel], strict=True):
            scale, grid = torch.tensor(chosen.scale), Grid(3, signed=False)
            rounded = quantize(number * factor, scale, chosen.zero_point, grid.low, grid.high)
            total += float(gradient * (dequantize(rounded, scale, chosen.zero_point) / factor - number)) ** 2
        expected.append(total)
    torch.testing.assert_close(sum_of_errors([Value(own, 3)], [chosen], factors), torch.tensor(expected))


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("rectified", [False, True])
def test_small_channels_grow_and_no_error_does(bits: int, rectified: bool) -> None:
    values = [Value(sample(1.0, 0.9, 0.1, 0.05, rectified=rectified), bits)]
    factors = channel_factors(values)
    assert error(values, factors) < 0.7 * error(values, torch.ones(4, dtype=torch.float64))
    assert factors[2] > 4 * factors[0]
    assert factors[3] > 4 * factors[1]
    assert factors.min() >= 1 / MOST
    assert factors.max() <= MOST


@pytest.mark.parametrize("bits", [4, 6])
def test_no_range_reaches_beyond_a_ceiling_in_any_channel(bits: int) -> None:
    rectified = sample(4.0, 1.0, 0.2, 0.05, rectified=True)
    value = Value(Sample(rectified.numbers.clamp(max=6), rectified.gradients), bits, ceiling=6.0)
    factors = channel_factors([value])
    ends = range_at(value, factors).high / factors
    assert ends.max() <= 6.001
    assert ends[2] < ends[1] < ends[0]
    assert error([value], factors) < 0.7 * error([value], torch.ones(4, dtype=torch.float64))


def test_of_one_round_each_factor_is_the_best_of_those_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroq.ranges.channels.ROUNDS", 1)
    values = [Value(sample(1.0, 0.2, count=300), 4), Value(sample(0.5, 0.4, count=300), 6)]
    ones = torch.ones(2, dtype=torch.float64)
    ranges = [range_at(each, ones) for each in values]
    tried = torch.stack([sum_of_errors(values, ranges, ones * each) for each in COARSE])
    assert channel_factors(values).tolist() == [COARSE[int(best)] for best in tried.argmin(0)]


def test_channels_that_do_not_matter_stay() -> None:
    given = sample(1.0, 0.1)
    given.gradients[1] = 0
    assert channel_factors([Value(given, 4)])[1] == 1
    nothing = Sample(torch.zeros(3, 5), torch.zeros(3, 5))
    assert channel_factors([Value(nothing, 8)]).tolist() == [1, 1, 1]


def test_a_level_that_most_numbers_stand_at_comes_to_lie_on_a_step() -> None:
    level = torch.tensor([[-0.31], [-0.83]])
    numbers = torch.maximum(torch.randn(2, 4000, generator=GENERATOR) - 1, level)
    values = [Value(Sample(numbers, torch.ones_like(numbers)), 4)]
    factors = channel_factors(values)
    chosen = range_at(values[0], factors)
    before = range_at(values[0], torch.ones(2, dtype=torch.float64))

    def beside(levels: Tensor, scale: float) -> Tensor:
        """How far from the nearest step, in units of the values without factors."""
        return ((levels / scale - (levels / scale).round()) * scale).abs()

    after = beside(level[:, 0] * factors.float(), chosen.scale) / factors.float()
    assert after.max() < beside(level[:, 0], before.scale).max()


def test_samples_are_numbers_of_each_channel_with_their_gradients() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 5))
    network = fold(capture(module, torch.randn(2, 3, 3, 3)))
    images = torch.randn(6, 3, 3, 3)
    site = network.layers[0].sites[0]
    (found,) = samples(network, {site}, images, Meaning("classification"), chunk=4).values()
    assert found.numbers.shape == found.gradients.shape == (4, 6 * 9)
    weight, bias = (network.tensors[str(name)] for name in (network.layers[0].weight, network.layers[0].bias))
    expected = nn.functional.conv2d(images, weight, bias)
    torch.testing.assert_close(found.numbers, expected.transpose(0, 1).flatten(1))
    assert found.gradients.any(1).all()


def test_large_values_are_sampled_alike_in_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroq.ranges.channels.SAMPLE", 40)
    torch.manual_seed(0)
    network = fold(capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1)), torch.randn(2, 3, 8, 8)))
    site = network.layers[0].sites[0]
    (found,) = samples(network, {site}, torch.randn(6, 3, 8, 8), Meaning("regression"), chunk=3).values()
    assert 20 <= found.numbers.shape[1] <= 40
    both = together([found, found])
    assert both.numbers.shape == (4, 2 * found.numbers.shape[1])


@pytest.mark.parametrize(("count", "image", "wanted"), [(100, 25, 10), (64, 64, 8), (9, 9, 100), (49, 7, 0)])
def test_strides_share_no_factor_with_an_image(count: int, image: int, wanted: int) -> None:
    found = stride(count, image, wanted)
    assert torch.gcd(torch.tensor(found), torch.tensor(image)) == 1
    assert len(range(0, count, found)) <= max(wanted, 1)
