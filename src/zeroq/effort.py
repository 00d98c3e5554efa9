"""What each level of `--effort` buys."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Effort:
    """How much is computed, and among what is chosen.

    images, iterations: that are distilled, and steps of their optimisation.
    rounded: images that weights are rounded on, at most; their values are kept in memory (and as many variants').
    widths: that a layer's weights may have with a target, unless asked otherwise.
    reconstruction: steps of block reconstruction for each block, where inputs of layers have few bits.
    """

    images: int
    iterations: int
    rounded: int
    widths: tuple[int, ...]
    reconstruction: int = 0

    def for_inputs(self, numbers: int) -> Effort:
        """With more images where one holds so few numbers that all together say little of what they reach.

        numbers: of one image in the largest input.
        """
        times = max(1, math.ceil(LEAST_NUMBERS / (self.images * numbers)))
        return replace(self, images=times * self.images, rounded=times * self.rounded)


LEAST_NUMBERS = 4096  # of an input in all images
FEW_BITS = 4  # of a layer's input, at most: with more, block reconstruction gains too little (docs/reconstruction.md)
EFFORTS = {  # what they take: docs/performance.md
    "fast": Effort(32, 12, 64, (2, 4, 8)),
    "balanced": Effort(64, 24, 64, (2, 4, 8)),
    "best": Effort(256, 24, 192, (2, 3, 4, 5, 6, 8), reconstruction=150),
}
