"""Images to start from: noise with the spectrum, the colours and the contrast of natural pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroq.distillation.statistics import InputStatistic

SHARED = 0.9  # part of the variance of natural pictures' channels that is common to them, that is grey


def natural_noise(shape: tuple[int, ...], statistic: InputStatistic, generator: torch.Generator) -> Tensor:
    """Noise [N, C, ...] with amplitude 1/f and the input's statistic, within what a picture can give.

    The amplitude of natural pictures falls with the frequency (Field 1987); most of their variance is grey.
    """
    channels = shape[1]
    grey = pink((shape[0], 1, *shape[2:]), generator)
    noise = math.sqrt(SHARED) * grey + math.sqrt(1 - SHARED) * pink(shape, generator) if channels > 1 else grey
    image = noise * column(statistic.deviation, noise) + column(statistic.mean, noise)
    return torch.clamp(image, column(statistic.low, image), column(statistic.high, image))


def pink(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise whose amplitude falls with the frequency, mean 0 and deviation 1 over all images: [N, C, ...]."""
    white = torch.randn(shape, generator=generator)
    axes = list(range(2, len(shape)))
    if not axes or math.prod(shape[2:]) == 1:
        return white
    spectrum = torch.fft.rfftn(white, dim=axes) / frequencies(shape[2:])
    noise = torch.fft.irfftn(spectrum, s=shape[2:], dim=axes)
    return noise / noise.std(correction=0)


def frequencies(sides: tuple[int, ...]) -> Tensor:
    """Length of each of rfftn's frequencies in periods per image, at least 1: [..., sides[-1] // 2 + 1]."""
    axes = [torch.fft.fftfreq(side) * max(sides) for side in sides[:-1]] + [torch.fft.rfftfreq(sides[-1]) * max(sides)]
    grid = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(grid).square().sum(0).sqrt().clamp(min=1.0)


def column(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One number per channel in the shape that multiplies images [N, C, ...]."""
    return torch.tensor(values).reshape(1, -1, *[1] * (like.dim() - 2))
