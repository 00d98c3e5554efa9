"""Factors of channels with which the one range of a value serves each of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.divergence import Meaning
from zeroq.graph import Inputs, Network, chunks
from zeroq.graph.walk import CHUNK
from zeroq.numbers.grid import dequantize, quantize
from zeroq.numbers.values import ActivationRange
from zeroq.ranges.histogram import Histogram
from zeroq.ranges.observe import followed_images, watched
from zeroq.ranges.search import range_of

SAMPLE = 2048  # numbers of a channel
ROUNDS = 4  # of a range to the factors, and factors to the range
COARSE = tuple(2 ** (step / 4) for step in range(-12, 17))
FINE = tuple(2 ** (step / 24) for step in range(-12, 13))  # of what the round before has found
MOST = 16.0  # that a factor and its inverse may be


@dataclass(frozen=True)
class Sample:
    """Numbers of each channel of a value, and the gradient of a probe of the output by each, [channels, numbers]."""

    numbers: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class Value:
    """Numbers that share one range."""

    sample: Sample
    bits: int
    ceiling: float | None = None  # that no number reaches beyond, in any channel: of a ReLU6 that the range takes in


def samples(
    network: Network, names: Collection[str], images: Inputs, meaning: Meaning, chunk: int = CHUNK
) -> dict[str, Sample]:
    """Of some values of a folded network, channels first behind the batch, by name."""
    parts = len(chunks(images, min(chunk, followed_images(network))))
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    for values in watched(network, names, images, meaning, chunk):
        for name, value in values.items():
            every = value.detach().movedim(1, 0).flatten(1)
            step = stride(every.shape[1], value[0, 0].numel(), SAMPLE // parts)
            gradient = torch.zeros_like(value) if value.grad is None else value.grad.nan_to_num(0.0, 0.0, 0.0)
            picked = gradient.movedim(1, 0).flatten(1)[:, ::step] * math.sqrt(step)
            found[name].append((every[:, ::step].clone(), picked))
    return {name: Sample(*(torch.cat(each, 1) for each in zip(*own, strict=True))) for name, own in found.items()}


def stride(count: int, image: int, wanted: int) -> int:
    """Every which of `count` numbers to take, so as not to take the same places of every image."""
    step = max(1, math.ceil(count / max(1, wanted)))
    while math.gcd(step, image) > 1:
        step += 1
    return step


def together(parts: Sequence[Sample]) -> Sample:
    """Of values that share a range."""
    return Sample(torch.cat([part.numbers for part in parts], 1), torch.cat([part.gradients for part in parts], 1))


def channel_factors(values: Sequence[Value]) -> Tensor:
    """What to multiply each channel by so that the output changes least when the values are quantized.

    Each value has one range for all channels, so a channel that is small beside others has few steps, and the level
    that most of its numbers may stand at, as behind a ReLU, lies between two steps. Found in turn: ranges for the
    factors that there are, and for each channel the factor with the least sum of g^2 (x - Q(x))^2, g the gradient of a
    probe of the output (`Probe`). A range takes a ceiling in where it reaches beyond it in no channel.

    values: that have the same factors.  Gives float64 [channels].
    """
    numbers = values[0].sample.numbers
    factors = torch.ones(len(numbers), dtype=torch.float64, device=numbers.device)
    for index in range(ROUNDS):
        ranges = [range_at(value, factors) for value in values]
        needed = [own.high / value.ceiling for value, own in zip(values, ranges, strict=True) if value.ceiling]
        tried = [torch.full_like(factors, each) for each in COARSE] if index == 0 else [factors * each for each in FINE]
        least = sum_of_errors(values, ranges, factors)
        for candidate in (each.clamp(max([1 / MOST, *needed]), MOST) for each in tried):
            errors = sum_of_errors(values, ranges, candidate)
            factors = torch.where(errors < least, candidate, factors)
            least = torch.minimum(errors, least)
    return factors


def range_at(value: Value, factors: Tensor) -> ActivationRange:
    """Of a value whose channels are multiplied."""
    factor = factors.float()[:, None]
    histogram = Histogram()
    histogram.update(value.sample.numbers * factor, value.sample.gradients / factor)
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
        numbers = value.sample.numbers * factor
        rounded = dequantize(quantize(numbers, scale, zero_point, 0, own.grid.high), scale, zero_point)
        total += ((rounded - numbers) / factor * value.sample.gradients).square().sum(1)
    return total
