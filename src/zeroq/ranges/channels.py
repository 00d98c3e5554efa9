"""Factors of channels with which the one range of a value serves each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zeroq.numbers.grid import dequantize, quantize
from zeroq.numbers.values import ActivationRange
from zeroq.ranges.histogram import Histogram, check_finite
from zeroq.ranges.search import range_of

BINS = 2048  # of a channel's numbers
AT_ONCE = 1 << 21  # numbers of a value that are put into bins, where an image has no more
BINNING_BYTES = 64  # that this takes for each of them
ROUNDS = 4  # of a range to the factors, and factors to the range
COARSE = tuple(2 ** (step / 4) for step in range(-12, 17))
FINE = tuple(2 ** (step / 24) for step in range(-12, 13))  # of what the round before has found
TOGETHER, GPU_TOGETHER = 1 << 16, 1 << 22  # numbers at all factors, one after another: on a CPU what stays in the cache
MOST = 16.0  # that a factor and its inverse may be
MOST_AT_A_COST = 2.0  # the same where weights pay for it: they then have up to one bit less


@dataclass(frozen=True)
class Bins:
    """Numbers of each channel of a value: the mean of those in each bin, and the sum of their weights, float32
    [channels, bins]. A number weighs the squared gradient of a probe of the output by it.
    """

    means: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Value:
    """Numbers that share one range."""

    numbers: Bins
    bits: int
    ceiling: float | None = None  # that no number reaches beyond, in any channel: of a ReLU6 that the range takes in

    def of(self, channels: slice) -> Value:
        """Of some channels."""
        return replace(self, numbers=Bins(self.numbers.means[channels], self.numbers.weights[channels]))


class ChannelBins:
    """Numbers of each channel of a value, over any number of batches, at constant memory."""

    def __init__(self, name: str) -> None:
        self.name = name  # of the value, for errors
        self._bins: Bins | None = None

    @property
    def numbers(self) -> Bins:
        """Of all batches."""
        assert self._bins is not None, "there was no batch"
        return self._bins

    def update(self, values: Tensor, gradient: Tensor | None = None) -> None:
        """Count the numbers of one batch, [N, C, ...], and the gradient of a probe by them; None weighs nothing.

        All numbers count: a sample would miss the rare high ones, and ranges for it would cut these off.
        Raises NumericalError where one is NaN or infinite; a gradient that is so weighs nothing.
        """
        gradients = torch.zeros_like(values) if gradient is None else gradient
        count = max(1, AT_ONCE // values[0].numel())
        for part, slopes in zip(values.split(count), gradients.split(count), strict=True):
            weights = slopes.nan_to_num(0.0, 0.0, 0.0).square()
            own = Bins(*(each.movedim(1, 0).flatten(1) for each in (part, weights)))
            self._bins = binned(self.name, own if self._bins is None else together([self._bins, own]))


def binned(name: str, numbers: Bins) -> Bins:
    """Any numbers, in BINS bins of one width from the least to the greatest of each channel."""
    low, high = (each[:, None] for each in check_finite(name, numbers.means.aminmax(dim=1)))
    width = ((high - low) / BINS).clamp(min=torch.finfo(torch.float32).tiny)
    index = (numbers.means - low).div_(width).long().clamp_(max=BINS - 1)
    index += BINS * torch.arange(len(index), device=index.device)[:, None]

    def summed(each: Tensor) -> Tensor:
        return torch.bincount(index.flatten(), each.flatten(), index.shape[0] * BINS).reshape(-1, BINS)

    exact = numbers.weights.double()
    weights = summed(exact)
    sums = summed(exact.mul_(numbers.means))
    return Bins(torch.where(weights > 0, sums / weights, 0.0).float(), weights.float())


def together(parts: Sequence[Bins]) -> Bins:
    """Of values that share a range."""
    return Bins(torch.cat([part.means for part in parts], 1), torch.cat([part.weights for part in parts], 1))


def channel_factors(values: Sequence[Value], most: float = MOST) -> Tensor:
    """What to multiply each channel by so that the output changes least when the values are quantized.

    Each value has one range for all channels, so a channel that is small beside others has few steps, and the level
    that most of its numbers may stand at, as behind a ReLU, lies between two steps. Found in turn: ranges for the
    factors that there are, and for each channel the factor with the least sum of g^2 (x - Q(x))^2, g the gradient of a
    probe of the output (`Probe`). A range takes a ceiling in where it reaches beyond it in no channel.

    values: that have the same factors.  most: that a factor and its inverse may be, unless a ceiling asks for more.
    Gives float64 [channels].
    """
    means = values[0].numbers.means
    factors = torch.ones(len(means), dtype=torch.float64, device=means.device)
    longest = max(value.numbers.means.shape[1] for value in values)
    height = max(1, (GPU_TOGETHER if means.is_cuda else TOGETHER) // longest)
    parts = [slice(start, start + height) for start in range(0, len(means), height)]
    for index in range(ROUNDS):
        ranges = [range_at(value, factors) for value in values]
        needed = [own.high / value.ceiling for value, own in zip(values, ranges, strict=True) if value.ceiling]
        tried = [torch.full_like(factors, each) for each in COARSE] if index == 0 else [factors * each for each in FINE]
        least = max([1 / most, *needed])
        tried = [factors, *(each.clamp(least, max(least, most)) for each in tried)]
        factors = torch.cat([
            with_least_error([value.of(some) for value in values], ranges, [each[some] for each in tried])
            for some in parts
        ])  # fmt: skip
    return factors


def with_least_error(values: Sequence[Value], ranges: Sequence[ActivationRange], tried: Sequence[Tensor]) -> Tensor:
    """For each channel the factor with the least sum of errors, the first of equals; tried: [channels] each."""
    factors, *others = tried
    least = sum_of_errors(values, ranges, factors)
    for candidate in others:
        errors = sum_of_errors(values, ranges, candidate)
        factors = torch.where(errors < least, candidate, factors)
        least = torch.minimum(errors, least)
    return factors


def range_at(value: Value, factors: Tensor) -> ActivationRange:
    """Of a value whose channels are multiplied."""
    factor = factors.float()[:, None]
    histogram = Histogram()
    histogram.update(value.numbers.means * factor, value.numbers.weights.sqrt() / factor)
    ceiling = None if value.ceiling is None else value.ceiling * float(factors.min())
    return range_of(
        histogram, value.bits, "distilled", unsigned=histogram.low >= 0, ceiling=ceiling, weighed=True
    )


def sum_of_errors(values: Sequence[Value], ranges: Sequence[ActivationRange], factors: Tensor) -> Tensor:
    """Of each channel, over all values, float32 [channels]."""
    factor = factors.float()[:, None]
    total = torch.zeros(len(factor), device=factor.device)
    for value, own in zip(values, ranges, strict=True):
        scale, zero_point = (torch.tensor(float(each), device=factor.device) for each in (own.scale, own.zero_point))
        numbers = value.numbers.means * factor
        rounded = dequantize(quantize(numbers, scale, zero_point, 0, own.grid.high), scale, zero_point)
        total += (((rounded - numbers) / factor).square() * value.numbers.weights).sum(1)
    return total
