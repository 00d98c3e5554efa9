"""Pixels as pictures that a page can hold."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALL_SIDE = 64  # up to here pixels are kept and enlarged by the browser, which shows each as a square
SHOWN_SIDE = 192  # twice the width of a thumbnail, for fine screens
MOST_PICTURES = 32


@dataclass(frozen=True)
class ContactSheet:
    """Pictures as data addresses, and whether they are small enough that each pixel is to be seen."""

    addresses: tuple[str, ...]
    pixelated: bool
    width: int
    height: int


def contact_sheet(images: NDArray[np.uint8] | None) -> ContactSheet | None:
    """Up to 32 of the images, uint8 [count, H, W, C]; of channels other than 1 or 3 the first is shown in grey."""
    if images is None or len(images) == 0:
        return None
    _, height, width, channels = images.shape
    planes = images if channels == 3 else images[..., 0]
    small = max(height, width) <= SMALL_SIDE
    addresses = tuple(address(Image.fromarray(plane), small) for plane in planes[:MOST_PICTURES])
    return ContactSheet(addresses, small, width, height)


def address(picture: Image.Image, exact: bool) -> str:
    """The picture inside its own address: PNG where every pixel counts, else a smaller JPEG."""
    stream = io.BytesIO()
    if exact:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
        picture.save(stream, "JPEG", quality=85)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
