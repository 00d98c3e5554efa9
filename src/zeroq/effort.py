"""What each level of `--effort` buys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How much is computed, and among what is chosen.

    images, iterations: that are distilled, and steps of their optimisation.
    rounded: images that weights are rounded on, at most; their values are kept in memory (and as many variants').
    widths: that a layer's weights may have with a target, unless asked otherwise.
    """

    images: int
    iterations: int
    rounded: int
    widths: tuple[int, ...]


EFFORTS = {  # what they take: docs/performance.md
    "fast": Effort(32, 12, 64, (2, 4, 8)),
    "balanced": Effort(64, 24, 64, (2, 4, 8)),
    "best": Effort(256, 24, 192, (2, 3, 4, 5, 6, 8)),
}
