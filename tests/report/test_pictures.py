"""Pixels become addresses that hold the picture themselves."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from zeroq.report.pictures import MOST_PICTURES, contact_sheet

RANDOM = np.random.default_rng(0)


def test_small_pictures_keep_every_pixel() -> None:
    images = RANDOM.integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)
    sheet = contact_sheet(images)
    assert sheet is not None
    assert sheet.pixelated
    assert (sheet.width, sheet.height) == (10, 8)
    for address, image in zip(sheet.addresses, images, strict=True):
        np.testing.assert_array_equal(np.asarray(opened(address)), image)


def test_large_pictures_become_thumbnails_and_not_too_many() -> None:
    sheet = contact_sheet(np.zeros((MOST_PICTURES + 4, 224, 448, 3), np.uint8))
    assert sheet is not None
    assert not sheet.pixelated
    assert len(sheet.addresses) == MOST_PICTURES
    assert opened(sheet.addresses[0]).size == (192, 96)


def test_one_channel_and_many_channels_are_grey() -> None:
    for channels in (1, 2, 5):
        images = RANDOM.integers(0, 256, (1, 6, 6, channels), dtype=np.uint8)
        sheet = contact_sheet(images)
        assert sheet is not None
        np.testing.assert_array_equal(np.asarray(opened(sheet.addresses[0])), images[0, ..., 0])


def test_no_pictures_no_sheet() -> None:
    assert contact_sheet(None) is None
    assert contact_sheet(np.zeros((0, 8, 8, 3), np.uint8)) is None


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
