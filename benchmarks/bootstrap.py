"""Two variants of one network on the same pictures, by a figure that is no mean over pictures: mAP, mIoU, F1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroq.evaluate.detection import precision
from zeroq.evaluate.segmentation import overlap

DRAWS = 1000
SEED = 0
TAILS = (5.0, 95.0)  # per cent: a two-sided 90 % interval
Figure = Callable[[Sequence[int]], float]  # of pictures by their places, some perhaps several times


@dataclass(frozen=True)
class Difference:
    """The second variant minus the first, in points, with its 90 % interval."""

    difference: float
    low: float
    high: float


def bootstrapped(first: Figure, second: Figure, places: Sequence[int], draws: int = DRAWS) -> Difference:
    """Percentile bootstrap of paired pictures (Efron 1979): both variants on the same pictures, drawn again and again.

    places: of the pictures that are compared.
    """
    generator = np.random.default_rng(SEED)
    samples = [generator.choice(places, len(places)).tolist() for _ in range(draws)]
    found = [100 * (second(sample) - first(sample)) for sample in samples]
    low, high = np.percentile(found, TAILS)
    return Difference(100 * (second(places) - first(places)), float(low), float(high))


def mean_average_precision(evaluator: Any, name: str = "map") -> Figure:
    """Matched pictures are accumulated again."""
    return lambda places: precision(evaluator, places)[name]


def mean_overlap(matrices: Tensor) -> Figure:
    """mIoU of confusion matrices [pictures, K, K]."""
    return lambda places: overlap(matrices[torch.tensor(places)].sum(dim=0))["miou"]


def f1(counts: Tensor) -> Figure:
    """F1 of pairs, detections expected and found, int64 [pictures, 3]."""

    def value(places: Sequence[int]) -> float:
        pairs, expected, found = counts[torch.tensor(places)].sum(dim=0).tolist()
        return 2 * pairs / (expected + found) if expected + found else 1.0

    return value
