"""How a picture becomes a network's input: size, resizing, order of channels, mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zeroq.errors import DataError, OptionError

CHANNEL_COUNTS = {"RGB": 3, "BGR": 3, "L": 1}
RESIZE_WORDS = ("stretch", "letterbox")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
KEYS = ("size", "mean", "std", "channels", "resize", "interpolation")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the network sees it.

    size: (height, width) of the input.  mean, std: per channel of pixel / 255, in the order of `channels`.
    channels: None for data that are no pictures (neither 1 nor 3 channels).
    resize: None scales the picture so that it just covers `size` and crops the centre; a number scales the shorter
    side to it before the crop; "stretch" ignores the aspect ratio; "letterbox" keeps it, centred on black.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str | None = None
    resize: int | str | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(_is_integer(side) and side >= 1 for side in self.size):
            raise OptionError(f"Preprocessing: size is {self.size}: give (height, width) in pixels, both at least 1.")
        self._check_statistics()
        self._check_channels()
        self._check_resize()
        if self.interpolation not in tuple(FILTERS):  # a tuple compares, so a list given here is no TypeError
            raise OptionError(f'Preprocessing: interpolation is {self.interpolation!r}: give "bilinear" or "bicubic".')

    @property
    def channel_count(self) -> int:
        return len(self.mean)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one input."""
        return (self.channel_count, *self.size)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From PREPROCESS of a user's file or from JSON; a key of None counts as left out. Raises OptionError."""
        unknown = sorted(str(key) for key in values if key not in KEYS)
        if unknown:
            raise OptionError(f"Preprocessing does not know {', '.join(unknown)}: its keys are {', '.join(KEYS)}.")
        missing = [key for key in ("size", "mean", "std") if values.get(key) is None]
        if missing:
            raise OptionError(f"Preprocessing lacks {', '.join(missing)}: size, mean and std are needed.")
        return cls(
            size=_integers(values["size"]),
            mean=_numbers("mean", values["mean"]),
            std=_numbers("std", values["std"]),
            channels=values.get("channels"),
            resize=values.get("resize"),
            interpolation=values.get("interpolation") or "bilinear",
        )

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold, which `from_dict` reads back; what is None is left out."""
        values = {key: getattr(self, key) for key in KEYS}
        listed = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {key: value for key, value in listed.items() if value is not None}

    def _check_statistics(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise OptionError(
                f"Preprocessing: {len(self.mean)} values of mean and {len(self.std)} of std: give one per channel."
            )
        if not all(math.isfinite(value) for value in self.mean):
            raise OptionError(f"Preprocessing: mean is {self.mean}: every value must be finite.")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise OptionError(f"Preprocessing: std is {self.std}: every value must be positive and finite.")

    def _check_channels(self) -> None:
        count = len(self.mean)
        if self.channels is None:
            if count in CHANNEL_COUNTS.values():
                choice = '"L"' if count == 1 else '"RGB" or "BGR"'
                raise OptionError(f"Preprocessing: mean has {count} value(s) and channels is missing: add {choice}.")
        elif self.channels not in tuple(CHANNEL_COUNTS):
            raise OptionError(
                f'Preprocessing: channels is {self.channels!r}: give "RGB", "BGR" or "L", or leave it out for data '
                "of other channels."
            )
        elif CHANNEL_COUNTS[self.channels] != count:
            raise OptionError(
                f'Preprocessing: channels is "{self.channels}" and mean has {count} value(s): '
                f"give {CHANNEL_COUNTS[self.channels]}."
            )

    def _check_resize(self) -> None:
        if self.resize is None or self.resize in RESIZE_WORDS:
            return
        if isinstance(self.resize, str) or not _is_integer(self.resize):
            raise OptionError(
                f'Preprocessing: resize is {self.resize!r}: give the shorter side in pixels, "stretch" or '
                '"letterbox", or leave it out.'
            )
        if self.resize < max(self.size):
            raise OptionError(
                f"Preprocessing: resize {self.resize} is less than size {self.size}: give at least {max(self.size)}, "
                "or leave it out."
            )


def imagenet(size: tuple[int, int]) -> Preprocessing:
    """ImageNet's mean and deviation, RGB: what is assumed where a model says nothing."""
    return Preprocessing(size, IMAGENET_MEAN, IMAGENET_STD, "RGB")


def apply_picture(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """One decoded picture of 8 bits per channel as the network's input, float32 [C, H, W]. Raises DataError."""
    if preprocessing.channels is None:
        raise DataError(
            f"The network takes {preprocessing.channel_count} channels and pictures have 1 or 3: "
            "give the data as an npz file of images [N, H, W, C]."
        )
    mode = "L" if preprocessing.channels == "L" else "RGB"
    resized = np.asarray(_resize(image.convert(mode), preprocessing))
    return _normalise(resized.reshape(1, *preprocessing.size, -1), preprocessing)[0]


def apply_pixels(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """Pixels uint8 [N, H, W, C], three channels in the order R, G, B, as the network's input, float32 [N, C, H, W].

    Resized like pictures where their size differs. Raises DataError.
    """
    check_pixels("Images", pixels.shape, pixels.dtype, preprocessing)
    if pixels.shape[1:3] != preprocessing.size:
        resized = [_resize_array(image, preprocessing) for image in pixels]
        pixels = np.stack(resized) if resized else np.zeros((0, *preprocessing.size, pixels.shape[-1]), np.uint8)
    return _normalise(pixels, preprocessing)


def check_pixels(what: str, shape: Sequence[int], dtype: np.dtype[Any], preprocessing: Preprocessing) -> None:
    """Raise DataError unless these are uint8 [N, H, W, C] with the channels of the preprocessing."""
    if dtype != np.uint8 or len(shape) != 4 or 0 in shape[1:]:
        raise DataError(f"{what} are {dtype} {list(shape)}: give uint8 [N, H, W, C].")
    if shape[-1] != preprocessing.channel_count:
        raise DataError(
            f"{what} are {list(shape)} and the network takes {preprocessing.channel_count} channel(s): "
            f"give uint8 [N, H, W, {preprocessing.channel_count}]."
        )


def _normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """(pixel / 255 - mean) / std, computed in 64 bits once for each of the 256 pixel values; [N, H, W, C]."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    table = ((np.arange(256)[:, None] / 255 - mean) / std).astype(np.float32)  # [256, channels]
    order = [2, 1, 0] if preprocessing.channels == "BGR" else range(preprocessing.channel_count)
    planes = [table[:, channel][pixels[..., source]] for channel, source in enumerate(order)]
    return torch.from_numpy(np.stack(planes, axis=1))


def _resize_array(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """[h, w, C] to [H, W, C]; Pillow filters channels one by one in RGB as well, so any number of them is alike."""
    planes = [_resize(Image.fromarray(pixels[..., channel]), preprocessing) for channel in range(pixels.shape[-1])]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The picture at the network's size."""
    height, width = preprocessing.size
    left, top, new_width, new_height = placed((image.height, image.width), preprocessing)
    resized = image.resize((new_width, new_height), FILTERS[preprocessing.interpolation])
    if preprocessing.resize == "letterbox":
        canvas = Image.new(image.mode, (width, height))  # black
        canvas.paste(resized, (left, top))
        return canvas
    return resized.crop((-left, -top, width - left, height - top))


def placed(picture: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Where a picture of (height, width) lies in the network's input: left, top, width and height in its pixels.

    Left and top are above 0 in a letterbox, and below where the picture is cropped.
    """
    height, width = preprocessing.size
    new_height, new_width = resized_size(picture, preprocessing)
    if preprocessing.resize == "letterbox":
        return (width - new_width) // 2, (height - new_height) // 2, new_width, new_height
    # Half a pixel goes to the even side, as in torchvision's CenterCrop.
    return -round((new_width - width) / 2), -round((new_height - height) / 2), new_width, new_height


def resized_size(picture: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """(height, width) that a picture of that height and width is scaled to, before it is cropped or padded.

    Where a shorter side is given or `size` is to be covered, the other side is rounded down, as in torchvision's
    Resize, which trained most zoo networks; in a letterbox it is rounded to nearest, and at least 1.
    """
    (height, width), (old_height, old_width) = preprocessing.size, picture
    if preprocessing.resize == "stretch":
        return height, width
    if preprocessing.resize == "letterbox":
        if height * old_width <= width * old_height:  # the height is the tighter bound
            return height, max(1, (2 * old_width * height + old_height) // (2 * old_height))
        return max(1, (2 * old_height * width + old_width) // (2 * old_width)), width
    if isinstance(preprocessing.resize, int):
        height = width = preprocessing.resize
    if height * old_width >= width * old_height:
        return height, old_width * height // old_height
    return old_height * width // old_width, width


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(values: object) -> tuple[int, int]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise OptionError(f"Preprocessing: size is {values!r}: give (height, width) in pixels, both at least 1.")
    return values[0], values[1]


def _numbers(key: str, values: object) -> tuple[float, ...]:
    sequence = values if isinstance(values, Sequence) and not isinstance(values, str) else None
    if sequence is None or not all(isinstance(value, int | float) for value in sequence):
        raise OptionError(f"Preprocessing: {key} is {values!r}: give a list of numbers, one per channel.")
    return tuple(float(value) for value in sequence)
