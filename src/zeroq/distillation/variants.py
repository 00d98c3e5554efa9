"""Images to fit weights to beside the distilled ones: made from them in no time, and unlike them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroq.distillation.starts import starts
from zeroq.distillation.statistics import InputStatistic

NOISE = 0.3  # part of it


def variants(images: Sequence[Tensor], statistics: Sequence[InputStatistic], seed: int) -> tuple[Tensor, ...]:
    """Of every image its mirror image, blended with noise of natural spectrum; [N, ...] of each input, likewise.

    Distilled images resemble one another more than pictures do, and what is fitted to them alone may serve pictures
    worse than nothing: so it was with ESPNet at 4 bits. What variants are worth: docs/distillation.md. Inputs that are
    no pictures are blended alone, those that hold no fractions stay as they are.
    """
    noise = starts(images, statistics, len(images[0]), seed)
    return tuple(
        variant(own, other, statistic) for own, other, statistic in zip(images, noise, statistics, strict=True)
    )


def variant(images: Tensor, noise: Tensor, statistic: InputStatistic) -> Tensor:
    """Of one input."""
    if not images.is_floating_point():
        return images
    return torch.lerp(images.flip(-1) if statistic.picture else images, noise, NOISE)
