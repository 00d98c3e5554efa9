"""The unit that times are told in: one plain pass forward and backward of 32 pictures, on the same machine."""

from __future__ import annotations

import statistics

from zeroq.graph import Network
from zeroq.precision import DTYPES, Precision, step_seconds

IMAGES = 32
REPEATS = 3


def unit_seconds(network: Network, precision: Precision) -> float:
    """Median of some passes, behind one that allocates and chooses kernels."""
    step_seconds(network, precision, IMAGES)
    return statistics.median(one_unit(network, precision) for _ in range(REPEATS))


def one_unit(network: Network, precision: Precision) -> float:
    """Seconds of a single pass."""
    return IMAGES * step_seconds(network, precision, IMAGES)


def precision_named(name: str) -> Precision:
    """The precision that result.json calls "bf16 channels-last", or the like."""
    dtype, _, layout = name.partition(" ")
    return Precision(DTYPES[dtype], layout != "channels-first")
