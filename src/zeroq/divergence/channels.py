"""Squared errors of output channels, each over the variance of its channel in floating point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.divergence.finite import check_finite

LEAST_SHARE = 1e-4  # of the mean variance of an output's channels: a constant channel is not divided by nothing
LEAST_SQUARE = 1e-8  # of the mean square, where all channels of an output are constant


def tensors_of(outputs: Any) -> list[Tensor]:
    """The floating-point tensors of one output or several, in order."""
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def by_channel(output: Tensor) -> Tensor:
    """[N, ...] as float64 [N, positions, channels].

    Channels are the second axis; of [N, positions, values], as anchors and tokens have them, the last.
    """
    if output.dim() == 1:
        output = output[:, None]
    axis = channel_axis(output)
    return output.double().movedim(axis, -1).reshape(len(output), -1, output.shape[axis])


def channel_axis(output: Tensor) -> int:
    """Of an output of two axes or more."""
    return 2 if output.dim() == 3 else 1


def positions(output: Tensor) -> int:
    """How many of one image `by_channel` gives."""
    return 1 if output.dim() == 1 else output[0].numel() // output.shape[channel_axis(output)]


def least_variance(variance: Tensor, square: Tensor) -> float:
    """What a channel's variance counts as, at least; variances and mean squares of an output's channels, [channels]."""
    return max(LEAST_SHARE * float(variance.mean()), LEAST_SQUARE * float(square.mean()), 1e-30)


class ChannelErrors:
    """nmse: E[(output - reference)^2] / Var[reference] of each channel, over images and positions.

    The mean over an output's channels, and over several outputs. Added up over batches in 64 bits; the variance is
    that of all batches. A channel whose reference is constant counts with LEAST_SHARE of its output's mean variance.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []  # of each output float64 [3, channels]: squared error, reference, its square
        self.counts: list[int] = []  # values of each channel

    def add(self, reference: Any, outputs: Any) -> None:
        """One batch. Raises NumericalError where a value is NaN or infinite."""
        pairs = list(zip(tensors_of(reference), tensors_of(outputs), strict=True))
        if not self.sums:
            self.sums, self.counts = (
                [torch.zeros(3, by_channel(one).shape[-1], device=one.device).double() for one, _ in pairs],
                [0] * len(pairs),
            )
        for index, (one, other) in enumerate(pairs):
            check_finite("The reference's outputs", one)
            check_finite("The network's outputs", other)
            expected, found = by_channel(one), by_channel(other)
            parts = ((found - expected).square(), expected, expected.square())
            self.sums[index] += torch.stack([part.sum(dim=(0, 1)) for part in parts])
            self.counts[index] += expected.shape[0] * expected.shape[1]

    def channels(self) -> list[Tensor]:
        """The ratio of each channel, float64 [channels] for each output."""
        ratios = []
        for sums, count in zip(self.sums, self.counts, strict=True):
            error, mean, square = sums / count
            variance = (square - mean.square()).clamp(min=0)
            ratios.append(error / variance.clamp(min=least_variance(variance, square)))
        return ratios

    def value(self) -> float:
        """nmse; 0 is equal."""
        return float(torch.stack([ratio.mean() for ratio in self.channels()]).mean())
