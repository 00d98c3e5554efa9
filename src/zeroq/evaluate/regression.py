"""Regression: numbers that are to be met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroq.divergence import Meaning
from zeroq.divergence.channels import ChannelErrors, tensors_of
from zeroq.errors import DataError
from zeroq.evaluate.archive import Member, open_member
from zeroq.evaluate.classification import check_numbers
from zeroq.preprocessing import Preprocessing, apply_pixels, check_pixels

LEAST_SHARE = 1e-9  # of the targets' squares, of their variance: less is rounding


@dataclass(frozen=True)
class RegressionData:
    """Images uint8 [N, H, W, C] and targets [N, ...] of an npz file."""

    images: Member
    targets: Member
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return self.images.shape[0]

    def batches(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs [n, C, H, W] and targets float32 [n, ...]. Raises DataError where the file is damaged."""
        for pixels, targets in zip(self.images.blocks(batch), self.targets.blocks(batch), strict=True):
            wanted = torch.from_numpy(targets.astype(np.float32))
            if not torch.isfinite(wanted).all():
                raise DataError(f"The targets in {self.targets.path} are NaN or infinite: correct or remove them.")
            yield apply_pixels(pixels, self.preprocessing), wanted


def open_regression(path: Path, preprocessing: Preprocessing, meaning: Meaning, classes: int) -> RegressionData:
    """An npz file of `images` and `targets`. Raises DataError for anything else."""
    if path.is_dir() or path.suffix.lower() != ".npz":
        raise DataError(f"{path} is no npz file: regression needs one that holds 'images' and 'targets'.")
    images, targets = open_member(path, "images"), open_member(path, "targets")
    check_pixels(f"The images in {path}", images.shape, images.dtype, preprocessing)
    if targets.dtype.kind not in "iuf" or not targets.shape:
        raise DataError(f"The targets in {path} are {targets.dtype} {list(targets.shape)}: give numbers [N, ...].")
    if images.shape[0] != targets.shape[0]:
        raise DataError(
            f"{images.shape[0]} images and {targets.shape[0]} targets in {path}: give one target for each image."
        )
    if not images.shape[0]:
        raise DataError(f"There are no images in {path}: give at least one.")
    return RegressionData(images, targets, preprocessing)


class TargetErrors:
    """nmse against the targets: squared error of each output channel over the variance of its targets, mean."""

    def __init__(self) -> None:
        self.errors = ChannelErrors()

    def add(self, outputs: Any, targets: Tensor) -> None:
        """Outputs and targets of one shape; a last axis of length 1 may be left out of either."""
        values = tensors_of(outputs)
        if len(values) != 1:
            raise DataError(f"The network gives {len(values)} outputs: targets can be held against one only.")
        (found,) = values
        if found.shape != targets.shape and found.squeeze(-1).shape == targets.squeeze(-1).shape:
            targets = targets.reshape(found.shape)
        if found.shape != targets.shape:
            raise DataError(
                f"The network gives {list(found.shape)} and the targets are {list(targets.shape)}: "
                "give targets of the shape of the output."
            )
        check_numbers(found)
        self.errors.add(targets, found)

    def metrics(self) -> dict[str, float]:
        """Raises DataError where the targets do not differ, as nothing is then there to hold errors against."""
        ((_, mean, square),) = (sums / count for sums, count in zip(self.errors.sums, self.errors.counts, strict=True))
        if not ((square - mean.square()) > LEAST_SHARE * square).any():
            raise DataError("The targets are all alike, and nmse is the error over their variance: give more pictures.")
        return {"nmse": self.errors.value()}
