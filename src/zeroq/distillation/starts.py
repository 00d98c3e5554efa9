"""Images to start from: noise with the spectrum, the colours and the contrast of natural pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from zeroq.distillation.statistics import InputStatistic

PIECE = 1 << 19  # numbers that are filtered at a time on a CPU: of large images that takes half as long as all at once
SHARED = 0.9  # part of the variance of natural pictures' channels that is common to them, that is grey


def natural_noise(shape: tuple[int, ...], statistic: InputStatistic, generator: torch.Generator) -> Tensor:
    """Noise [N, C, ...] with amplitude 1/f and the input's statistic, within what a picture can give.

    The amplitude of natural pictures falls with the frequency (Field 1987); most of their variance is grey.
    """
    channels = shape[1]
    grey = pink((shape[0], 1, *shape[2:]), generator)
    shared = SHARED if statistic.picture else 0.0
    noise = math.sqrt(shared) * grey + math.sqrt(1 - shared) * pink(shape, generator) if channels > 1 else grey
    image = noise * column(statistic.deviation, noise) + column(statistic.mean, noise)
    return torch.clamp(image, column(statistic.low, image), column(statistic.high, image))


def starts(
    examples: Sequence[Tensor], statistics: Sequence[InputStatistic], count: int, seed: int
) -> tuple[Tensor, ...]:
    """What distillation starts from, [count, ...] for each input."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        start(value, statistic, count, generator) for value, statistic in zip(examples, statistics, strict=True)
    )


def start(example: Tensor, statistic: InputStatistic, count: int, generator: torch.Generator) -> Tensor:
    """Noise of the statistic [count, ...]; entries of the example where it holds no fractions.

    Drawn on the CPU, so that a seed gives the same on every device, and then moved to the example's.
    """
    shape = (count, *example.shape[1:])
    if not example.is_floating_point():
        values = example.flatten()
        return values[torch.randint(len(values), shape, generator=generator).to(values.device)]
    if example.dim() == 1:
        noise = torch.randn(shape, generator=generator) * statistic.deviation[0] + statistic.mean[0]
    else:
        noise = natural_noise(shape, statistic, generator)
    return noise.to(example.device)


def pink(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise whose amplitude falls with the frequency, mean 0 and deviation 1 over all images: [N, C, ...]."""
    noise = shape_spectrum(torch.randn(shape, generator=generator), 1.0)
    return noise / noise.std(correction=0).clamp(min=1e-12) if noise.numel() > 1 else noise


def shape_spectrum(values: Tensor, exponent: float) -> Tensor:
    """Multiply the amplitude of each frequency f by f^-exponent, so that white noise keeps its deviation.

    Filters each channel of [N, C, ...] by itself, around its edges; a symmetric filter, and so its own adjoint.
    """
    sides = tuple(values.shape[2:])
    if exponent == 0 or math.prod(sides) == 1:
        return values
    axes = list(range(2, values.dim()))
    falloff = falloff_of(sides, exponent, values.device)
    pieces = (values,) if values.is_cuda else values.split(max(1, PIECE // math.prod(values.shape[1:])))
    return torch.cat(
        [
            torch.fft.irfftn(torch.fft.rfftn(piece.contiguous(), dim=axes) * falloff, s=sides, dim=axes)
            for piece in pieces
        ]
    )


@lru_cache(maxsize=4)
def falloff_of(sides: tuple[int, ...], exponent: float, device: torch.device) -> Tensor:
    """What `shape_spectrum` multiplies each of rfftn's frequencies by; a step of distillation asks for it twice."""
    axes = list(range(2, 2 + len(sides)))
    impulse = torch.zeros(1, 1, *sides, device=device)
    impulse[(0,) * impulse.dim()] = 1
    falloff = frequencies(sides).to(device) ** -exponent
    return falloff / torch.fft.irfftn(torch.fft.rfftn(impulse, dim=axes) * falloff, s=sides, dim=axes).norm()


def frequencies(sides: tuple[int, ...]) -> Tensor:
    """Length of each of rfftn's frequencies in periods per image, at least 1: [..., sides[-1] // 2 + 1]."""
    axes = [torch.fft.fftfreq(side) * max(sides) for side in sides[:-1]] + [torch.fft.rfftfreq(sides[-1]) * max(sides)]
    grid = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(grid).square().sum(0).sqrt().clamp(min=1.0)


def column(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One number per channel in the shape that multiplies images [N, C, ...]."""
    return torch.tensor(values, device=like.device).reshape(1, -1, *[1] * (like.dim() - 2))
