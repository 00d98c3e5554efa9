"""Two variants of one network on the same images: the difference of top-1, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILE_95 = 1.6448536269514722  # of the normal distribution: a two-sided 90 % interval


@dataclass(frozen=True)
class PairedDifference:
    """Top-1 of the second variant minus that of the first, in points, with its 90 % interval.

    gained, lost: images that only the second, and only the first, has right.
    """

    difference: float
    low: float
    high: float
    gained: int
    lost: int


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedDifference:
    """Compare two variants by which images each has right, both bool [N] in the same order.

    Only images on which they differ count. With g gained and l lost of N images, the difference is (g - l) / N, and

        p = (g + 1) / (N + 2),  q = (l + 1) / (N + 2),  p - q +- 1.645 sqrt((p + q - (p - q)^2) / (N + 2))

    its 90 % interval: Wald's with one image added to either side (Bonett and Price 2012, Journal of Educational and
    Behavioral Statistics 37, 479; recommended by Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850).
    Without the two images it would have no width where the variants never differ.
    """
    if first.dtype != np.bool_ or second.dtype != np.bool_ or first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"{first.dtype} {first.shape} and {second.dtype} {second.shape} are not both bool [N]")
    images = len(first)
    if not images:
        raise ValueError("there are no images to compare")
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    p, q = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    half = QUANTILE_95 * math.sqrt((p + q - (p - q) ** 2) / (images + 2))
    low, high = max(p - q - half, -1.0), min(p - q + half, 1.0)
    return PairedDifference(100 * (gained - lost) / images, 100 * low, 100 * high, gained, lost)
