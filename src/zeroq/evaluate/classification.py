"""Classification: how many images have their label first, and among the first five."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zeroq.divergence.channels import tensors_of
from zeroq.errors import DataError, NumericalError


class Hits:
    """Top-1 and top-5, added up over batches."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.hits, self.images = torch.zeros(2, dtype=torch.float64), 0

    def add(self, outputs: Any, labels: Tensor) -> None:
        """Scores [n, K] and labels [n]. Raises DataError where they do not fit, NumericalError for NaN and infinity."""
        self.hits += count_hits(checked(outputs, len(labels), self.classes), labels)
        self.images += len(labels)

    def metrics(self) -> dict[str, float]:
        top1, top5 = (self.hits / self.images).tolist()
        return {"top1": top1, "top5": top5, "standard_error": math.sqrt(top1 * (1 - top1) / self.images)}


def count_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """How many images have their label first, and among the first five; [N, K] and [N] to float64 [2].

    A class of equal score and lower index stands before the label, so that quantized scores, which often are equal,
    are counted alike everywhere.
    """
    of_label = scores.gather(1, labels[:, None])
    lower_index = torch.arange(scores.shape[1])[None] < labels[:, None]
    rank = ((scores > of_label) | ((scores == of_label) & lower_index)).sum(dim=1)
    return torch.stack([(rank < 1).sum(), (rank < 5).sum()]).double()


def checked(outputs: Any, images: int, classes: int) -> Tensor:
    """Class scores [images, classes], the first of several outputs, or an error."""
    scores = tensors_of(outputs)[0]
    if scores.shape != (images, classes):
        raise DataError(
            f"The network gives {list(scores.shape)} for {images} images and the labels have {classes} classes: "
            f"classification needs scores [{images}, {classes}]."
        )
    check_numbers(scores)
    return scores


def check_numbers(scores: Tensor) -> None:
    """Raise NumericalError for NaN or infinity."""
    if not torch.isfinite(scores).all():
        raise NumericalError("The network gives scores that are NaN or infinite: its values overflow on these data.")
