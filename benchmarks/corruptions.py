"""Corrupted pictures of graded severity, by the formulas and strengths of CIFAR-10-C (arXiv:1903.12261)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]  # [N, H, W, C]
SEVERITIES = (1, 3, 5)


def noise(pixels: Pixels, strength: float) -> Pixels:
    """Gaussian noise of a deviation in 0..1, independent for each value."""
    drawn = np.random.default_rng(0).normal(0, strength, pixels.shape)
    return to_pixels(pixels / 255 + drawn)


def blur(pixels: Pixels, strength: float) -> Pixels:
    """A Gaussian of a deviation in pixels."""
    blurred = ImageFilter.GaussianBlur(strength)
    return np.stack([np.asarray(Image.fromarray(each).filter(blurred)) for each in pixels])


def contrast(pixels: Pixels, strength: float) -> Pixels:
    """Distances from each picture's mean colour, multiplied."""
    mean = pixels.mean((1, 2), keepdims=True) / 255
    return to_pixels((pixels / 255 - mean) * strength + mean)


def to_pixels(values: NDArray[np.float64]) -> Pixels:
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


# Name -> function, and the strength of severities 1 to 5.
CORRUPTIONS: dict[str, tuple[Callable[[Pixels, float], Pixels], tuple[float, ...]]] = {
    "noise": (noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "blur": (blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
}


def corrupted(pixels: Pixels, name: str, severity: int) -> Pixels:
    """Pictures with one corruption, 1 the weakest and 5 the strongest."""
    function, strengths = CORRUPTIONS[name]
    return function(pixels, strengths[severity - 1])
