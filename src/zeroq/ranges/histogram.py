"""The distribution of a value over any number of batches, and what its numbers weigh, at constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from zeroq.errors import NumericalError

BINS = 4096  # over [-reach, reach]: at least 1,024 between 0 and the largest magnitude
LEAST_REACH = 2.0**-60
SAMPLE = 1 << 15  # numbers of one image that are counted; extremes are of all


class Histogram:
    """Counts of a value's numbers in bins over [-reach, reach], reach a power of two that doubles when exceeded.

    Powers of two, so that two bins of one histogram are one bin of the next, and histograms can be merged. Zeros are
    counted apart. Of an image with more than `SAMPLE` numbers every n-th is counted for n, with n sharing no factor
    with the value's axes; `low` and `high` are those of all numbers. Beside the counts stand sums of squared gradients,
    where they are given. Both stay on the CPU, whatever device the values are on: they are small, and searched there.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name  # of the value, for errors
        self.reach = LEAST_REACH
        self.counts = torch.zeros(BINS, dtype=torch.int64)  # without the zeros
        self.weights = torch.zeros(BINS, dtype=torch.float64)  # likewise
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf

    def update(self, values: Tensor, gradient: Tensor | None = None) -> None:
        """Count the numbers of one batch, [N, ...]. Raises NumericalError where one is NaN or infinite.

        gradient: of what matters, with respect to them, likewise; one that is NaN or infinite weighs nothing.
        """
        low, high = (float(extreme) for extreme in check_finite(self.name, values.detach().aminmax()))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.grow(max(-low, high))
        step, numbers = sample(values.detach())
        index = torch.floor(numbers * (BINS / 2 / self.reach)).long() + BINS // 2
        zeros = int((numbers == 0).sum())
        index = index.clamp_(max=BINS - 1)
        counts = torch.bincount(index, minlength=BINS).to(self.counts.device)
        counts[BINS // 2] -= zeros
        self.counts += step * counts
        self.zeros += step * zeros
        if gradient is not None:
            squares = sample(gradient)[1].double().square()
            squares = torch.where(numbers == 0, 0.0, squares.nan_to_num(0.0, 0.0, 0.0))
            self.weights += step * torch.bincount(index, weights=squares, minlength=BINS).to(self.weights.device)

    def grow(self, magnitude: float) -> None:
        """Double the reach until it holds a magnitude; to the first there are some 60 steps, without any counts yet."""
        counted = bool(self.counts.any())
        while self.reach < magnitude:
            self.reach *= 2
            if counted:
                self.counts, self.weights = (
                    torch.nn.functional.pad(each.reshape(-1, 2).sum(1), (BINS // 4, BINS // 4))
                    for each in (self.counts, self.weights)
                )

    @property
    def centres(self) -> Tensor:
        """The number that stands for those of each bin, never beyond the extremes, float32 [bins]."""
        middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * self.reach / BINS) - self.reach
        return middle.clamp(self.low, self.high).float()


def check_finite(name: str, extremes: Sequence[Tensor]) -> Sequence[Tensor]:
    """The extremes of a value's numbers. Raises NumericalError where one is NaN or infinite: then some number is."""
    if not all(bool(each.isfinite().all()) for each in extremes):
        raise NumericalError(f"The value {name!r} holds NaN or infinity: quantize a network that computes.")
    return extremes


def sample(values: Tensor) -> tuple[int, Tensor]:
    """Every n-th number of each image, and n."""
    images = values.reshape(len(values), -1)
    size = images.shape[1]
    step = max(1, math.ceil(size / SAMPLE))
    while math.gcd(step, size) > 1:
        step += 1
    return step, images[:, ::step].reshape(-1).float()


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram of several values together, as for the inputs of a concatenation that share a range."""
    merged = Histogram()
    for histogram in histograms:
        part = Histogram()
        part.counts, part.weights, part.reach = histogram.counts, histogram.weights, histogram.reach
        part.grow(merged.reach)
        merged.grow(part.reach)
        merged.counts, merged.weights = merged.counts + part.counts, merged.weights + part.weights
        merged.zeros += histogram.zeros
        merged.low, merged.high = min(merged.low, histogram.low), max(merged.high, histogram.high)
    return merged


def stretched(histogram: Histogram, factor: float) -> Histogram:
    """That of the values times a factor. Its reach is no power of two any more: it takes no further values."""
    result = Histogram(histogram.name)
    result.counts, result.weights, result.zeros = histogram.counts, histogram.weights, histogram.zeros
    result.reach, result.low, result.high = (factor * end for end in (histogram.reach, histogram.low, histogram.high))
    return result
