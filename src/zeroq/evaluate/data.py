"""Labelled pictures, from a folder of class folders, an npz file, or arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroq.errors import DataError
from zeroq.evaluate.archive import Member, open_member
from zeroq.evaluate.pictures import files_below, read_batches
from zeroq.preprocessing import Preprocessing, apply_pixels, check_pixels

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, H, W, C], labels [N]
CLASS_NAMES = "labels.txt"


@dataclass(frozen=True)
class LabelledData:
    """Inputs of a network and the class of each, read from disk while they are gone through.

    labels: int64 [N].  read: from a batch size to the inputs in their order, float32 [n, C, H, W] each.
    """

    labels: Tensor
    classes: int
    read: Callable[[int], Iterator[Tensor]]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs [n, C, H, W] and labels [n], n at most `batch`. Raises DataError where a picture is damaged."""
        first = 0
        for inputs in self.read(batch):
            yield inputs, self.labels[first : first + len(inputs)]
            first += len(inputs)


def open_data(source: Path | Arrays, preprocessing: Preprocessing, classes: int) -> LabelledData:
    """Labelled data for a network of so many classes. Raises DataError for anything that does not fit it."""
    if isinstance(source, tuple):
        return _from_arrays(source, preprocessing, classes)
    if source.is_dir():
        return _from_folder(source, preprocessing, classes)
    if not source.exists():
        raise DataError(f"{source} does not exist: give a folder of class folders, or an npz file.")
    if source.suffix.lower() != ".npz":
        raise DataError(
            f"{source} is neither a folder nor an npz file: give a folder of class folders, or an npz file."
        )
    return _from_npz(source, preprocessing, classes)


def _from_arrays(arrays: Arrays, preprocessing: Preprocessing, classes: int) -> LabelledData:
    images, labels = arrays
    _check_kinds("", images, labels, preprocessing)

    def read(batch: int) -> Iterator[Tensor]:
        for first in range(0, len(images), batch):
            yield apply_pixels(images[first : first + batch], preprocessing)

    return LabelledData(_checked_labels("", labels, classes), classes, read)


def _from_npz(path: Path, preprocessing: Preprocessing, classes: int) -> LabelledData:
    images, labels = open_member(path, "images"), open_member(path, "labels")
    _check_kinds(f" in {path}", images, labels, preprocessing)

    def read(batch: int) -> Iterator[Tensor]:
        for block in images.blocks(batch):
            yield apply_pixels(block, preprocessing)

    return LabelledData(_checked_labels(f" in {path}", labels.whole(), classes), classes, read)


def _from_folder(folder: Path, preprocessing: Preprocessing, classes: int) -> LabelledData:
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{folder} holds no class folders: put the pictures of each class into a folder of its own.")
    indices = _class_indices(folder, [path.name for path in folders], classes)
    labelled = [(file, index) for path, index in zip(folders, indices, strict=True) for file in files_below(path)]
    if not labelled:
        raise DataError(f"The class folders of {folder} are empty: put pictures into them.")
    files, labels = zip(*labelled, strict=True)
    return LabelledData(torch.tensor(labels), classes, partial(read_batches, files, preprocessing))


def _class_indices(folder: Path, names: list[str], classes: int) -> list[int]:
    """The class of each class folder: its name where all are integers, else by labels.txt, else by their order."""
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        beyond = [name for name in names if not 0 <= int(name) < classes]
        if beyond:
            raise DataError(
                f"{folder} has a class folder {beyond[0]!r} and the network has {classes} classes: "
                f"name the folders 0 to {classes - 1}."
            )
        return [int(name) for name in names]
    ordered = names
    if (folder / CLASS_NAMES).is_file():
        ordered = _class_names(folder / CLASS_NAMES)
        unknown = [name for name in names if name not in ordered]
        if unknown:
            raise DataError(f"{folder / CLASS_NAMES} does not name the class folder {unknown[0]!r}: add it.")
    if len(ordered) != classes:
        raise DataError(
            f"{folder} names {len(ordered)} classes and the network has {classes}: give one folder for each class, "
            f"or folders named by class index, or a {CLASS_NAMES} of one folder name per line in the order of classes."
        )
    return [ordered.index(name) for name in names]


def _class_names(path: Path) -> list[str]:
    """Line i of labels.txt names the folder of class i; empty lines at the end do not count."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): give text in UTF-8, one folder name per line.") from error


def _check_kinds(
    of: str, images: NDArray[Any] | Member, labels: NDArray[Any] | Member, preprocessing: Preprocessing
) -> None:
    """Types, shapes and numbers of images and labels; `of` says where they are from."""
    check_pixels(f"The images{of}", images.shape, images.dtype, preprocessing)
    if len(labels.shape) != 1 or labels.dtype.kind not in "iu":
        shape = list(labels.shape)
        raise DataError(f"The labels{of} are {labels.dtype} {shape}: give integers [N], one class index per image.")
    if images.shape[0] != labels.shape[0]:
        raise DataError(f"{images.shape[0]} images and {labels.shape[0]} labels{of}: give one label for each image.")
    if not images.shape[0]:
        raise DataError(f"There are no images{of}: give at least one.")


def _checked_labels(of: str, labels: NDArray[Any], classes: int) -> Tensor:
    """The labels as int64 [N]."""
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        raise DataError(
            f"The labels{of} are {least} to {most} and the network has {classes} classes: give 0 to {classes - 1}."
        )
    return torch.from_numpy(labels.astype(np.int64))
