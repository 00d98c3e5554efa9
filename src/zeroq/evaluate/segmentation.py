"""Segmentation: a class for each pixel, one confusion matrix over all pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from zeroq.divergence import Meaning
from zeroq.divergence.channels import tensors_of
from zeroq.errors import DataError
from zeroq.evaluate.classification import check_numbers
from zeroq.evaluate.pictures import DAMAGE, files_below, picture_size, read_beside
from zeroq.preprocessing import Preprocessing, placed

IMAGES, LABELS = "images", "labels"
LABEL_MODES = ("1", "L", "P", "I", "I;16")  # one number for each pixel


@dataclass(frozen=True)
class Truth:
    """The label of one picture: class indices int64 [h, w], and the size (height, width) of the picture itself."""

    label: Tensor
    picture: tuple[int, int]


@dataclass(frozen=True)
class SegmentationData:
    """Pictures and the label of each, in the order of the pictures' names."""

    pictures: tuple[Path, ...]
    labels: tuple[Path, ...]
    preprocessing: Preprocessing
    classes: int
    ignore: int | None

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, batch: int) -> Iterator[tuple[Tensor, list[Truth]]]:
        """Inputs [n, C, H, W] and the truth of each. Raises DataError that names a damaged file or a wrong label."""
        return read_beside(self.pictures, self.preprocessing, batch, self.truth)

    def truth(self, place: int) -> Truth:
        return Truth(self.label(self.labels[place]), picture_size(self.pictures[place]))

    def label(self, path: Path) -> Tensor:
        """Class indices int64 [h, w] of a file."""
        label = read_label(path)
        counted = label if self.ignore is None else label[label != self.ignore]
        if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < self.classes:
            wrong = int(counted.max()) if int(counted.max()) >= self.classes else int(counted.min())
            raise DataError(
                f"{path} has a pixel of class {wrong} and the network {self.classes} classes: "
                "correct it, or let IGNORE name the label that does not count."
            )
        return label


def open_segmentation(folder: Path, preprocessing: Preprocessing, meaning: Meaning, classes: int) -> SegmentationData:
    """images/NAME.* and labels/NAME.png below a folder. Raises DataError for anything else."""
    for part in (IMAGES, LABELS):
        if not (folder / part).is_dir():
            raise DataError(f"{folder} holds no folder {part!r}: put pictures into images and labels into labels.")
    pictures = tuple(files_below(folder / IMAGES))
    if not pictures:
        raise DataError(f"There are no pictures in {folder / IMAGES}: give at least one.")
    labels = []
    for picture in pictures:
        label = (folder / LABELS / picture.relative_to(folder / IMAGES)).with_suffix(".png")
        if not label.is_file():
            raise DataError(f"{picture} has no label: {label} is not there.")
        labels.append(label)
    return SegmentationData(pictures, tuple(labels), preprocessing, classes, meaning.ignore)


def read_label(path: Path) -> Tensor:
    """The class index of each pixel, int64 [h, w]; a palette's colours do not matter. Raises DataError."""
    try:
        with Image.open(path) as image:
            image.load()
    except DAMAGE as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}): replace or remove it.") from error
    if image.mode not in LABEL_MODES:
        raise DataError(f"{path} has pixels of kind {image.mode!r}: save the class index of each pixel as one number.")
    return torch.from_numpy(np.asarray(image).astype(np.int64))


def classes_at(logits: Tensor, truth: Truth, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """The class that a network gives to each pixel of a label, and the label, both int64 [h, w].

    logits: [K, h, w] of one picture. They are resized to the label bilinearly; what the preprocessing padded is cut
    off before, and of what it cropped away the label is left out.
    """
    height, width = preprocessing.size
    left, top, new_width, new_height = placed(truth.picture, preprocessing)
    label, maps = truth.label, logits[None]
    if (left, top, new_width, new_height) != (0, 0, width, height):
        maps = functional.interpolate(maps, preprocessing.size, mode="bilinear", align_corners=False)
        maps = maps[:, :, max(top, 0) : max(top, 0) + new_height, max(left, 0) : max(left, 0) + new_width]
        rows, columns = seen(top, height, new_height, len(label)), seen(left, width, new_width, label.shape[1])
        label = label[rows, columns]
    if not label.numel():  # of one so coarse that no whole row or column is seen
        return label, label
    maps = functional.interpolate(maps, label.shape, mode="bilinear", align_corners=False)
    return maps[0].argmax(dim=0), label


def seen(start: int, side: int, new_side: int, label_side: int) -> slice:
    """The part of a label's axis that the network sees; start and new_side: of the picture in the network's input."""
    scale = label_side / new_side
    return slice(round(max(-start, 0) * scale), round(min(side - start, new_side) * scale))


def confusion(found: Tensor, label: Tensor, classes: int, ignore: int | None) -> Tensor:
    """Pixels by label (rows) and given class (columns), int64 [K, K]; those of the label `ignore` do not count."""
    counted = torch.ones_like(label, dtype=torch.bool) if ignore is None else label != ignore
    pairs = label[counted] * classes + found[counted]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def overlap(matrix: Tensor) -> dict[str, float]:
    """Mean over the classes present in the labels of intersection over union, and the share of right pixels."""
    right, labelled, given = matrix.diagonal().double(), matrix.sum(dim=1), matrix.sum(dim=0)
    present = labelled > 0
    if not present.any():
        raise DataError("Every pixel of the labels has the class of IGNORE: give labels with classes that count.")
    union = labelled + given - matrix.diagonal()
    return {
        "miou": float((right[present] / union[present]).mean()),
        "pixel_accuracy": float(right.sum() / matrix.sum()),
    }


class Overlap:
    """One confusion matrix over all pictures."""

    def __init__(self, data: SegmentationData, ignore: int | None) -> None:
        self.data, self.ignore = data, ignore
        self.matrix = torch.zeros(data.classes, data.classes, dtype=torch.int64)

    def add(self, outputs: Any, truth: list[Truth]) -> None:
        """Outputs [n, K, h, w], the first of several, and the truth of each picture."""
        for matrix in self.matrices(outputs, truth):
            self.matrix += matrix

    def matrices(self, outputs: Any, truth: list[Truth]) -> list[Tensor]:
        """The confusion matrix [K, K] of each picture."""
        maps = tensors_of(outputs)[0]
        if maps.dim() != 4 or maps.shape[:2] != (len(truth), self.data.classes):
            raise DataError(
                f"The network gives {list(maps.shape)} for {len(truth)} images: segmentation needs scores "
                f"[{len(truth)}, {self.data.classes}, H, W]."
            )
        check_numbers(maps)
        pairs = [classes_at(each, one, self.data.preprocessing) for each, one in zip(maps, truth, strict=True)]
        return [confusion(found, label, self.data.classes, self.ignore) for found, label in pairs]

    def metrics(self) -> dict[str, float]:
        return overlap(self.matrix)
