"""From pictures and pixels to a network's input, against slow and literal oracles."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zeroq.errors import DataError, OptionError
from zeroq.preprocessing import Preprocessing, apply_picture, apply_pixels, imagenet, resized_size

SIDES = st.integers(1, 400)


def plain(size: tuple[int, int], channels: str = "L", **values: Any) -> Preprocessing:
    """Pixels of 0 to 1, without mean and deviation."""
    count = {"L": 1, "RGB": 3, "BGR": 3}[channels]
    return Preprocessing(size, (0.0,) * count, (1.0,) * count, channels, **values)


def pixels_of(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """The pixels that the network sees, [C, H, W]."""
    return np.rint(apply_picture(image, preprocessing).numpy() * 255).astype(int)


# Geometry


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=300, deadline=None)
def test_scaled_size_equals_exact_arithmetic(height: int, width: int, old_height: int, old_width: int) -> None:
    old = (old_height, old_width)
    tall, wide = Fraction(height, old_height), Fraction(width, old_width)
    for resize, scale in ((None, max(tall, wide)), (420, Fraction(420, min(old)))):
        expected = tuple(math.floor(side * scale) for side in old)
        assert resized_size(old, plain((height, width), resize=resize)) == expected
        assert all(new >= side for new, side in zip(expected, (height, width), strict=True))
    boxed = tuple(max(1, math.floor(side * min(tall, wide) + Fraction(1, 2))) for side in old)
    assert resized_size(old, plain((height, width), resize="letterbox")) == boxed
    assert all(new <= side for new, side in zip(boxed, (height, width), strict=True))
    assert resized_size(old, plain((height, width), resize="stretch")) == (height, width)


@pytest.mark.parametrize(("width", "first"), [(4, 0), (5, 0), (6, 1), (7, 2), (8, 2), (9, 2), (10, 3), (11, 4)])
def test_crop_takes_the_centre_and_gives_half_a_pixel_to_the_even_side(width: int, first: int) -> None:
    columns = np.tile(np.arange(width, dtype=np.uint8), (4, 1))
    kept = list(range(first, first + 4))
    assert pixels_of(Image.fromarray(columns), plain((4, 4)))[0, 0].tolist() == kept
    assert pixels_of(Image.fromarray(columns.T.copy()), plain((4, 4)))[0, :, 0].tolist() == kept


@pytest.mark.parametrize(("width", "left"), [(1, 1), (2, 1), (3, 0), (4, 0)])
def test_letterbox_centres_on_black(width: int, left: int) -> None:
    seen = pixels_of(Image.new("RGB", (width, 4), (200, 100, 50)), plain((4, 4), "RGB", resize="letterbox"))
    expected = np.zeros((3, 4, 4), int)
    expected[:, :, left : left + width] = np.array([200, 100, 50])[:, None, None]
    assert (seen == expected).all()


def test_black_of_the_letterbox_is_normalised_like_any_pixel() -> None:
    boxed = Preprocessing((4, 4), (0.5,), (0.25,), "L", resize="letterbox")
    assert apply_picture(Image.new("L", (4, 2), 255), boxed)[0, :, 0].tolist() == [-2.0, 2.0, 2.0, -2.0]


def test_shorter_side_is_scaled_before_the_crop() -> None:
    picture = Image.fromarray(np.tile(np.repeat(np.array([0, 255, 0], np.uint8), 8), (8, 1)))  # 8 x 24
    assert (pixels_of(picture, plain((4, 4), resize=8)) == 255).all()
    assert (pixels_of(picture, plain((4, 4), resize="stretch"))[0, :, 0] < 60).all()


# Filters


def triangle(line: list[float], new: int) -> list[float]:
    """One line of pixels by the bilinear filter as Pillow's manual has it: a triangle as wide as the scale."""
    scale = len(line) / new
    width = max(scale, 1.0)
    result = []
    for index in range(new):
        centre = (index + 0.5) * scale
        weights = [max(0.0, 1 - abs(place + 0.5 - centre) / width) for place in range(len(line))]
        result.append(sum(w * value for w, value in zip(weights, line, strict=True)) / sum(weights))
    return result


@pytest.mark.parametrize(("height", "width"), [(9, 13), (4, 30), (3, 3), (7, 7)])
def test_resizing_is_the_bilinear_filter(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    rows = [triangle(row, 7) for row in pixels.astype(float).tolist()]
    expected = np.array([triangle(column, 7) for column in np.array(rows).T.tolist()]).T
    seen = pixels_of(Image.fromarray(pixels), plain((7, 7), resize="stretch"))[0]
    assert np.abs(seen - expected).max() <= 1.01  # Pillow rounds to 8 bits after each direction


def test_bicubic_is_pillows() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    expected = np.asarray(picture.resize((5, 6), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    seen = pixels_of(picture, plain((6, 5), "RGB", resize="stretch", interpolation="bicubic"))
    assert (seen == expected).all()


# Channels and normalisation


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_every_pixel_value_is_normalised_exactly(channels: str) -> None:
    mean, std = (0.485, 127 / 255, -3.0), (0.229, 1 / 255, 128.0)
    pixels = np.random.default_rng(2).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    seen = apply_pixels(pixels, Preprocessing((16, 16), mean, std, channels))
    for channel in range(3):
        source = pixels[0, :, :, channel if channels == "RGB" else 2 - channel]
        exact = [(Fraction(int(v), 255) - Fraction(mean[channel])) / Fraction(std[channel]) for v in source.flat]
        nearest = torch.tensor([float(value) for value in exact], dtype=torch.float64).float()
        assert torch.allclose(seen[0, channel].flatten(), nearest, rtol=1e-7, atol=1e-12)


def test_pictures_of_any_kind_are_converted_to_the_channels() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
        picture = Image.new("RGB", (2, 2), (255, 255, 255)).convert(mode)
        assert (pixels_of(picture, plain((2, 2), "RGB")) == 255).all(), mode
        assert (pixels_of(picture, plain((2, 2), "L")) == 255).all(), mode


@pytest.mark.parametrize("resize", [None, 12, "stretch", "letterbox"])
@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
def test_pixels_and_pictures_are_alike(channels: str, resize: int | str | None) -> None:
    preprocessing = plain((7, 11), channels, resize=resize)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 13, 9, preprocessing.channel_count), dtype=np.uint8)
    pictures = [Image.fromarray(image.squeeze()) for image in pixels]
    expected = torch.stack([apply_picture(picture, preprocessing) for picture in pictures])
    assert torch.equal(apply_pixels(pixels, preprocessing), expected)


def test_data_of_other_channels_keep_their_order() -> None:
    five = Preprocessing((2, 2), (0.0,) * 5, (1 / 255,) * 5)
    pixels = np.arange(20, dtype=np.uint8).reshape(1, 2, 2, 5)
    assert torch.equal(apply_pixels(pixels, five), torch.arange(20.0).reshape(1, 2, 2, 5).permute(0, 3, 1, 2))
    assert apply_pixels(np.zeros((3, 6, 9, 5), np.uint8), five).shape == (3, 5, 2, 2)
    with pytest.raises(
        DataError, match=r"^The network takes 5 channels and pictures have 1 or 3: give the data as an "
    ):
        apply_picture(Image.new("RGB", (2, 2)), five)


def test_result_is_float32_and_may_be_written_to() -> None:
    result = apply_picture(Image.new("RGB", (30, 20)), imagenet((8, 8)))
    assert result.dtype == torch.float32 and result.shape == imagenet((8, 8)).input_shape
    result += 1


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "Images are float32 [2, 8, 8, 3]: give uint8 [N, H, W, C]."),
        (np.zeros((8, 8, 3), np.uint8), "Images are uint8 [8, 8, 3]: give uint8 [N, H, W, C]."),
        (np.zeros((2, 0, 8, 3), np.uint8), "Images are uint8 [2, 0, 8, 3]: give uint8 [N, H, W, C]."),
        (
            np.zeros((2, 8, 8, 1), np.uint8),
            "Images are [2, 8, 8, 1] and the network takes 3 channel(s): give uint8 [N, H, W, 3].",
        ),
    ],
)
def test_pixels_that_do_not_fit_are_named(pixels: np.ndarray, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        apply_pixels(pixels, imagenet((8, 8)))
    assert str(caught.value) == sentence


# The value itself


def test_goes_through_json_and_back() -> None:
    every = Preprocessing((3, 4), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "BGR", resize=9, interpolation="bicubic")
    for preprocessing in (
        every,
        imagenet((5, 5)),
        plain((2, 2), resize="letterbox"),
        Preprocessing((1, 1), (0,), (1,), "L"),
    ):
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
    assert imagenet((224, 192)).to_dict() == {
        "size": [224, 192],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "channels": "RGB",
        "interpolation": "bilinear",
    }


GOOD = {"size": (8, 8), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "channels": "RGB"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"sise": 3},
            "Preprocessing does not know sise: its keys are size, mean, std, channels, resize, interpolation.",
        ),
        ({"size": None, "std": None}, "Preprocessing lacks size, std: size, mean and std are needed."),
        ({"size": 224}, "Preprocessing: size is 224: give (height, width) in pixels, both at least 1."),
        ({"size": (0, 8)}, "Preprocessing: size is (0, 8): give (height, width) in pixels, both at least 1."),
        ({"size": (8.0, 8)}, "Preprocessing: size is (8.0, 8): give (height, width) in pixels, both at least 1."),
        ({"mean": 0.5}, "Preprocessing: mean is 0.5: give a list of numbers, one per channel."),
        ({"std": ["a", 1, 1]}, "Preprocessing: std is ['a', 1, 1]: give a list of numbers, one per channel."),
        ({"mean": (0.5,)}, "Preprocessing: 1 values of mean and 3 of std: give one per channel."),
        ({"mean": (0, 0, math.nan)}, "Preprocessing: mean is (0.0, 0.0, nan): every value must be finite."),
        ({"std": (1, 1, 0)}, "Preprocessing: std is (1.0, 1.0, 0.0): every value must be positive and finite."),
        ({"channels": None}, 'Preprocessing: mean has 3 value(s) and channels is missing: add "RGB" or "BGR".'),
        ({"channels": "L"}, 'Preprocessing: channels is "L" and mean has 3 value(s): give 1.'),
        (
            {"channels": ["R", "G", "B"]},
            "Preprocessing: channels is ['R', 'G', 'B']: give \"RGB\", \"BGR\" or \"L\", or leave it out for data of "
            "other channels.",
        ),
        (
            {"resize": 7},
            "Preprocessing: resize 7 is less than size (8, 8): give at least 8, or leave it out.",
        ),
        (
            {"resize": "fit"},
            'Preprocessing: resize is \'fit\': give the shorter side in pixels, "stretch" or "letterbox", or leave '
            "it out.",
        ),
        ({"interpolation": "lanczos"}, 'Preprocessing: interpolation is \'lanczos\': give "bilinear" or "bicubic".'),
    ],
)
def test_nonsense_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        Preprocessing.from_dict({**GOOD, **changes})
    assert str(caught.value) == sentence
