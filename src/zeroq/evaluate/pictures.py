"""Pictures on disk: decoding them, and choosing some for calibration."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroq.errors import DataError
from zeroq.evaluate.archive import Member, open_member
from zeroq.preprocessing import Preprocessing, apply_picture, apply_pixels, check_pixels

T = TypeVar("T")

DECODING_THREADS = 2
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")  # 8 bits, convertible to RGB and L
# What Pillow raises for a damaged or hostile file, by format and place of the damage.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError,
          NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip


def read_picture(path: Path, preprocessing: Preprocessing) -> Tensor:
    """One file as the network's input, float32 [C, H, W]. Raises DataError that names the file."""
    try:
        with Image.open(path) as image:
            image.load()
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path} is not a picture: remove it, or replace it by one.") from error
    except DAMAGE as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}): replace or remove it.") from error
    if image.mode not in MODES:
        raise DataError(f"{path} has pixels of kind {image.mode!r}: convert it to RGB or grey of 8 bits.")
    return apply_picture(image, preprocessing)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture file, which is not decoded. Raises DataError that names the file."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except DAMAGE as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}): replace or remove it.") from error


def read_batches(files: Sequence[Path], preprocessing: Preprocessing, batch: int) -> Iterator[Tensor]:
    """The files in their order as float32 [n, C, H, W], n at most `batch`, one batch in memory at a time.

    The next batch is not decoded ahead: meanwhile the time of the network is taken.
    """
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for first in range(0, len(files), batch):
            chosen = files[first : first + batch]
            yield torch.stack(list(pool.map(read_picture, chosen, [preprocessing] * len(chosen))))


def read_beside(
    files: Sequence[Path], preprocessing: Preprocessing, batch: int, truth: Callable[[int], T]
) -> Iterator[tuple[Tensor, list[T]]]:
    """The files as `read_batches` gives them, and beside each batch what is true of its pictures, by their places."""
    first = 0
    for inputs in read_batches(files, preprocessing, batch):
        places = range(first, first := first + len(inputs))
        yield inputs, [truth(place) for place in places]


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and the folders in it, hidden ones left out, in the order of their paths."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))


@dataclass(frozen=True)
class Pictures:
    """Unlabelled inputs of a network, read from disk while they are gone through."""

    count: int
    read: Callable[[int], Iterator[Tensor]]  # from a batch size to float32 [n, C, H, W] each, in their order


def open_pictures(source: Path, preprocessing: Preprocessing) -> Pictures:
    """All pictures of a folder, nested or not, or `images` of an npz file. Raises DataError."""
    if source.is_dir():
        files = picture_files(source)
        return Pictures(len(files), partial(read_batches, files, preprocessing))
    images = open_pixels(source, preprocessing)

    def read(batch: int) -> Iterator[Tensor]:
        for block in images.blocks(batch):
            yield apply_pixels(block, preprocessing)

    return Pictures(images.shape[0], read)


def calibration_pictures(source: Path, preprocessing: Preprocessing, count: int, seed: int) -> Tensor:
    """Inputs [count, C, H, W] from a folder of pictures, nested or not, or from `images` of an npz file.

    The choice depends on the seed and on the names and number of the pictures alone. All of them where there are
    fewer than `count`. Files of a folder that are no pictures by their ending are passed over. Raises DataError.
    """
    if source.is_dir():
        files = picture_files(source)
        chosen = [files[index] for index in _choose(len(files), count, seed)]
        return torch.cat(list(read_batches(chosen, preprocessing, batch=32)))
    images = open_pixels(source, preprocessing)
    places = set(_choose(images.shape[0], count, seed))
    rows = [row for index, row in enumerate(images.blocks(1)) if index in places]
    return apply_pixels(np.concatenate(rows), preprocessing)


def picture_files(folder: Path) -> list[Path]:
    """Files of a folder that are pictures by their ending. Raises DataError where there is none."""
    endings = Image.registered_extensions()
    files = [path for path in files_below(folder) if path.suffix.lower() in endings]
    if not files:
        raise DataError(f"{folder} holds no pictures: give a folder with some in it, or an npz file with 'images'.")
    return files


def open_pixels(source: Path, preprocessing: Preprocessing) -> Member:
    """`images` of an npz file, none of them read yet. Raises DataError."""
    if not source.exists():
        raise DataError(f"{source} does not exist: give a folder of pictures, or an npz file with 'images'.")
    images = open_member(source, "images")
    check_pixels(f"The images in {source}", images.shape, images.dtype, preprocessing)
    if not images.shape[0]:
        raise DataError(f"There are no images in {source}: give at least one.")
    return images


def _choose(available: int, count: int, seed: int) -> list[int]:
    """Which of the available ones, in ascending order."""
    return sorted(random.Random(seed).sample(range(available), min(count, available)))
