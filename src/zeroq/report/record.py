"""What a run directory holds, parsed: all that a report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The JSON files of a run, parsed, and some of its distilled images as pixels.

    images: uint8 [count, H, W, C], three channels in the order R, G, B; None where the run kept none.
    """

    run: Mapping[str, Any]
    result: Mapping[str, Any]
    ranges: Mapping[str, Any]
    sensitivity: Mapping[str, Any]
    frontier: Mapping[str, Any]
    images: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.images is not None and (self.images.dtype != np.uint8 or self.images.ndim != 4):
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}, not uint8 [count, H, W, C]")
